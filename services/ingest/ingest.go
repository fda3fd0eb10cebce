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
	"reflect"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/service"
	"github.com/pratique-sec/pratique/services/ingest/door"
)

// Config of the service. The zero value listens on a free port of 127.0.0.1 and asks for no token.
type Config struct {
	Listen string // "host:port"; "" is 127.0.0.1:0
	// Tokens are who may send and read what; TokenFiles hold one secret a line, each of which opens
	// everything. Neither: loopback only.
	Tokens     []door.Token
	TokenFiles []string
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
		errs = append(errs, fmt.Errorf("listen: %q: want host:port: %w", c.Listen, err))
	} else if !c.asksForTokens() && !c.AllowAnonymous && !door.Loopback(c.Listen) {
		errs = append(errs, fmt.Errorf("listen: others can reach %q and there are no tokens; set tokens, listen on 127.0.0.1, or set allowAnonymous", c.Listen))
	}
	if err := door.ValidateTokens(c.Tokens); err != nil {
		errs = append(errs, err)
	}
	for i, path := range c.TokenFiles {
		if path == "" {
			errs = append(errs, fmt.Errorf("tokenFiles[%d]: empty; name a file", i))
		}
	}
	if c.asksForTokens() && c.AllowAnonymous {
		errs = append(errs, errors.New("allowAnonymous: everybody is asked for a token when there are some; take this or the tokens away"))
	}
	if err := c.TLS.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("tls.%w", err))
	}
	if c.Drain < 0 {
		errs = append(errs, fmt.Errorf("drain: %v: must not be negative", c.Drain))
	}
	return errors.Join(errs...)
}

func (c Config) asksForTokens() bool { return len(c.Tokens)+len(c.TokenFiles) > 0 }

// door opens the token files.
func (c Config) door(log *slog.Logger, now func() time.Time) (door.Config, error) {
	tokens, err := door.OpenTokens(c.Tokens, c.TokenFiles, log, now)
	return door.Config{Tokens: tokens, LocalOnly: !c.asksForTokens() && !c.AllowAnonymous}, err
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
	now      func() time.Time
	listener net.Listener
	door     *door.Door
}

// New checks the configuration, reads the token files and listens.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	cfg = cfg.withDefaults()
	asked, err := cfg.door(deps.Logger, deps.Now)
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	if cfg.TLS.Cert != "" {
		if _, err := cfg.TLS.Config(deps.Logger); err != nil { // before anybody relies on it
			return nil, fmt.Errorf("ingest: tls.%w", err)
		}
	}
	d, err := door.New(asked, door.Deps(deps))
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", cfg.Listen) // ends at once: nothing to cancel
	if err != nil {
		return nil, fmt.Errorf("ingest: listen: %w", err)
	}
	if cfg.AllowAnonymous {
		deps.Logger.Warn("ingest asks nobody for a token: whoever reaches it can have images scanned", slog.String("address", l.Addr().String()))
	}
	return &Service{cfg: cfg, log: deps.Logger, now: deps.Now, listener: l, door: d}, nil
}

// Reload takes over other tokens, and reads those again whose files may have changed. Everything else
// needs a restart: an error names it, and nothing is changed.
func (s *Service) Reload(next Config) error {
	if err := next.Validate(); err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	next = next.withDefaults()
	fixed, was := next, s.cfg
	fixed.Tokens, fixed.TokenFiles, was.Tokens, was.TokenFiles = nil, nil, nil, nil
	if !reflect.DeepEqual(fixed, was) {
		return errors.New("ingest: only tokens and tokenFiles can change while it runs; restart for the rest")
	}
	asked, err := next.door(s.log, s.now)
	if err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	s.door.Reload(asked)
	return nil
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
