// Package layercache plans images: it turns events into image jobs, resolves what a reference names
// now, gives its track a generation, finds out which layers are not known yet, has them analysed once
// for the whole fleet, and queues the match when all facts are there. A new database makes it queue the
// match of every known image again.
//
// It holds an image's message until its match job is stored or the image is refused, so a dead process
// costs a redelivery, never an image. It reads manifests and configs only; blobs are the scanners'.
package layercache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/track"
	"github.com/pratique-sec/pratique/pkg/work"
	"github.com/pratique-sec/pratique/services/layercache/join"
)

// Config of the service. The zero value is a sound one.
type Config struct {
	// Platforms to take from an index when nobody asked for others; linux/amd64 when empty.
	Platforms []image.Platform
	// Patterns say which tags are families; track.Default() when nil.
	Patterns []string
	// Pool of the scanners that can reach the registries; work.DefaultPool when empty.
	Pool string
	// EventSlots is how many events are turned into jobs at once (16).
	EventSlots int
	// HeldImages is how many images may be planned or waiting at once (500).
	HeldImages int
	// Recheck is how often a held image's missing layers are looked up and queued again (30 s).
	Recheck time.Duration
	// GiveUp is how long a registry may not answer before an image fails as unreachable (24 h).
	GiveUp time.Duration
	// BusCheck is how often streams and consumers are looked at, to tell of full and changed ones (5 min).
	BusCheck time.Duration
	// LoadCheck is how often the leader measures what the scanners have before them (10 s).
	LoadCheck time.Duration
	// Breaker says when registries that fail are left alone.
	Breaker breaker.Config
	// JSONMirror publishes what FINDINGS, SCANS and SYSTEM store as protobuf JSON on core NATS, too, for those
	// who have nothing but `nats sub`.
	JSONMirror bool
}

func (c Config) withDefaults() Config {
	if len(c.Platforms) == 0 {
		c.Platforms = []image.Platform{{OS: "linux", Architecture: "amd64"}}
	}
	if c.Pool == "" {
		c.Pool = work.DefaultPool
	}
	if c.EventSlots == 0 {
		c.EventSlots = 16
	}
	if c.HeldImages == 0 {
		c.HeldImages = 500
	}
	if c.Recheck == 0 {
		c.Recheck = 30 * time.Second
	}
	if c.GiveUp == 0 {
		c.GiveUp = 24 * time.Hour
	}
	if c.LoadCheck == 0 {
		c.LoadCheck = 10 * time.Second
	}
	if c.BusCheck == 0 {
		c.BusCheck = 5 * time.Minute
	}
	return c
}

// Validate names every field that is wrong.
func (c Config) Validate() error {
	var errs []error
	for name, n := range map[string]int{"eventSlots": c.EventSlots, "heldImages": c.HeldImages} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%s: %d; want a positive number, or 0 for the default", name, n))
		}
	}
	for name, d := range map[string]time.Duration{"recheck": c.Recheck, "giveUp": c.GiveUp, "busCheck": c.BusCheck, "loadCheck": c.LoadCheck} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s: %v; want a positive duration, or 0s for the default", name, d))
		}
	}
	if _, err := track.Parse(c.Patterns); err != nil {
		errs = append(errs, fmt.Errorf("patterns: %w", err))
	}
	errs = append(errs, c.Breaker.Validate("breaker."))
	return errors.Join(errs...)
}

// Deps are what the service stands on. Bus, Registry, Facts and Logger are required.
type Deps struct {
	Bus        Bus
	Registry   Registry
	Facts      facts.Store
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: metrics are counted and shown nowhere
	Tracer     trace.TracerProvider  // nil: OpenTelemetry's global one
	Now        func() time.Time      // nil: time.Now
	Version    string                // of Pratique, for the reports on images that were refused
}

// Service is one planner. Any number of them share the work.
type Service struct {
	cfg      Config
	patterns track.Patterns
	bus      Bus
	registry Registry // guarded by gate
	gate     *breaker.Gate
	join     *join.Join
	tracks   tracks
	analysis *analysis
	load     *load
	metrics  *metrics
	tracer   trace.Tracer
	log      *slog.Logger
	now      func() time.Time
	version  string
}

// New checks the configuration and builds a service. It sends nothing.
func New(cfg Config, d Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("layercache: %w", err)
	}
	cfg = cfg.withDefaults()
	patterns := track.Default()
	if cfg.Patterns != nil {
		var err error
		if patterns, err = track.Parse(cfg.Patterns); err != nil {
			return nil, fmt.Errorf("layercache: %w", err)
		}
	}
	m, err := newMetrics(d.Registerer)
	if err != nil {
		return nil, fmt.Errorf("layercache: register metrics: %w", err)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Tracer == nil {
		d.Tracer = otel.GetTracerProvider()
	}
	load, err := newLoad(d.Registerer, staleAfter*cfg.LoadCheck, d.Now)
	if err != nil {
		return nil, fmt.Errorf("layercache: register metrics of the load: %w", err)
	}
	gate := breaker.NewGate(cfg.Breaker, d.Bus, d.Now, d.Logger)
	guard := guarded{registry: d.Registry, gate: gate}
	return &Service{
		cfg:      cfg,
		patterns: patterns,
		bus:      d.Bus,
		registry: guard,
		gate:     gate,
		join: join.New(join.Config{
			Store: d.Facts, Queue: layerQueue{d.Bus}, Blobs: guard,
			Recheck: cfg.Recheck, Now: d.Now, Logger: d.Logger,
		}),
		tracks:   tracks{store: d.Bus, now: d.Now},
		analysis: newAnalysis(),
		load:     load,
		metrics:  m,
		tracer:   d.Tracer.Tracer("github.com/pratique-sec/pratique/services/layercache"),
		log:      d.Logger,
		now:      d.Now,
		version:  d.Version,
	}, nil
}

// Run works until ctx ends. Then it takes nothing more, hands back the images that wait, and finishes
// what it is at within the bus's Drain. It returns nil at the end of ctx, else the error that stopped it.
func (s *Service) Run(ctx context.Context) error {
	// Before any image is planned: a notice that comes first is then never missed.
	stop, err := s.bus.Notices(ctx, s.join.Notice, s.join.Gap)
	if err != nil {
		return fmt.Errorf("layercache: subscribe to notices: %w", err)
	}
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	run := func(what string, fn func() error) {
		g.Go(func() error {
			if err := fn(); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("layercache: %s: %w", what, err)
			}
			return nil
		})
	}
	run("watch analysis", func() error {
		return s.bus.WatchSetting(ctx, "analysis."+s.cfg.Pool, s.analysis.set)
	})
	run("watch registries", func() error { return s.gate.Run(ctx) })
	run("lead", func() error { return s.bus.Lead(ctx, role, s.lead) })
	if s.cfg.JSONMirror {
		run("mirror", func() error { return s.bus.Mirror(ctx) })
	}
	run("consume events", func() error {
		return s.bus.ConsumeEvents(ctx, s.cfg.EventSlots, s.handleEvent)
	})
	run("consume images", func() error {
		return s.bus.ConsumeImages(ctx, s.cfg.HeldImages, s.handleImage)
	})
	return g.Wait()
}

// layerQueue lets the join ask the bus.
type layerQueue struct{ bus Bus }

func (q layerQueue) QueueLayer(ctx context.Context, j work.LayerJob) (bool, error) {
	err := q.bus.PublishLayer(ctx, j)
	if errors.Is(err, bus.ErrBusy) {
		return false, nil
	}
	return err == nil, err
}
