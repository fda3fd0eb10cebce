// Package ingest takes in what happens in registries and what people ask for, and stores it as events.
// It writes EVENTS and nothing else; who sends what is source's, who may and how is door's.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/service"
	"github.com/pratique-sec/pratique/services/ingest/door"
)

// Config of the service. The zero value listens on a free port of 127.0.0.1 and asks for no token.
type Config struct {
	Listen     string   // "host:port"; "" is 127.0.0.1:0
	TokenFiles []string // files with one bearer token a line; none: loopback only
	// AllowAnonymous serves everybody who can reach Listen although there are no tokens.
	AllowAnonymous bool
	TLS            service.TLSFiles
	Drain          time.Duration // how long running requests may take to end; 0 is 10 s
}

const (
	defaultListen = "127.0.0.1:0"
	defaultDrain  = 10 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = defaultListen
	}
	if c.Drain == 0 {
		c.Drain = defaultDrain
	}
	return c
}

// Validate names every field that is wrong.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen %q: want host:port: %w", c.Listen, err))
	} else if len(c.TokenFiles) == 0 && !c.AllowAnonymous && !door.Loopback(c.Listen) {
		errs = append(errs, fmt.Errorf("listen %q: others can reach it and there are no token files; set them, listen on 127.0.0.1, or allow anonymous", c.Listen))
	}
	if err := c.TLS.Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.Drain < 0 {
		errs = append(errs, fmt.Errorf("drain %v: must not be negative", c.Drain))
	}
	return errors.Join(errs...)
}

// Deps are what the service works with. Registerer, Tracer and Now may be nil.
type Deps struct {
	Bus        door.Bus
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Tracer     trace.TracerProvider
	Now        func() time.Time
}

// Service is ingest. It listens from New on, and serves while Run runs.
type Service struct {
	cfg      Config
	log      *slog.Logger
	listener net.Listener
	door     *door.Door
}

// New checks the configuration, reads the token files and listens.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	cfg = cfg.withDefaults()
	tokens, err := door.ReadTokens(cfg.TokenFiles)
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	d, err := door.New(door.Config{Tokens: tokens, LocalOnly: tokens.None() && !cfg.AllowAnonymous}, door.Deps(deps))
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", cfg.Listen) // ends at once: nothing to cancel
	if err != nil {
		return nil, fmt.Errorf("ingest: listen: %w", err)
	}
	if tokens.None() && cfg.AllowAnonymous {
		deps.Logger.Warn("ingest asks nobody for a token: whoever reaches it can have images scanned", slog.String("address", l.Addr().String()))
	}
	return &Service{cfg: cfg, log: deps.Logger, listener: l, door: d}, nil
}

// Addr is where it listens, "127.0.0.1:38291".
func (s *Service) Addr() string { return s.listener.Addr().String() }

// Handler is what it serves, for whoever has a server already.
func (s *Service) Handler() http.Handler { return s.door }

// Run serves until ctx ends, and then lets running requests end. It can be called once.
func (s *Service) Run(ctx context.Context) error {
	s.log.InfoContext(ctx, "ingest listens", slog.String("address", s.Addr()))
	return service.ServeHTTP(ctx, s.listener, s.door, s.cfg.TLS, s.cfg.Drain, s.log)
}

// Close gives up the listener of a service that will not run.
func (s *Service) Close() error { return s.listener.Close() }
