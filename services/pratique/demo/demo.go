// Package demo shows the pipeline at work on real images, without anything from outside: a registry in
// this process that notifies like CNCF Distribution, images made from kept package metadata, and the
// whole of Pratique on an embedded NATS. Its parts serve the end-to-end tests as well.
package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/pkg/service"
	"github.com/pratique-sec/pratique/services/pratique/allinone"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
	"github.com/pratique-sec/pratique/services/pratique/render"
)

// decided bounds how long the images of one day may take, on a slow and busy machine.
const decided = 3 * time.Minute

// headerTimeout bounds how long a client of the registry may take to say what it wants.
const headerTimeout = 5 * time.Second

// Config of a demo.
type Config struct {
	State    string         // folder for the state
	Keep     bool           // go on until interrupted when all is shown
	Out      render.Printer // results
	Progress render.Printer // what is going on
	Logger   *slog.Logger
	Now      func() time.Time
	Version  string
	Program  string // how the user calls it, for the commands that are shown to be copied
}

// Run shows the demo.
func Run(ctx context.Context, cfg Config) error {
	begin := cfg.Now()
	db := filepath.Join(cfg.State, "demo-db")
	if err := BuildDatabase(ctx, db, begin); err != nil {
		return err
	}
	// The registry's address is known before anything runs: hosts are configured by name.
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("demo registry: %w", err)
	}
	defer listener.Close()
	host := listener.Addr().String()
	tracer, err := service.NewTracer(ctx, service.TraceConfig{Service: "pratique", Version: cfg.Version})
	if err != nil {
		return err
	}
	defer tracer.Shutdown(context.WithoutCancel(ctx)) //nolint:errcheck // exports nothing
	return allinone.Run(ctx, allinone.Config{
		State:      cfg.State,
		Registries: registry.Config{Hosts: map[string]registry.Host{host: {Plain: true}}},
		Platforms:  []image.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}},
		NATS:       "127.0.0.1:0",
		Database:   db,
		Version:    cfg.Version,
	}, allinone.Deps{Logger: cfg.Logger, Now: cfg.Now, Tracer: tracer}, func(ctx context.Context, s *allinone.System) error {
		d := &demo{Config: cfg, system: s, host: host, begin: begin, news: make(chan any, 1000)}
		return d.run(ctx, listener)
	})
}

// demo is one showing.
type demo struct {
	Config
	system *allinone.System
	host   string
	begin  time.Time
	news   chan any // finding.Scan and finding.Delta, as they are stored
}

func (d *demo) run(ctx context.Context, listener net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		r := NewRegistry(RegistryConfig{Notify: d.system.API + "/v1/events/distribution", Logger: d.Logger, Now: d.Now})
		defer r.Close()
		return serve(ctx, listener, r)
	})
	d.subscribe(ctx, g)
	g.Go(func() error {
		defer stop()
		return d.show(ctx)
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil // interrupted: nothing went wrong
	}
	return err
}

// serve serves the registry until ctx ends, and then at once no more: it holds nothing worth a drain.
func serve(ctx context.Context, listener net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("demo registry: %w", err)
	}
	return nil
}

func (d *demo) show(ctx context.Context) error {
	d.say("NATS with JetStream and an OCI registry (%s) run in this process", d.host)
	if err := d.firstDay(ctx); err != nil {
		return err
	}
	if err := d.secondDay(ctx); err != nil {
		return err
	}
	if err := d.farewell(); err != nil {
		return err
	}
	if d.Keep {
		<-ctx.Done()
	}
	return nil
}

// firstDay pushes everything at once and shows each image's findings as they come.
func (d *demo) firstDay(ctx context.Context) error {
	images, err := demodata.Images()
	if err != nil {
		return err
	}
	w, err := expect(images)
	if err != nil {
		return err
	}
	d.say("pushing %d tags, several at a time; the registry notifies ingest of each", len(images))
	if err := d.push(ctx, images); err != nil {
		return err
	}
	if err := d.follow(ctx, w); err != nil {
		return err
	}
	counts, distinct, err := d.layers(ctx, w)
	if err != nil {
		return err
	}
	if err := d.Out.Linef("%s", d.Out.Bold("Each layer once")); err != nil {
		return err
	}
	return d.Out.Linef("  %s\n  %d distinct layers are in these images\n", d.Out.Layers(counts), distinct)
}

// secondDay pushes a rebuild and shows what it resolved.
func (d *demo) secondDay(ctx context.Context) error {
	images, err := demodata.Rebuilt()
	if err != nil {
		return err
	}
	w, err := expect(images)
	if err != nil {
		return err
	}
	d.say("pushing %s again, rebuilt on an updated base with updated dependencies", images[0].Name())
	if err := d.push(ctx, images); err != nil {
		return err
	}
	return d.followRebuild(ctx, w)
}

func (d *demo) push(ctx context.Context, images []demodata.Image) error {
	return Push(ctx, d.host, images, func(i demodata.Image) {
		d.say("pushed %s", i.Name())
	})
}

func (d *demo) farewell() error {
	next := []string{
		"Try next:",
		"  " + d.Program + " scan --db DIR|TAR IMAGE",
		"                          scan an image of yours (a Trivy DB is what DIR|TAR is)",
		"  " + d.Program + " up --registry HOST --db DIR|TAR",
		"                          run all of it for a registry, whose notifications go to /v1/events/distribution",
		"  make demo KEEP=1        leave this running and look around",
	}
	if d.Keep {
		next = []string{
			"Still running; look around from another terminal (stop with Ctrl-C):",
			"  " + d.Program + " findings list --state " + d.State,
			"  " + d.Program + " findings watch --all --state " + d.State,
			"  " + d.Program + " explain image --state " + d.State + " " + d.host + "/shop/storefront:1.0",
			"  " + d.Program + " status --state " + d.State,
			"  " + d.Program + " scan --server " + d.system.API + " " + d.host + "/edge/api:1.0",
		}
	}
	for _, line := range next {
		if err := d.Out.Linef("%s", line); err != nil {
			return err
		}
	}
	return nil
}

// say tells what is going on.
func (d *demo) say(format string, args ...any) {
	elapsed := fmt.Sprintf("%5.1fs", d.Now().Sub(d.begin).Seconds())
	_ = d.Progress.Linef("%s  %s", d.Progress.Faint(elapsed), fmt.Sprintf(format, args...)) // progress is not worth failing for
}
