package layercache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

// settingRematched holds the sequence of the database that every known image was last queued for. Its
// digest would not do: one that is loaded again after another has to be judged again.
const settingRematched = "rematched"

// How long a re-match waits before it asks again for what was busy, and before it begins again after
// an error. checkEvery is how many images go by between looks at whether it is still needed.
const (
	rematchBusy  = 500 * time.Millisecond
	rematchRetry = 5 * time.Second
	checkEvery   = 500
)

// rematch queues the match of every known image for each new database, in backfill, until ctx ends.
// That all are queued is recorded last: a crash before repeats what was done, and the guard or the
// match's own key make the repetition harmless.
func (s *Service) rematch(ctx context.Context) error {
	latest := make(chan vulndb.Pointer, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.bus.WatchPointer(ctx, vulndb.Vulnerabilities, func(p vulndb.Pointer) {
			select {
			case <-latest: // nobody took it: a newer one has come
			default:
			}
			latest <- p // there is room, since nobody else writes
		})
	})
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case p := <-latest:
				s.rematchUntilDone(ctx, p, latest)
			}
		}
	})
	return g.Wait()
}

// rematchUntilDone repeats a pass until it succeeds, or a newer database makes it pointless.
func (s *Service) rematchUntilDone(ctx context.Context, p vulndb.Pointer, latest <-chan vulndb.Pointer) {
	for {
		err := s.rematchAll(ctx, p)
		if err == nil || ctx.Err() != nil {
			return
		}
		s.log.WarnContext(ctx, "re-match failed, will retry", "database", p.Digest, "error", err)
		if pause(ctx, rematchRetry) != nil || len(latest) > 0 {
			return
		}
	}
}

// errNotNeeded ends a pass half-way.
var errNotNeeded = errors.New("re-match is not needed any more")

// rematchAll queues every image for a database, unless that was done.
func (s *Service) rematchAll(ctx context.Context, p vulndb.Pointer) error {
	var busy []work.MatchJob
	seen := 0
	queue := func(j work.MatchJob) error {
		err := s.bus.PublishMatch(ctx, j)
		switch {
		case errors.Is(err, bus.ErrBusy):
			busy = append(busy, j)
		case err != nil:
			return fmt.Errorf("queue match: %w", err)
		default:
			s.metrics.rematched.Inc()
		}
		return nil
	}
	err := s.rematchNeeded(ctx, p)
	if err == nil {
		err = s.bus.Images(ctx, func(j work.MatchJob) error {
			if seen++; seen%checkEvery == 0 {
				if err := s.rematchNeeded(ctx, p); err != nil {
					return err
				}
			}
			return queue(rematchJob(j, p))
		})
	}
	// Busy means that one was there a moment ago, not that it will be done: asked again until taken.
	for err == nil && len(busy) > 0 {
		if err = pause(ctx, rematchBusy); err != nil {
			break
		}
		if err = s.rematchNeeded(ctx, p); err != nil {
			break
		}
		again := busy
		busy = nil
		for _, j := range again {
			if err = queue(j); err != nil {
				break
			}
		}
	}
	if errors.Is(err, errNotNeeded) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.bus.PutSetting(ctx, settingRematched, sequence(p)); err != nil {
		return fmt.Errorf("record re-match: %w", err)
	}
	s.log.InfoContext(ctx, "re-match queued", "database", p.Digest, "images", seen)
	return nil
}

// rematchNeeded answers errNotNeeded when another planner has done it, or a newer database is current.
func (s *Service) rematchNeeded(ctx context.Context, p vulndb.Pointer) error {
	done, err := s.bus.Setting(ctx, settingRematched)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("read what was re-matched: %w", err)
	}
	current, err := s.bus.Pointer(ctx, vulndb.Vulnerabilities)
	if err != nil {
		return fmt.Errorf("current database: %w", err)
	}
	if done == sequence(p) || current.Sequence != p.Sequence {
		return errNotNeeded
	}
	return nil
}

func sequence(p vulndb.Pointer) string { return strconv.FormatUint(p.Sequence, 10) }

// rematchJob is an image's kept match for another database. Nobody waits for it.
func rematchJob(j work.MatchJob, p vulndb.Pointer) work.MatchJob {
	j.Database = p.Digest
	j.Lane = work.Backfill
	j.Origin.Cause = event.CauseRematch
	j.Origin.Request = ""
	return j
}

// pause waits, and answers the context's error when it ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
