package scanner

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/pratique-sec/pratique/pkg/work"
)

// costs adds up how long jobs took, by class, until it is told.
type costs struct {
	mu  sync.Mutex
	sum map[work.Class]work.Cost
}

func (c *costs) note(class work.Class, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sum == nil {
		c.sum = map[work.Class]work.Cost{}
	}
	c.sum[class] = c.sum[class].Add(work.Cost{Seconds: took.Seconds(), Samples: 1})
}

func (c *costs) take() map[work.Class]work.Cost {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := c.sum
	c.sum = nil
	return sum
}

// tellCosts tells planners, now and then, how long jobs take here: what is queued is measured in that.
func (s *Service) tellCosts(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.CostEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		for class, cost := range s.costs.take() {
			// What is lost is a few samples.
			if err := s.bus.AddCost(ctx, s.cfg.Pool, class, cost); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "tell cost of jobs failed", slog.String("class", string(class)), slog.Any("error", err))
			}
		}
	}
}
