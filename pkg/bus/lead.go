package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"
)

// Lead runs fn whenever this process leads a role, until ctx ends; fn's context ends when it does not any
// more. fn is called again when it returns before, after a while.
//
// The lease is a setting that its holder writes anew three times per Config.Lease. Whoever sees it
// unchanged for that long, by his own clock, takes it with a compare-and-set; a holder that could not
// write it for that long stops by himself. So clocks are never compared, and a leader that is cut off
// may for a moment lead beside its successor: fn must do only what two may do at once.
func (b *Bus) Lead(ctx context.Context, role string, fn func(context.Context) error) error {
	c := candidate{b: b, key: settingKey("leader." + role), name: rand.Text(), log: b.log.With(slog.String("role", role))}
	tick := time.NewTicker(b.cfg.Lease / 3)
	defer tick.Stop()
	for {
		if c.stand(ctx) {
			c.rule(ctx, tick.C, fn)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-b.died:
			return errDead
		case <-tick.C:
		}
	}
}

// candidate is one process's part in an election.
type candidate struct {
	b    *Bus
	key  string
	name string
	log  *slog.Logger

	revision uint64    // of the lease when it was last looked at, or written
	since    time.Time // it has had that revision; by this process's clock
}

// stand tries to become the leader.
func (c *candidate) stand(ctx context.Context) bool {
	settings := c.b.Bucket(bucketSettings)
	_, revision, err := settings.Get(ctx, c.key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false // the bus is away, and says so elsewhere
	}
	if revision != 0 && (revision != c.revision || time.Since(c.since) < c.b.cfg.Lease) {
		if revision != c.revision {
			c.revision, c.since = revision, time.Now()
		}
		return false
	}
	return c.write(ctx, revision)
}

// write makes the lease this process's own, or keeps it.
func (c *candidate) write(ctx context.Context, revision uint64) bool {
	before := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.b.cfg.Lease/3)
	defer cancel()
	next, err := c.b.Bucket(bucketSettings).Update(ctx, c.key, []byte(c.name), revision)
	if err != nil {
		return false
	}
	c.revision, c.since = next, before
	return true
}

// rule runs fn while the lease can be kept, and gives it back at the end of ctx.
func (c *candidate) rule(ctx context.Context, tick <-chan time.Time, fn func(context.Context) error) {
	c.log.InfoContext(ctx, "lead from now on")
	ruling, end := context.WithCancel(ctx)
	defer end()
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		failed = fn(ruling)
	}()
	for {
		select {
		case <-tick:
			// One write may fail; the lease lasts longer than that.
			if c.write(ctx, c.revision) || time.Since(c.since) < c.b.cfg.Lease*2/3 {
				continue
			}
			c.log.WarnContext(ctx, "lead no more: the lease could not be kept")
			end()
			<-done
			c.revision = 0 // look anew
			return
		case <-c.b.died:
			end()
			<-done
			return
		case <-done:
			if ctx.Err() == nil {
				c.log.WarnContext(ctx, "leader's work ended, will begin again", slog.Any("error", failed))
			}
			// Whoever comes next need not wait.
			leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.b.cfg.Lease/3)
			defer cancel()
			if err := c.b.Bucket(bucketSettings).Drop(leaving, c.key, c.revision); err != nil && !c.b.dead.Load() {
				c.log.DebugContext(ctx, "give back lease failed", slog.Any("error", err))
			}
			c.revision = 0
			return
		}
	}
}
