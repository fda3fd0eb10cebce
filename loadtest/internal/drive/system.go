package drive

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/services/pratique/allinone"
)

// System is a running Pratique that is driven.
type System struct {
	Door     *Door
	Outcomes *Outcomes
	Bus      *bus.Bus
}

// Embedded says what to run in this process.
type Embedded struct {
	Dir      string   // for its state; emptied by whoever made it
	Hosts    []string // registries on this machine
	Database string   // folder in the layout of a Trivy cache
	Redis    string   // "127.0.0.1:6379"; "": none
	Logger   *slog.Logger
}

// Run starts all services in this process, calls body, and stops them.
func (e Embedded) Run(ctx context.Context, body func(context.Context, *System) error) error {
	cfg := allinone.Config{
		State: filepath.Join(e.Dir, "state"), Database: e.Database, Version: "loadtest",
		Registries: registry.Config{Hosts: map[string]registry.Host{}},
	}
	for _, h := range e.Hosts {
		cfg.Registries.Hosts[h] = registry.Host{Plain: true}
	}
	if e.Redis != "" {
		cfg.Redis = redisfacts.Config{URL: "redis://" + e.Redis}
	}
	return allinone.Run(ctx, cfg, allinone.Deps{Logger: e.Logger}, func(ctx context.Context, s *allinone.System) error {
		return Attach(ctx, s.Bus, NewDoor(s.API, ""), body)
	})
}

// Attach drives a system that runs already: it follows its scans while body runs.
func Attach(ctx context.Context, b *bus.Bus, d *Door, body func(context.Context, *System) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer d.Close()
	outcomes, ended, err := Follow(ctx, b)
	if err != nil {
		return err
	}
	err = body(ctx, &System{Door: d, Outcomes: outcomes, Bus: b})
	stop()
	return errors.Join(err, <-ended)
}

// Crawled tells of an image as a crawl that found it would: by an event of its own, past ingest, whose
// doors are for what happens now.
func (s *System) Crawled(ctx context.Context, r image.Reference) error {
	_, err := s.Bus.PublishEvent(ctx, event.Event{
		ID: rand.Text(), Kind: event.KindImage, Source: "loadtest", Action: event.Push, Cause: event.CauseCrawl,
		Reference: r, Received: time.Now().UTC(),
	})
	return err
}
