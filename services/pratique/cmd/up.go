package cmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/pkg/service"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/services/pratique/allinone"
)

type upCmd struct {
	State string `help:"Folder for all state." placeholder:"DIR" default:"${state}"`

	Registry         []string `help:"A registry that may be asked, by name or pattern (repeatable)." placeholder:"HOST"`
	InsecureRegistry []string `help:"The same, over plain HTTP and with any certificate (repeatable)." placeholder:"HOST"`
	Platform         []string `help:"Platforms of an index to scan (repeatable)." placeholder:"OS/ARCH" default:"linux/amd64"`

	DB                string `name:"db" help:"Vulnerability database to load at the start ('pratique db load' loads one later)." placeholder:"DIR|TAR"`
	JavaDB            string `name:"java-db" help:"Java index to load at the start." placeholder:"DIR|TAR"`
	Redis             string `help:"Redis in front of the layer facts, as in redis://host:6379." placeholder:"URL"`
	RedisPasswordFile string `help:"File with the password of --redis." placeholder:"FILE"`

	Listen     string   `help:"Address of the HTTP API and of notifications (ingest)." default:"127.0.0.1:8420"`
	TokenFile  []string `help:"File with the tokens that open the API, one a line (repeatable); needed beyond this machine." placeholder:"FILE"`
	Alerts     string   `help:"Who is alerted of what: a configuration in Alertmanager's format (docs/alerts.md)." placeholder:"FILE"`
	Admin      string   `help:"Address of health and metrics." default:"127.0.0.1:8421"`
	NATSListen string   `name:"nats-listen" help:"Loopback address on which the other commands reach NATS." default:"127.0.0.1:0"`
	JSONMirror bool     `name:"json-mirror" help:"Publish findings as JSON on core NATS, too, for 'nats sub'."`
	Otlp       string   `help:"Where traces go (OTLP over HTTP), as in http://collector:4318." placeholder:"URL"`
}

// adminDrain is how long a scrape may take to end.
const adminDrain = 5 * time.Second

func (c *upCmd) Run(ctx context.Context, r *runner) error {
	cfg, err := c.config(r)
	if err != nil {
		return err
	}
	admin, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Admin)
	if err != nil {
		return usagef("--admin: %w", err)
	}
	defer admin.Close()
	tracer, err := service.NewTracer(ctx, service.TraceConfig{Service: "pratique", Version: r.Version, Endpoint: c.Otlp})
	if err != nil {
		return usagef("--otlp: %w", err)
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminDrain)
		defer cancel()
		if err := tracer.Shutdown(ending); err != nil {
			r.log.WarnContext(ctx, "send last traces failed", slog.Any("error", err))
		}
	}()
	metrics, health := service.NewRegistry(), &service.Health{}
	deps := allinone.Deps{Logger: r.log, Now: r.Now, Registerer: metrics, Tracer: tracer, Health: health}
	g, ctx := errgroup.WithContext(ctx)
	// From before the start, which a large database makes long, to the end of the drain.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	health.Set("start", errStarting)
	g.Go(func() error {
		return service.ServeHTTP(serving, admin, service.Admin(health, metrics), service.TLSFiles{}, adminDrain, r.log)
	})
	g.Go(func() error {
		defer stop()
		return setupError(allinone.Run(ctx, cfg, deps, func(ctx context.Context, s *allinone.System) error {
			health.Set("start", nil)
			if err := r.err().Linef("pratique is up: API %s, notifications %s/v1/events/distribution, health and metrics http://%s, state %s",
				s.API, s.API, admin.Addr(), c.State); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}))
	})
	return g.Wait()
}

// errStarting is what health says before there is anything to be healthy.
var errStarting = errors.New("starting")

func (c *upCmd) config(r *runner) (allinone.Config, error) {
	cfg := allinone.Config{
		State: c.State, API: c.Listen, TokenFiles: c.TokenFile, NATS: c.NATSListen,
		Alerts:   c.Alerts,
		Redis:    redisfacts.Config{URL: c.Redis, PasswordFile: c.RedisPasswordFile},
		Database: c.DB, JavaIndex: c.JavaDB, JSONMirror: c.JSONMirror, Version: r.Version,
		Registries: registry.Config{Hosts: map[string]registry.Host{}, DockerConfig: dockerConfig(r.Getenv)},
	}
	for _, h := range c.Registry {
		cfg.Registries.Hosts[h] = registry.Host{}
	}
	for _, h := range c.InsecureRegistry {
		cfg.Registries.Hosts[h] = registry.Host{Plain: true, Insecure: true}
	}
	if len(cfg.Registries.Hosts) == 0 {
		return cfg, usagef("--registry: no registry may be asked yet; name those whose images are to be scanned")
	}
	if _, err := registry.New(cfg.Registries, registry.Options{}); err != nil {
		return cfg, usagef("--registry: %w", err)
	}
	if err := cfg.Validate(); err != nil {
		return cfg, usagef("%w", err)
	}
	for _, s := range c.Platform {
		p, err := image.ParsePlatform(s)
		if err != nil {
			return cfg, usagef("--platform: %w", err)
		}
		cfg.Platforms = append(cfg.Platforms, p)
	}
	for _, f := range []struct{ flag, path string }{{"--db", c.DB}, {"--java-db", c.JavaDB}} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); err != nil {
			return cfg, usagef("%s: %w", f.flag, err)
		}
	}
	return cfg, nil
}

// setupError tells a mistake in configuration from what failed later.
func setupError(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, allinone.ErrInUse) {
		return usagef("--state: %w", err)
	}
	if _, ok := errors.AsType[*codeError](err); ok {
		return err
	}
	if db, ok := errors.AsType[*allinone.DatabaseError](err); ok {
		flag := "--db"
		if db.Kind == vulndb.Java {
			flag = "--java-db"
		}
		return databaseError(flag, db.Err)
	}
	if reason.Of(err).Kind == reason.Refuse {
		return usagef("%w", err)
	}
	return err
}

// databaseError tells a file that is no database, which is a mistake, from one that could not be loaded.
func databaseError(name string, err error) error {
	if e := reason.Of(err); e.Kind == reason.Refuse {
		return usagef("%s: %w", name, e.Err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// dockerConfig is where docker login leaves credentials; "" when nobody has logged in.
func dockerConfig(getenv func(string) string) string {
	dir := getenv("DOCKER_CONFIG")
	if dir == "" {
		home := getenv("HOME")
		if home == "" {
			return ""
		}
		dir = filepath.Join(home, ".docker")
	}
	file := filepath.Join(dir, "config.json")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}
