// Package alertrouter takes findings, and Pratique's own troubles, to whoever must act: grouped, resolved,
// repeated and muted as an Alertmanager configuration says, by webhook and Slack.
//
// Everything that it knows is in the stream ALERTS, so any number of replicas share the work, and none
// keeps what a restart or another configuration would forget. What is left out of Alertmanager's
// abilities, and what differs, is in docs/alerts.md.
package alertrouter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/services/alertrouter/group"
	"github.com/pratique-sec/pratique/services/alertrouter/outbox"
	"github.com/pratique-sec/pratique/services/alertrouter/receiver"
	"github.com/pratique-sec/pratique/services/alertrouter/route"
)

// Config of the service. Only Config is required.
type Config struct {
	Config      string        // path of a configuration in Alertmanager's format
	ExternalURL string        // what {{ .ExternalURL }} is in templates
	EventSlots  int           // events that are applied at once (16)
	SendSlots   int           // notifications that are sent at once (32)
	Timeout     time.Duration // of one attempt to send (30 s)
	Backoff     time.Duration // after the first failure of a receiver; doubles with each further one (1 s)
	MaxBackoff  time.Duration // the longest of these (5 min)
	GiveUp      time.Duration // how long a notification is tried before it is a dead letter (24 h)
	MaxAlerts   int           // of one notification (500)
	Sweep       time.Duration // how often lost timers are looked for (1 min)
}

// maxBytes is how much text one notification may hold: what fits a message under max_payload, also where
// it does not compress.
const maxBytes = 4 << 20

func (c Config) withDefaults() Config {
	set := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	count := func(v *int, n int) {
		if *v == 0 {
			*v = n
		}
	}
	count(&c.EventSlots, 16)
	count(&c.SendSlots, 32)
	count(&c.MaxAlerts, 500)
	set(&c.Timeout, 30*time.Second)
	set(&c.Backoff, time.Second)
	set(&c.MaxBackoff, 5*time.Minute)
	set(&c.GiveUp, 24*time.Hour)
	set(&c.Sweep, time.Minute)
	return c
}

// mostAlerts bounds MaxAlerts: all of one notification may end at once, in one batch of 1,000 messages.
const mostAlerts = 900

// Validate names every field that is wrong, and everything that is wrong in the file.
func (c Config) Validate() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"timeout", c.Timeout}, {"backoff", c.Backoff}, {"maxBackoff", c.MaxBackoff}, {"giveUp", c.GiveUp}, {"sweep", c.Sweep}} {
		if d.value < 0 {
			fail("%s: %v is negative", d.name, d.value)
		}
	}
	if c.EventSlots < 0 {
		fail("eventSlots: %d is negative", c.EventSlots)
	}
	if c.SendSlots < 0 {
		fail("sendSlots: %d is negative", c.SendSlots)
	}
	if c.MaxAlerts < 0 || c.MaxAlerts > mostAlerts {
		fail("maxAlerts: %d; 1 to %d", c.MaxAlerts, mostAlerts)
	}
	if u, err := url.Parse(c.ExternalURL); err != nil || u.User != nil {
		fail("externalURL: want a URL without a password")
	} else if c.Config == "" {
		fail("config: name a configuration in Alertmanager's format, alertmanager.yml say")
	} else if _, err := c.load(); err != nil {
		errs = append(errs, withPath(err)...)
	}
	return errors.Join(errs...)
}

// withPath puts the path of this field before each of the problems of its file.
func withPath(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error }) // its direct parts
	if !ok {
		return []error{fmt.Errorf("config: %w", err)}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, withPath(e)...)
	}
	return all
}

// current is a configuration file in use.
type current struct {
	table     *route.Table
	receivers *receiver.Set
}

func (c Config) load() (*current, error) {
	d := c.withDefaults()
	table, err := route.Load(c.Config)
	if err != nil {
		return nil, err
	}
	set, err := receiver.New(table, receiver.Options{
		ExternalURL: c.ExternalURL, Timeout: d.Timeout, Backoff: d.Backoff, MaxBackoff: d.MaxBackoff,
	})
	if err != nil {
		return nil, err
	}
	return &current{table, set}, nil
}

// Deps are what the service stands on. Bus and Logger are required.
type Deps struct {
	Bus        Bus
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: metrics are counted and shown nowhere
	Tracer     trace.TracerProvider  // nil: OpenTelemetry's global one
	Now        func() time.Time      // nil: time.Now
}

// Service is one router. Any number of them share the work.
type Service struct {
	cfg     Config
	bus     Bus
	current atomic.Pointer[current]
	outbox  *outbox.Outbox
	metrics *metrics
	tracer  trace.Tracer
	log     *slog.Logger
	now     func() time.Time
}

// New checks the configuration and builds a service. It sends nothing.
func New(cfg Config, d Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("alertrouter: %w", err)
	}
	cfg = cfg.withDefaults()
	m, err := newMetrics(d.Registerer)
	if err != nil {
		return nil, fmt.Errorf("alertrouter: register metrics: %w", err)
	}
	s := &Service{cfg: cfg, bus: d.Bus, metrics: m, tracer: tracer(d.Tracer), log: d.Logger, now: d.Now}
	if s.now == nil {
		s.now = time.Now
	}
	s.outbox = &outbox.Outbox{
		Store: d.Bus, Routing: s.routing, Limits: group.Limits{Alerts: cfg.MaxAlerts, Bytes: maxBytes},
		GiveUp: cfg.GiveUp, Backoff: cfg.Backoff, Now: func() time.Time { return s.now().UTC() }, Log: d.Logger, Repeat: m.repeats.Inc,
	}
	if err := s.Reload(cfg); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Service) routing() (*route.Table, outbox.Sender) {
	c := s.current.Load()
	return c.table, c.receivers
}

// Reload takes over what the file of a configuration says now, and which file it is; the other fields need
// a restart. When the file is wrong the old one stays in use, and the error joins what is wrong. Nothing is
// told again because of it: groups are known by their receivers and labels.
func (s *Service) Reload(cfg Config) error {
	next := s.cfg
	next.Config, next.ExternalURL = cfg.Config, cfg.ExternalURL
	c, err := next.load()
	if err != nil {
		return fmt.Errorf("alertrouter: %w", errors.Join(withPath(err)...))
	}
	for _, w := range c.table.Warnings {
		s.log.Warn("configuration of alerts", slog.String("file", cfg.Config), slog.String("warning", w))
	}
	s.current.Store(c)
	return nil
}

// Run works until ctx ends, and then hands back what it holds. It returns nil at the end of ctx, else the
// error that stopped it.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	run := func(what string, fn func() error) {
		g.Go(func() error {
			if err := fn(); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("alertrouter: %s: %w", what, err)
			}
			return nil
		})
	}
	run("consume findings", func() error { return s.bus.ConsumeDeltas(ctx, s.cfg.EventSlots, s.handleDelta) })
	run("consume notices", func() error { return s.bus.ConsumeNotices(ctx, 1, s.handleNotice) })
	run("consume timers", func() error { return s.bus.ConsumeDue(ctx, s.cfg.EventSlots, s.outbox.Flush) })
	run("consume notifications", func() error { return s.bus.ConsumeNotifications(ctx, s.cfg.SendSlots, s.handleNotification) })
	run("sweep", func() error { return s.sweep(ctx) })
	return g.Wait()
}

// sweep looks for lost timers, and at how much there is to send.
func (s *Service) sweep(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Sweep)
	defer tick.Stop()
	for {
		err := s.outbox.Sweep(ctx)
		if err == nil {
			var n int
			if n, err = s.bus.Notifications(ctx); err == nil {
				s.metrics.depth.Set(float64(n))
			}
		}
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "look at groups failed, will retry", slog.Any("error", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
