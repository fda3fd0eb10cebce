// Package program is the life of one service's process: flags, configuration, logs, traces, metrics,
// health, the connection to NATS, reload by SIGHUP and drain by SIGTERM. A main gives it a name, and a
// configuration that knows how to start its service; everything else is the same for all of them.
//
// Exit codes: 0 is fine, 1 that --healthcheck found it unready, 2 a mistake in flags or configuration, 3 that the service failed.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/config"
	"github.com/pratique-sec/pratique/pkg/service"
)

// Exit codes.
const (
	exitOK      = 0
	exitUnready = 1
	exitUsage   = 2
	exitFailed  = 3
)

// Configuration is a main's: a struct that embeds Common, has its service's sections beside it, and starts
// the service from them.
type Configuration interface {
	Shared() *Common
	// Start builds the service on a bus that is there. What it opened is closed by what it returns.
	Start(ctx context.Context, kit Kit) (Service, error)
}

// Kit is what a service is given beside its own configuration.
type Kit struct {
	Bus        *bus.Bus
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Tracer     trace.TracerProvider
	Health     *service.Health
	Version    string
}

// Service is one that was started.
type Service struct {
	Run   func(context.Context) error // works until the context ends, and hands back what it holds
	Close func() error                // after Run; nil: there is nothing to close
	// Reload takes over what changed, all or nothing; nil: nothing can be. It is called on every SIGHUP, the
	// same configuration included: files that it names may have changed.
	Reload func(next Configuration) error
	// Reloadable are the paths that Reload takes over, each with everything below it.
	Reloadable []string
}

// Identity of a binary. Version and commit are stamped by the build.
type Identity struct {
	Name, Help, Version, Commit string
	// Provisions is set of the one that makes streams, buckets and consumers; the others wait until they are
	// there, and need no permission to make any.
	Provisions bool
}

type flags struct {
	Config      string           `help:"Configuration file (YAML)." type:"path" placeholder:"FILE" env:"${variable}"`
	CheckConfig bool             `help:"Report everything that is wrong with the configuration, and exit: 0 when nothing is, else 2."`
	PrintConfig bool             `help:"Print the configuration that would be used, defaults included, and exit. It holds no secret: those stand in files."`
	Healthcheck bool             `help:"Ask the process that runs with this configuration whether it can work, and exit: 0 when it can, else 1. For containers, in which nothing else could ask."`
	Version     kong.VersionFlag `help:"Print version and commit."`
}

// World is what a process has around it.
type World struct {
	Args           []string // without the program's name
	Environ        []string
	Stdout, Stderr io.Writer
	Hangups        <-chan os.Signal // each one reloads; nil: none comes
}

// Main runs a service with this process's arguments and signals, and exits.
func Main(id Identity, defaults func() Configuration) {
	ctx, stop := service.SignalContext(context.Background())
	code := Run(ctx, id, World{os.Args[1:], os.Environ(), os.Stdout, os.Stderr, hangups()}, defaults)
	stop()
	os.Exit(code)
}

// exited is how kong leaves after --help and --version.
type exited int

// Run is Main in a world of its own, until ctx ends. defaults makes a new configuration with its defaults
// in it, at the start and for each reload.
func Run(ctx context.Context, id Identity, w World, defaults func() Configuration) (code int) {
	defer func() {
		if p := recover(); p != nil {
			e, ok := p.(exited)
			if !ok {
				panic(p)
			}
			code = int(e)
		}
	}()
	var f flags
	parser, err := kong.New(&f, kong.Name(id.Name), kong.Description(id.Help), kong.Writers(w.Stdout, w.Stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.Vars{"version": fmt.Sprintf("%s %s (%s)", id.Name, id.Version, id.Commit), "variable": config.FileVariable})
	if err != nil {
		return complain(w.Stderr, id.Name, exitFailed, err)
	}
	if _, err := parser.Parse(w.Args); err != nil {
		return complain(w.Stderr, id.Name, exitUsage, fmt.Errorf("%w; see %s --help", err, id.Name))
	}
	read := func() (Configuration, error) {
		c := defaults()
		return c, config.Load(f.Config, w.Environ, c)
	}
	c, err := read()
	switch {
	case err != nil:
		return complain(w.Stderr, id.Name, exitUsage, err)
	case f.PrintConfig:
		return dump(w, id.Name, c)
	case f.Healthcheck:
		if err := askReady(ctx, c.Shared().Admin.Listen); err != nil {
			return complain(w.Stderr, id.Name, exitUnready, err)
		}
		return exitOK
	case f.CheckConfig:
		fmt.Fprintln(w.Stderr, id.Name+": the configuration is sound")
		return exitOK
	}
	if err := live(ctx, id, w, c, read); err != nil {
		return complain(w.Stderr, id.Name, exitFailed, err)
	}
	return exitOK
}

func complain(w io.Writer, name string, code int, err error) int {
	fmt.Fprintf(w, "%s: %v\n", name, err)
	return code
}

func dump(w World, name string, c Configuration) int {
	text, err := config.Dump(c)
	if err == nil {
		_, err = w.Stdout.Write(text)
	}
	if err != nil {
		return complain(w.Stderr, name, exitFailed, err)
	}
	return exitOK
}

// adminDrain is how long a scrape, and the last traces, may take at the end.
const adminDrain = 5 * time.Second

// live is the process from its first log line to its last.
func live(ctx context.Context, id Identity, w World, c Configuration, read func() (Configuration, error)) (err error) {
	shared := c.Shared()
	level := &slog.LevelVar{}
	level.Set(shared.Log.Level)
	log, err := service.NewLogger(w.Stderr, service.LogConfig{Format: shared.Log.Format, Level: level})
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "starting", slog.String("service", id.Name), slog.String("version", id.Version), slog.String("commit", id.Commit))
	tracer, err := service.NewTracer(ctx, service.TraceConfig{Service: id.Name, Version: id.Version, Endpoint: shared.Trace.Endpoint, Ratio: shared.Trace.Ratio})
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminDrain)
		defer cancel()
		if err := tracer.Shutdown(ending); err != nil {
			log.WarnContext(ctx, "send last traces failed", slog.Any("error", err))
		}
	}()
	// The library's own place for what it can not send is standard error, in lines that are no log's.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.WarnContext(ctx, "send traces failed", slog.Any("error", err)) }))
	kit := Kit{Logger: log, Registerer: nil, Tracer: tracer, Health: &service.Health{}, Version: id.Version}
	metrics := service.NewRegistry()
	kit.Registerer = metrics
	kit.Health.Set(partProcess, errStarting)

	// Operators ask from before the start to the end of the drain.
	admin, err := (&net.ListenConfig{}).Listen(ctx, "tcp", shared.Admin.Listen)
	if err != nil {
		return fmt.Errorf("admin.listen: %w", err)
	}
	asked, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() {
		served <- service.ServeHTTP(asked, admin, service.Admin(kit.Health, metrics), service.TLSFiles{}, adminDrain, log)
	}()
	log.InfoContext(ctx, "health and metrics are served", slog.String("address", admin.Addr().String()))
	defer func() {
		stop()
		err = errors.Join(err, <-served)
	}()
	// Unready first, and only then told to take nothing more: who asks never finds a process ready that has
	// stopped taking work.
	told := ctx
	ctx, tell := context.WithCancel(context.WithoutCancel(told))
	defer tell()
	defer context.AfterFunc(told, func() {
		kit.Health.Set(partProcess, errDraining)
		tell()
	})()

	nc, err := service.ConnectNATS(shared.NATS, id.Name, kit.Health, log) //nolint:contextcheck // a connection outlives its making
	if err != nil {
		return err
	}
	defer nc.Close()
	if kit.Bus, err = openBus(nc, shared, kit); err != nil {
		return err
	}
	if err := provision(ctx, id, kit); err != nil {
		return unlessTold(ctx, err)
	}
	s, err := c.Start(ctx, kit)
	if err != nil {
		return unlessTold(ctx, err)
	}
	if s.Close != nil {
		defer func() { err = errors.Join(err, s.Close()) }()
	}
	kit.Health.Set(partProcess, nil)
	if told.Err() != nil { // meanwhile
		kit.Health.Set(partProcess, errDraining)
	}
	reloads := reloader{service: s, current: c, read: read, level: level, log: log, outcomes: newReloadMetrics(metrics)}
	return service.Run(ctx, log, shared.Drain,
		service.Task{Name: id.Name, Run: s.Run},
		service.Task{Name: "reload", Run: func(ctx context.Context) error { return reloads.run(ctx, w.Hangups) }})
}

// partProcess is the process's own part in Health.
const partProcess = "process"

var (
	errStarting = errors.New("starting")
	errDraining = errors.New("draining")
)

// handBack is the part of the drain in which what did not finish in the rest of it is handed back.
const handBack = 5 * time.Second

func openBus(nc *nats.Conn, c *Common, kit Kit) (*bus.Bus, error) {
	return bus.New(nc, bus.Config{Root: c.Root, Replicas: c.Replicas, MaxBytes: c.MaxBytes, AckWait: c.AckWait, Drain: max(0, c.Drain-handBack)},
		bus.Options{Logger: kit.Logger, Registerer: kit.Registerer, Tracer: kit.Tracer, Health: kit.Health})
}

// provisionRetry is how often a NATS that is not there yet is asked again.
const provisionRetry = time.Second

// provision waits for NATS and the streams: a process that starts before its server is no mistake.
func provision(ctx context.Context, id Identity, kit Kit) error {
	prepare := kit.Bus.Await
	if id.Provisions {
		prepare = kit.Bus.Provision
	}
	for said := ""; ; {
		err := prepare(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if said != err.Error() {
			said = err.Error()
			kit.Logger.WarnContext(ctx, "streams are not there yet", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(provisionRetry):
		}
	}
}

// unlessTold forgives what a start could not do because it was told to stop.
func unlessTold(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}
