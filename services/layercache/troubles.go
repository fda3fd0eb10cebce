package layercache

import (
	"context"
	"fmt"
	"time"
)

// watchBus tells of the bus's own troubles on SYSTEM until ctx ends. A notice of the same trouble has the
// same id, and is stored once a day.
func (s *Service) watchBus(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.BusCheck)
	defer ticker.Stop()
	for {
		if err := s.tellTroubles(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "check of streams and consumers failed, will retry", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) tellTroubles(ctx context.Context) error {
	troubles, err := s.bus.Troubles(ctx)
	if err != nil {
		return fmt.Errorf("look at the bus: %w", err)
	}
	for _, n := range troubles {
		if err := s.bus.PublishSystem(ctx, n); err != nil {
			return fmt.Errorf("tell of %s: %w", n.Subject, err)
		}
		s.log.WarnContext(ctx, "trouble of the bus", "kind", n.Kind, "subject", n.Subject, "message", n.Message)
	}
	return nil
}
