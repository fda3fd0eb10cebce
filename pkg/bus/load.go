package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Load is what the scanners have before them: for each pool and lane the jobs that are queued or begun,
// each as long as its class takes on average. Those handed back with a delay count too. Matches, which
// every scanner takes, count for matchPool.
func (b *Bus) Load(ctx context.Context, matchPool string) ([]work.Load, error) {
	queues, err := b.Backlog(ctx)
	if err != nil {
		return nil, err
	}
	type place struct {
		pool string
		lane work.Lane
	}
	type price struct {
		pool  string
		class work.Class
	}
	var all []work.Load
	at, costs := map[place]int{}, map[price]float64{}
	for _, q := range queues {
		switch q.Kind {
		case kindLayer:
		case kindMatch:
			q.Pool, q.Class = Token(matchPool), work.ClassMatch
		default: // planning is no scanner's
			continue
		}
		p := place{q.Pool, q.Lane}
		i, ok := at[p]
		if !ok {
			i = len(all)
			at[p] = i
			all = append(all, work.Load{Pool: q.Pool, Lane: q.Lane})
		}
		jobs := q.Pending + uint64(max(q.InFlight, 0))
		if jobs == 0 {
			continue
		}
		c := price{q.Pool, q.Class}
		if _, ok := costs[c]; !ok {
			if costs[c], err = b.cost(ctx, c.pool, c.class); err != nil {
				return nil, err
			}
		}
		all[i].Seconds += float64(jobs) * costs[c]
		oldest, err := b.oldest(ctx, q)
		switch {
		case errors.Is(err, ErrNotFound): // done in this moment
		case err != nil:
			return nil, err
		case all[i].Oldest.IsZero() || oldest.Before(all[i].Oldest):
			all[i].Oldest = oldest
		}
	}
	return all, nil
}

// cost is the mean of a class, measured or guessed, in seconds.
func (b *Bus) cost(ctx context.Context, pool string, class work.Class) (float64, error) {
	value, _, err := b.Bucket(bucketSettings).Get(ctx, costKey(pool, class))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	if c, ok := parseCost(value); ok {
		return c.Seconds, nil
	}
	return work.Guess(class).Seconds, nil
}

// oldest is when the oldest job of a queue was stored; ErrNotFound when there is none.
func (b *Bus) oldest(ctx context.Context, q Queue) (time.Time, error) {
	s, err := b.stream(ctx, b.name(streamWork))
	if err != nil {
		return time.Time{}, storeError("open "+streamWork, err)
	}
	// On a work queue what is done is gone: the first that is there is the oldest.
	m, err := s.GetMsg(ctx, q.floor+1, jetstream.WithGetMsgSubject(q.filter))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return time.Time{}, ErrNotFound
	}
	if err != nil {
		return time.Time{}, storeError("read "+streamWork, err)
	}
	return m.Time, nil
}

// AddCost merges what a scanner measured into what its pool's jobs of a class take on average.
func (b *Bus) AddCost(ctx context.Context, pool string, class work.Class, measured work.Cost) error {
	k, key := b.Bucket(bucketSettings), costKey(Token(pool), class)
	for range maxConflicts {
		value, rev, err := k.Get(ctx, key)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		there, _ := parseCost(value) // what is no cost is begun anew
		c := there.Add(measured)
		_, err = k.Update(ctx, key, fmt.Appendf(nil, "%g %d", c.Seconds, c.Samples), rev)
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return reason.Retryf(reason.BusUnavailable, "bus: add cost of %s: %w", class, ErrConflict)
}

// costKey: pool is a token.
func costKey(pool string, class work.Class) string { return Key("cost", pool, string(class)) }

// parseCost reads "<seconds> <samples>".
func parseCost(value []byte) (work.Cost, bool) {
	var c work.Cost
	if n, err := fmt.Sscanf(string(value), "%g %d", &c.Seconds, &c.Samples); n != 2 || err != nil {
		return work.Cost{}, false
	}
	return c, c.Seconds >= 0 && c.Samples > 0 && c.Seconds < maxCost
}

// maxCost is more than any job can take, in seconds, and less than infinity.
const maxCost = 1e7
