// Package scanner is the service that reads layers and judges images: blobs become facts, facts and a
// vulnerability database become a report, and the difference to what was known of an asset becomes its
// findings' transitions.
//
// It is told how to analyse, match and hold databases by its caller (package engine wires the real
// ones), so that it links none of it. Each job is idempotent: whatever process dies at whatever moment,
// the message comes back, and the outcome is the same.
package scanner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Config of the service. The zero value is a sound one.
type Config struct {
	// Pool whose layers to take; work.DefaultPool when empty.
	Pool string
	// LayerSlots is how many layers are fetched at once (1). How many are analysed at once is the
	// analyzer's affair.
	LayerSlots int
	// MatchSlots is how many images are judged at once (2).
	MatchSlots int
	// PoisonAfter is how many attempts may have ended with their process before a job is refused as
	// poison (5).
	PoisonAfter int
	// Breaker says when registries that fail are left alone.
	Breaker breaker.Config
	// GiveUp is how long a job may fail in a way that could pass before it is refused (24 h).
	GiveUp time.Duration
	// ForeignAfter is how long a layer job for scanners of another version is handed back before it is
	// dropped (1 h): planners that still want it publish it again.
	ForeignAfter time.Duration
	// ForeignRetry is how long it is handed back each time (5 s).
	ForeignRetry time.Duration
	// DatabaseWait is how long a match waits for its database, in its slot, before it is handed back
	// (10 s).
	DatabaseWait time.Duration
	// StaleAfter is the age at which a vulnerability database is old (72 h), and AgeCheck how often
	// that is looked at (10 min).
	StaleAfter, AgeCheck time.Duration
	// AnnounceEvery is how often the analysis that layers of the pool get is announced again (1 min). One
	// that nobody repeats for three times as long is replaced.
	AnnounceEvery time.Duration
	// CostEvery is how often it is told how long jobs take here (30 s).
	CostEvery time.Duration
}

func (c Config) withDefaults() Config {
	if c.Pool == "" {
		c.Pool = work.DefaultPool
	}
	if c.LayerSlots == 0 {
		c.LayerSlots = 1
	}
	if c.MatchSlots == 0 {
		c.MatchSlots = 2
	}
	if c.PoisonAfter == 0 {
		c.PoisonAfter = 5
	}
	if c.GiveUp == 0 {
		c.GiveUp = 24 * time.Hour
	}
	if c.ForeignAfter == 0 {
		c.ForeignAfter = time.Hour
	}
	if c.ForeignRetry == 0 {
		c.ForeignRetry = 5 * time.Second
	}
	if c.DatabaseWait == 0 {
		c.DatabaseWait = 10 * time.Second
	}
	if c.StaleAfter == 0 {
		c.StaleAfter = 72 * time.Hour
	}
	if c.AnnounceEvery == 0 {
		c.AnnounceEvery = time.Minute
	}
	if c.CostEvery == 0 {
		c.CostEvery = 30 * time.Second
	}
	if c.AgeCheck == 0 {
		c.AgeCheck = 10 * time.Minute
	}
	return c
}

// Validate names every field that is wrong.
func (c Config) Validate() error {
	var errs []error
	for name, n := range map[string]int{"layerSlots": c.LayerSlots, "matchSlots": c.MatchSlots, "poisonAfter": c.PoisonAfter} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%s: %d; want a positive number, or 0 for the default", name, n))
		}
	}
	for name, d := range map[string]time.Duration{
		"giveUp": c.GiveUp, "foreignAfter": c.ForeignAfter, "databaseWait": c.DatabaseWait, "staleAfter": c.StaleAfter, "ageCheck": c.AgeCheck,
		"costEvery": c.CostEvery, "announceEvery": c.AnnounceEvery, "foreignRetry": c.ForeignRetry,
	} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s: %v; want a positive duration, or 0s for the default", name, d))
		}
	}
	errs = append(errs, c.Breaker.Validate("breaker."))
	return errors.Join(errs...)
}

// Deps are what the service stands on. All but the last two are required.
type Deps struct {
	Bus        Bus
	Registry   Registry
	Facts      Facts
	Analyzer   Analyzer
	Matcher    Matcher
	Databases  Databases
	Engine     report.Engine // versions, for reports that no matcher writes
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: metrics are counted and shown nowhere
	Now        func() time.Time      // nil: time.Now
}

// Service is one scanner. Any number of them share the work.
type Service struct {
	cfg       Config
	bus       Bus
	registry  Registry // guarded by gate
	gate      *breaker.Gate
	facts     Facts
	analyzer  Analyzer
	matcher   Matcher
	databases Databases
	engine    report.Engine
	loaded    *signal
	costs     costs
	metrics   *metrics
	log       *slog.Logger
	now       func() time.Time
}

// New checks the configuration and builds a service. It sends nothing.
func New(cfg Config, d Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("scanner: %w", err)
	}
	cfg = cfg.withDefaults()
	if d.Now == nil {
		d.Now = time.Now
	}
	m, err := newMetrics(d.Registerer, d.Databases, d.Now)
	if err != nil {
		return nil, fmt.Errorf("scanner: register metrics: %w", err)
	}
	gate := breaker.NewGate(cfg.Breaker, d.Bus, d.Now, d.Logger)
	return &Service{
		cfg: cfg, bus: d.Bus, registry: guarded{registry: d.Registry, gate: gate}, gate: gate, facts: d.Facts,
		analyzer: d.Analyzer, matcher: d.Matcher, databases: d.Databases, engine: d.Engine,
		loaded: newSignal(), metrics: m, log: d.Logger, now: d.Now,
	}, nil
}

// Run works until ctx ends. Then it takes nothing more, hands back what only waits, and finishes what it is
// at within the bus's Drain. It returns nil at the end of ctx, else the error that stopped it.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	run := func(what string, fn func() error) {
		g.Go(func() error {
			if err := fn(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("scanner: %s: %w", what, err)
			}
			return nil
		})
	}
	run("follow vulnerability databases", func() error { return s.follow(ctx, vulndb.Vulnerabilities) })
	run("tell costs", func() error { return s.tellCosts(ctx) })
	run("watch registries", func() error { return s.gate.Run(ctx) })
	run("watch the database's age", func() error { return s.watchAge(ctx) })
	run("consume matches", func() error { return s.bus.ConsumeMatches(ctx, s.cfg.MatchSlots, s.judge) })
	run("consume layers", func() error {
		// Facts depend on the Java index: what this scanner does is not known before it has the one
		// that is current.
		if err := s.prepareJava(ctx); err != nil {
			return err
		}
		run("keep the analysis announced", func() error { return s.keepAnnounced(ctx) })
		run("follow Java indexes", func() error { return s.follow(ctx, vulndb.Java) })
		return s.bus.ConsumeLayers(ctx, s.cfg.Pool, s.cfg.LayerSlots, s.analyse)
	})
	return g.Wait()
}
