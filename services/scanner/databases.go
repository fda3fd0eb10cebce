package scanner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/key"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/vulndb"
)

// objects is the object store that holds databases of every kind, by content digest.
const objects = "vulndb"

// Delays between attempts at a database that could not be loaded.
const (
	loadRetry    = time.Second
	maxLoadRetry = time.Minute
)

// follow puts each database of a kind in use as it becomes current, until ctx ends. One that can not be
// loaded is tried again until another one is current; the one in use stays in use meanwhile.
func (s *Service) follow(ctx context.Context, kind vulndb.Kind) error {
	latest := make(chan vulndb.Pointer, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.bus.WatchPointer(ctx, kind, func(p vulndb.Pointer) {
			select {
			case <-latest: // nobody has begun with it
			default:
			}
			latest <- p
		})
	})
	g.Go(func() error {
		for {
			select {
			case p := <-latest:
				s.useLatest(ctx, p, latest)
			case <-ctx.Done():
				return nil
			}
		}
	})
	return g.Wait()
}

// useLatest returns when p, or what became current after it, is in use, or ctx has ended.
func (s *Service) useLatest(ctx context.Context, p vulndb.Pointer, latest <-chan vulndb.Pointer) {
	for delay := loadRetry; ; delay = min(2*delay, maxLoadRetry) {
		err := s.use(ctx, p)
		if err == nil || ctx.Err() != nil {
			return
		}
		s.log.ErrorContext(ctx, "load database failed, will retry", slog.String("kind", string(p.Kind)),
			slog.String("digest", p.Digest), slog.Duration("delay", delay), slog.Any("error", err))
		select {
		case p = <-latest:
			delay = loadRetry
		case <-time.After(delay):
		case <-ctx.Done():
			return
		}
	}
}

// use puts a database in use and tells whoever depends on it.
func (s *Service) use(ctx context.Context, p vulndb.Pointer) error {
	if there, ok := s.databases.Current(p.Kind); !ok || there.Digest != p.Digest || there.Sequence != p.Sequence {
		start := time.Now()
		err := s.databases.Load(ctx, p, func(ctx context.Context) (io.ReadCloser, error) {
			return s.bus.Object(ctx, objects, p.Digest)
		})
		if err != nil {
			return fmt.Errorf("load %s %s: %w", p.Kind, p.Digest, err)
		}
		s.log.InfoContext(ctx, "database in use", slog.String("kind", string(p.Kind)), slog.String("digest", p.Digest),
			slog.Time("updated", p.UpdatedAt), slog.Duration("took", time.Since(start)))
		s.loaded.give()
	}
	if p.Kind == vulndb.Java {
		return s.announce(ctx)
	}
	return nil
}

// prepareJava returns when this scanner's analysis is decided and announced: with the Java index that
// is current, or with an empty one when none was ever loaded.
func (s *Service) prepareJava(ctx context.Context) error {
	for delay := loadRetry; ; delay = min(2*delay, maxLoadRetry) {
		err := s.tryJava(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		s.log.ErrorContext(ctx, "prepare analysis failed, will retry", slog.Duration("delay", delay), slog.Any("error", err))
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Service) tryJava(ctx context.Context) error {
	p, err := s.bus.Pointer(ctx, vulndb.Java)
	if errors.Is(err, bus.ErrNotFound) {
		return s.announce(ctx)
	}
	if err != nil {
		return fmt.Errorf("which Java index is current: %w", err)
	}
	return s.use(ctx, p)
}

// watchAge tells once when the vulnerability database in use has become old.
func (s *Service) watchAge(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.AgeCheck)
	defer ticker.Stop()
	told := "" // digest
	for {
		loaded := s.loaded.next()
		p, ok := s.databases.Current(vulndb.Vulnerabilities)
		if ok && p.Digest != told && !p.UpdatedAt.IsZero() && s.now().Sub(p.UpdatedAt) > s.cfg.StaleAfter {
			if err := s.bus.PublishSystem(ctx, s.stale(p)); err != nil {
				s.log.WarnContext(ctx, "tell of an old database failed, will retry", slog.Any("error", err))
			} else {
				told = p.Digest
			}
		}
		select {
		case <-loaded:
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) stale(p vulndb.Pointer) system.Notice {
	const day = 24 * time.Hour
	now := s.now().UTC()
	return system.Notice{
		ID:   key.Of("notice.database-stale.v1", p.Digest),
		Kind: system.DatabaseStale, Subject: p.Digest,
		Message: fmt.Sprintf("the vulnerability database is of %s, %d days old: load a newer one with pratique db load DIR|TAR",
			p.UpdatedAt.UTC().Format(time.RFC3339), int(now.Sub(p.UpdatedAt)/day)),
		At: now,
	}
}
