package scanner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/bus"
)

// abandoned is after how many intervals without a word an announcement is nobody's any more.
const abandoned = 3

func (s *Service) announcement() string { return "analysis." + s.cfg.Pool }

// announce tells the planners which analysis layers of this pool get, when that becomes true.
func (s *Service) announce(ctx context.Context) error {
	id := s.analyzer.ID()
	there, err := s.bus.Setting(ctx, s.announcement())
	if err == nil && there == id {
		return nil
	}
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("read announced analysis: %w", err)
	}
	if err := s.bus.PutSetting(ctx, s.announcement(), id); err != nil {
		return fmt.Errorf("announce analysis: %w", err)
	}
	s.log.InfoContext(ctx, "analysis announced", slog.String("pool", s.cfg.Pool), slog.String("analysis", id))
	return nil
}

// keepAnnounced repeats what is announced while it is what this scanner does, and takes the place of an
// announcement that nobody repeats any more: scanners of an older version that came back for a moment
// must not leave the pool with an analysis that nobody does. Of several scanners one speaks, whoever is
// first.
func (s *Service) keepAnnounced(ctx context.Context) error {
	said := make(chan heard)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.bus.WatchSetting(ctx, s.announcement(), func(id string) {
			select {
			case said <- heard{id, time.Now()}:
			case <-ctx.Done():
			}
		})
	})
	g.Go(func() error { return s.repeatAnnouncement(ctx, said) })
	return g.Wait()
}

// heard is what was announced, and when.
type heard struct {
	id string
	at time.Time
}

func (s *Service) repeatAnnouncement(ctx context.Context, said <-chan heard) error {
	ticker := time.NewTicker(s.cfg.AnnounceEvery)
	defer ticker.Stop()
	last := heard{at: time.Now()}
	for {
		select {
		case last = <-said:
			continue
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		id, patience := s.analyzer.ID(), s.cfg.AnnounceEvery
		if last.id != id {
			patience *= abandoned
		}
		if time.Since(last.at) < patience*9/10 { // a tick that is early is no reason to wait for another
			continue
		}
		if last.id != id {
			s.log.WarnContext(ctx, "announced analysis is nobody's any more, announce ours", slog.String("pool", s.cfg.Pool), slog.String("analysis", id))
		}
		if err := s.bus.PutSetting(ctx, s.announcement(), id); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "announce analysis failed, will retry", slog.Any("error", err))
		}
	}
}
