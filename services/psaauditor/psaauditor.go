// Package psaauditor judges the manifests that are posted to ingest by the Pod Security Standards, and
// keeps the findings: each workload is an asset, each check that its pods fail a finding of class psa, with
// the same life as any other (package ledger).
//
// A posted set is the truth about the objects in it, and says nothing of others: what is missing from it is
// not gone. The later set wins, by its place in EVENTS, whichever is judged first.
package psaauditor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/ledger"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/psaauditor/verdict"
)

// Config of the service. The zero value is a sound one.
type Config struct {
	// Levels that are judged: baseline, restricted; both when empty. A check of baseline that fails is of
	// high severity, one of restricted of medium.
	Levels []string
	// Version of Kubernetes whose standards are judged by: v1.NN, or latest, which is also "".
	Version string
	// Slots is how many sets are judged at once (1). A hostile one can take some 600 MB.
	Slots int
}

func (c Config) withDefaults() Config {
	if len(c.Levels) == 0 {
		c.Levels = []string{string(verdict.Baseline), string(verdict.Restricted)}
	}
	if c.Version == "" {
		c.Version = "latest"
	}
	if c.Slots == 0 {
		c.Slots = 1
	}
	return c
}

// Validate names every field that is wrong.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	for i, l := range c.Levels {
		if _, err := verdict.ParseLevel(l); err != nil {
			errs = append(errs, fmt.Errorf("levels[%d]: %w", i, err))
		}
	}
	if _, err := verdict.ParseVersion(c.Version); err != nil {
		errs = append(errs, fmt.Errorf("version: %w", err))
	}
	if c.Slots < 0 {
		errs = append(errs, fmt.Errorf("slots: %d: must be positive", c.Slots))
	}
	return errors.Join(errs...)
}

// Bus is what this service takes from the bus and writes to it; *bus.Bus is one.
type Bus interface {
	ConsumeManifests(ctx context.Context, slots int, h func(context.Context, event.Event, bus.Delivery) error) error
	ledger.Bus
}

// Deps are what the service stands on. All but the last two are required.
type Deps struct {
	Bus        Bus
	Engine     report.Engine // who judges
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: metrics are counted and shown nowhere
	Now        func() time.Time      // nil: time.Now
}

// Service is one auditor. Any number of them share the work.
type Service struct {
	cfg     Config
	levels  []verdict.Level
	version verdict.Version
	bus     Bus
	ledger  ledger.Ledger
	engine  report.Engine
	metrics *metrics
	log     *slog.Logger
	now     func() time.Time
}

// New checks the configuration and builds a service. It sends nothing.
func New(cfg Config, d Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("psaauditor: %w", err)
	}
	cfg = cfg.withDefaults()
	m, err := newMetrics(d.Registerer)
	if err != nil {
		return nil, fmt.Errorf("psaauditor: register metrics: %w", err)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	s := &Service{cfg: cfg, bus: d.Bus, engine: d.Engine, metrics: m, log: d.Logger, now: d.Now}
	for _, l := range cfg.Levels {
		s.levels = append(s.levels, verdict.Level(l))
	}
	if s.version, err = verdict.ParseVersion(cfg.Version); err != nil {
		return nil, fmt.Errorf("psaauditor: version: %w", err)
	}
	s.ledger = ledger.Ledger{Bus: d.Bus, Class: finding.ClassPSA, Decided: func(t finding.Transition) {
		m.findings.WithLabelValues(string(t)).Inc()
	}}
	return s, nil
}

// Run works until ctx ends, and then hands back what it has begun. It returns nil at the end of ctx, else
// the error that stopped it.
func (s *Service) Run(ctx context.Context) error {
	if err := s.bus.ConsumeManifests(ctx, s.cfg.Slots, s.audit); err != nil && ctx.Err() == nil {
		return fmt.Errorf("psaauditor: consume manifests: %w", err)
	}
	return nil
}
