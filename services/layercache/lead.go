package layercache

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// role is the name of what one planner does for all of them.
const role = "layercache"

// sweepEvery is how often the leader looks at registries that have failed.
const sweepEvery = 5 * time.Second

// lead does what one planner is enough for, until ctx ends: it re-matches, watches the bus, tells of
// registries, and measures the load. Two that do at once do the same things twice, which changes nothing.
func (s *Service) lead(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.rematch(ctx) })
	g.Go(func() error { return s.watchBus(ctx) })
	g.Go(func() error { return s.sweepRegistries(ctx) })
	g.Go(func() error { return s.measureLoad(ctx) })
	return g.Wait()
}

// sweepRegistries tells of registries that are well again.
func (s *Service) sweepRegistries(ctx context.Context) error {
	ticker := time.NewTicker(min(sweepEvery, s.cfg.Breaker.WithDefaults().Settle/2))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if err := s.gate.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "look at paused registries failed, will retry", "error", fmt.Errorf("sweep: %w", err))
		}
	}
}
