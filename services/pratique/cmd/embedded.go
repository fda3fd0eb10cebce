package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/pkg/service"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/services/pratique/allinone"
	"github.com/pratique-sec/pratique/services/pratique/client"
)

// embeddedPoll is how often our own process is asked.
const embeddedPoll = 50 * time.Millisecond

// embedded scans through a pipeline in this process, which is asked as any server is.
func (c *scanCmd) embedded(ctx context.Context, r *runner, req request) (err error) {
	state := c.State
	if state == "" {
		if state, err = os.MkdirTemp("", "pratique-scan-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	}
	// Naming a host on the command line is configuring it, and no other.
	hosts := map[string]registry.Host{}
	for _, ref := range req.refs {
		hosts[ref.Host] = registry.Host{Plain: c.Insecure, Insecure: c.Insecure}
	}
	tracer, err := service.NewTracer(ctx, service.TraceConfig{Service: "pratique", Version: r.Version})
	if err != nil {
		return err
	}
	defer tracer.Shutdown(context.WithoutCancel(ctx)) //nolint:errcheck // exports nothing
	cfg := allinone.Config{
		State:      state,
		Registries: registry.Config{Hosts: hosts, DockerConfig: dockerConfig(r.Getenv)},
		Platforms:  req.platforms,
		Database:   c.DB, JavaIndex: c.JavaDB,
		GiveUp: c.RetryFor, Version: r.Version,
	}
	deps := allinone.Deps{Logger: r.log, Now: r.Now, Tracer: tracer}
	return setupError(allinone.Run(ctx, cfg, deps, func(ctx context.Context, s *allinone.System) error {
		if err := hasDatabase(ctx, s.Bus, c.State); err != nil {
			return err
		}
		api, err := client.New(client.Config{URL: s.API, UserAgent: "pratique/" + r.Version, Poll: embeddedPoll})
		if err != nil {
			return err
		}
		defer api.Close()
		return c.scan(ctx, r, api, req)
	}))
}

// hasDatabase keeps a scan from waiting for a database that nobody will load.
func hasDatabase(ctx context.Context, b *bus.Bus, state string) error {
	_, err := b.Pointer(ctx, vulndb.Vulnerabilities)
	if errors.Is(err, bus.ErrNotFound) {
		return usagef("--db: the state folder %s holds no vulnerability database yet; name one, it is kept there", state)
	}
	if err != nil {
		return fmt.Errorf("look for a database: %w", err)
	}
	return nil
}
