// Package allinone runs the whole pipeline in one process: an embedded NATS server, and on it the same
// services, by the same constructors, as in a cluster. It is a wiring, not a fork: retries, redelivery and
// deduplication are JetStream's here too, and what is in the state folder survives a kill.
package allinone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/facts/factstore"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/service"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/services/alertrouter"
	"github.com/pratique-sec/pratique/services/ingest"
	"github.com/pratique-sec/pratique/services/layercache"
	"github.com/pratique-sec/pratique/services/psaauditor"
	"github.com/pratique-sec/pratique/services/scanner"
	"github.com/pratique-sec/pratique/services/scanner/engine"
)

// drain is how long the services may take to hand back what they hold.
const drain = 20 * time.Second

// handBack is the last part of it, in which nothing is finished any more.
const handBack = 5 * time.Second

// layerSlots is how many layers are fetched at once, so that one is analysed while the next one arrives.
const layerSlots = 2

// Config of the whole. Only State is required.
type Config struct {
	State      string           // folder; made when it is not there
	Registries registry.Config  // the zero value allows none
	Platforms  []image.Platform // of an index; linux/amd64 when empty

	API        string            // address of ingest; "" is a free port of 127.0.0.1
	TokenFiles []string          // for the API; none: only this machine is answered
	NATS       string            // address on which others on this machine reach NATS, "127.0.0.1:0"; "": nobody does
	Redis      redisfacts.Config // in front of the facts; the zero value: none
	Database   string            // vulnerability database to load at the start, folder or archive; "": none
	JavaIndex  string            // the same for jars
	GiveUp     time.Duration     // how long a registry may not answer; 0: the services' default, a day
	Alerts     string            // configuration in Alertmanager's format; "": nobody is alerted
	JSONMirror bool              // findings as JSON on core NATS, too
	Version    string
}

// Validate names every field that is wrong, without touching anything.
func (c Config) Validate() error {
	var errs []error
	if c.State == "" {
		errs = append(errs, errors.New("state folder: name one"))
	}
	if err := c.ingest().Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.NATS != "" {
		if _, _, err := loopback(c.NATS); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Alerts != "" {
		if err := c.alerts().Validate(); err != nil {
			errs = append(errs, fmt.Errorf("alerts: %w", err))
		}
	}
	if err := c.Redis.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("redis: %w", err))
	}
	if _, err := registry.New(c.Registries, registry.Options{}); err != nil {
		errs = append(errs, fmt.Errorf("registries: %w", err))
	}
	return errors.Join(errs...)
}

func (c Config) ingest() ingest.Config {
	return ingest.Config{Listen: c.API, TokenFiles: c.TokenFiles}
}

// queues are all that somebody here works on.
func (c Config) queues() []string {
	queues := append(bus.Queues(), bus.QueueManifests)
	if c.Alerts != "" {
		queues = append(queues, bus.AlertQueues()...)
	}
	return queues
}

func (c Config) alerts() alertrouter.Config { return alertrouter.Config{Config: c.Alerts} }

// Deps are what the whole is given beside its configuration. Only Logger is required.
type Deps struct {
	Logger     *slog.Logger
	Now        func() time.Time      // nil: time.Now
	Registerer prometheus.Registerer // nil: metrics are shown nowhere
	Tracer     trace.TracerProvider  // nil: OpenTelemetry's global one
	Health     *service.Health       // follows the connection to NATS and every queue; nil: nobody asks
}

// errStarting is the state of a queue before a service takes from it.
var errStarting = errors.New("starting")

// System is the running whole, as the body of Run sees it.
type System struct {
	Bus *bus.Bus
	API string // URL of ingest, "http://127.0.0.1:38291"
}

// Run starts everything, calls body, and stops everything when body returns or ctx ends. body's context
// ends when a service fails. What body returns is returned, unless a service failed before.
func Run(ctx context.Context, cfg Config, d Deps, body func(context.Context, *System) error) (err error) {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Health == nil {
		d.Health = &service.Health{}
	}
	for _, queue := range cfg.queues() {
		d.Health.Set(queue, errStarting)
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	s, err := openState(cfg.State)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	srv, err := startNATS(s, cfg.NATS, d.Logger)
	if err != nil {
		return err
	}
	nc, err := connect(s, srv, d.Health, d.Logger) //nolint:contextcheck // a connection outlives its making
	if err != nil {
		srv.Shutdown()
		return err
	}
	defer func() { err = errors.Join(err, stopNATS(nc, srv)) }()

	b, err := newBus(ctx, nc, d)
	if err != nil {
		return err
	}
	if err := load(ctx, b, s, cfg, d.Logger); err != nil {
		return err
	}
	store, closeStore, err := factstore.Open(b, cfg.Redis, d.Logger, d.Registerer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	eng, err := engine.New(engine.Config{Dir: s.path(engineFolder), TempDir: s.path(workFolder), Version: cfg.Version, Logger: d.Logger, Now: d.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, eng.Close()) }()
	tasks, api, err := services(cfg, d, b, store, eng) //nolint:contextcheck // builds; nothing runs yet
	if err != nil {
		return err
	}
	endpoint := Endpoint{API: "http://" + api}
	if cfg.NATS != "" {
		endpoint.NATS = "nats://" + srv.Addr().String()
		if err := s.announce(endpoint); err != nil {
			return err
		}
	}
	return run(ctx, d.Logger, tasks, func(ctx context.Context) error {
		return body(ctx, &System{Bus: b, API: endpoint.API})
	})
}

// run runs body beside the services and tells its error from theirs.
func run(ctx context.Context, log *slog.Logger, tasks []service.Task, body func(context.Context) error) error {
	var answer error
	finished := false // by itself, not because a service failed
	err := service.Run(ctx, log, drain, append(tasks, service.Task{Name: "command", Run: func(ctx context.Context) error {
		answer = body(ctx)
		finished = ctx.Err() == nil
		return nil
	}})...)
	if err != nil && !finished {
		return err
	}
	if err != nil {
		log.WarnContext(ctx, "stop failed", slog.Any("error", err))
	}
	return answer
}

func newBus(ctx context.Context, nc *nats.Conn, d Deps) (*bus.Bus, error) {
	b, err := bus.New(nc, bus.Config{Drain: drain - handBack}, bus.Options{Logger: d.Logger, Now: d.Now, Registerer: d.Registerer, Tracer: d.Tracer, Health: d.Health})
	if err != nil {
		return nil, err
	}
	return b, b.Provision(ctx)
}

// load puts the configured databases into the object store, from where the scanner takes them as any
// other scanner would.
func load(ctx context.Context, b *bus.Bus, s *state, cfg Config, log *slog.Logger) error {
	for _, of := range []struct {
		kind vulndb.Kind
		path string
	}{{vulndb.Java, cfg.JavaIndex}, {vulndb.Vulnerabilities, cfg.Database}} {
		if of.path == "" {
			continue
		}
		p, err := LoadDatabase(ctx, b, of.kind, of.path, s.path(workFolder))
		if err != nil {
			return &DatabaseError{of.kind, err}
		}
		log.InfoContext(ctx, "database loaded", slog.String("kind", string(of.kind)), slog.String("digest", p.Digest))
	}
	return nil
}

// services builds one of each. api is where ingest listens.
func services(cfg Config, d Deps, b *bus.Bus, store facts.Store, eng *engine.Engine) (tasks []service.Task, api string, err error) {
	registries, err := registry.New(cfg.Registries, registry.Options{Now: d.Now, Registerer: d.Registerer})
	if err != nil {
		return nil, "", err
	}
	plan, err := layercache.New(
		layercache.Config{Platforms: cfg.Platforms, GiveUp: cfg.GiveUp, JSONMirror: cfg.JSONMirror},
		layercache.Deps{Bus: b, Registry: registries, Facts: store, Logger: d.Logger, Registerer: d.Registerer, Tracer: d.Tracer, Now: d.Now, Version: cfg.Version})
	if err != nil {
		return nil, "", err
	}
	scan, err := scanner.New(
		scanner.Config{LayerSlots: layerSlots, GiveUp: cfg.GiveUp},
		scanner.Deps{
			Bus: b, Registry: registries, Facts: store, Analyzer: eng, Matcher: eng, Databases: eng,
			Engine: eng.Versions(), Logger: d.Logger, Registerer: d.Registerer, Now: d.Now,
		})
	if err != nil {
		return nil, "", err
	}
	audit, err := psaauditor.New(psaauditor.Config{}, psaauditor.Deps{
		Bus: b, Engine: report.Engine{Version: cfg.Version}, Logger: d.Logger, Registerer: d.Registerer, Now: d.Now,
	})
	if err != nil {
		return nil, "", err
	}
	var alerts *alertrouter.Service
	if cfg.Alerts != "" {
		if alerts, err = alertrouter.New(cfg.alerts(), alertrouter.Deps{Bus: b, Logger: d.Logger, Registerer: d.Registerer, Tracer: d.Tracer, Now: d.Now}); err != nil {
			return nil, "", err
		}
	}
	// Last: it listens from here on.
	in, err := ingest.New(
		cfg.ingest(),
		ingest.Deps{Bus: b, Logger: d.Logger, Registerer: d.Registerer, Tracer: d.Tracer, Now: d.Now})
	if err != nil {
		return nil, "", err
	}
	tasks = []service.Task{
		{Name: "ingest", Run: in.Run},
		{Name: "layercache", Run: plan.Run},
		{Name: "scanner", Run: scan.Run},
		{Name: "psaauditor", Run: audit.Run},
	}
	if alerts != nil {
		tasks = append(tasks, service.Task{Name: "alertrouter", Run: alerts.Run})
	}
	return tasks, reachable(in.Addr()), nil
}

// reachable is an address that this machine can call: one that listens everywhere is called on loopback.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}
