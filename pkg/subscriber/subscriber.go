// Package subscriber reads findings as anybody may: with the credentials that `pratique subscriber add` made,
// over NATS, by the contract of docs/subscribing.md. It takes the snapshot, follows what changes, drops what
// was seen already, and takes the snapshot again where something was missed.
//
//	s, err := subscriber.Connect("nats://nats.example:4222", "team-a.creds", subscriber.Config{})
//	…
//	defer s.Close()
//	err = s.Run(ctx, handler)
package subscriber

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/compact"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// Handler is told what is open, and what changes. Calls come one after the other. A call that returns an
// error is repeated, after a while, before anything else is told; so is one whose process died in it, where the
// handler can tell by the revision that it had done its work.
type Handler interface {
	// Snapshot replaces all that was known of an asset. It comes for each asset at the start, and again
	// for those of which deltas were missed.
	Snapshot(ctx context.Context, s finding.State) error
	// Delta is one step in a finding's life: within a run each (finding id, revision) once, in order, and none
	// that a snapshot has told already.
	Delta(ctx context.Context, d finding.Delta) error
}

// Config of a subscriber. The zero value is a sound one.
type Config struct {
	// Resume begins with what changed since the last run, instead of with everything: for handlers that
	// keep what they were told, and drop revisions that they know.
	Resume bool
	// Retry is the delay before a failed call is repeated; it doubles up to sixteen times as long (1 s).
	Retry time.Duration
	// Logger is told of what is repeated; slog's default when nil.
	Logger *slog.Logger
}

const (
	statePull  = 4  // STATE holds up to 7 MB each
	deltaPull  = 64 // of some KB each
	pullWait   = 30 * time.Second
	maxBackoff = 16
	settleWait = 10 * time.Second
)

// Subscriber is one subscription. It is for one process: two that share one get half of it each.
type Subscriber struct {
	cfg   Config
	nc    *nats.Conn
	js    jetstream.JetStream
	names access.Subscription
	seen  map[string]uint64 // last revision of each finding that was told
	only  []string          // severities of the subscription; none: all
}

// Connect opens a connection with a subscriber's credentials, and keeps it. options (TLS, a name) go last.
func Connect(url, creds string, cfg Config, options ...nats.Option) (*Subscriber, error) {
	content, err := os.ReadFile(creds)
	if err != nil {
		return nil, fmt.Errorf("subscriber: credentials: %w", err)
	}
	names, err := access.SubscriptionOf(content)
	if err != nil {
		return nil, fmt.Errorf("subscriber: %s: %w", creds, err)
	}
	inbox, err := access.InboxOf(content)
	if err != nil {
		return nil, fmt.Errorf("subscriber: %s: %w", creds, err)
	}
	all := []nats.Option{nats.UserCredentials(creds), nats.CustomInboxPrefix(inbox), nats.MaxReconnects(-1), nats.Name("pratique subscriber")}
	nc, err := nats.Connect(url, append(all, options...)...)
	if err != nil {
		return nil, fmt.Errorf("subscriber: connect to %s: %w", url, err)
	}
	js, err := jetstream.NewWithDomain(nc, access.Domain(names.Root))
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("subscriber: %w", err)
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Subscriber{cfg: cfg, nc: nc, js: js, names: names, seen: map[string]uint64{}}, nil
}

// Close ends the connection.
func (s *Subscriber) Close() { s.nc.Close() }

// Run tells h everything until ctx ends, which is no error. It goes on when the server is away; what ends it
// is a subscription that is no more.
func (s *Subscriber) Run(ctx context.Context, h Handler) error {
	state, err := s.open(ctx, access.StreamName(s.names.Root, "STATE"), s.names.State)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	findings, err := s.open(ctx, access.StreamName(s.names.Root, "FINDINGS"), s.names.Findings)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	s.only = strings.Fields(findings.CachedInfo().Config.Metadata["pratique-severities"])
	if !s.cfg.Resume {
		if err := s.rewind(ctx, state); err != nil {
			return unlessEnded(ctx, err)
		}
	}
	r := &run{Subscriber: s, h: h, state: state, findings: findings}
	return unlessEnded(ctx, r.follow(ctx))
}

// unlessEnded forgives what failed because ctx ended.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// open finds a consumer, once the server is there.
func (s *Subscriber) open(ctx context.Context, stream, name string) (jetstream.Consumer, error) {
	var c jetstream.Consumer
	err := s.again(ctx, "open "+stream, func() (err error) {
		c, err = s.js.Consumer(ctx, stream, name)
		return err
	})
	return c, err
}

// rewind has the snapshot come from its beginning.
func (s *Subscriber) rewind(ctx context.Context, state jetstream.Consumer) error {
	info := state.CachedInfo()
	return s.again(ctx, "rewind "+info.Stream, func() error {
		_, err := s.js.ResetConsumerToSequence(ctx, info.Stream, info.Name, 1)
		return err
	})
}

// again repeats what failed, with a growing delay, until ctx ends or the subscription is gone.
func (s *Subscriber) again(ctx context.Context, what string, do func() error) error {
	for delay := s.cfg.Retry; ; delay = min(2*delay, s.cfg.Retry*maxBackoff) {
		err := do()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case gone(err):
			return fmt.Errorf("subscriber: %s: the subscription is no more; ask for new credentials: %w", what, err)
		}
		s.cfg.Logger.WarnContext(ctx, "subscriber failed, will retry", slog.String("what", what), slog.Duration("delay", delay), slog.Any("error", err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}

// gone: the consumer was deleted, or another was meant.
func gone(err error) bool {
	return errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, nats.ErrPermissionViolation)
}

// run is one call of Run.
type run struct {
	*Subscriber
	h               Handler
	state, findings jetstream.Consumer
	missed          string // event id of the delta before which some were missing last
}

// errMissed: deltas are missing between what is known and what came.
var errMissed = errors.New("deltas were missed")

// follow takes the snapshot, and then deltas, and the snapshot of what changed wherever some were missed.
func (r *run) follow(ctx context.Context) error {
	for {
		if err := r.again(ctx, "take snapshot", func() error { return r.snapshot(ctx) }); err != nil {
			return err
		}
		err := r.again(ctx, "follow", func() error {
			err := r.deltas(ctx)
			for err == nil && ctx.Err() == nil {
				err = r.deltas(ctx)
			}
			if errors.Is(err, errMissed) {
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// snapshot reads what STATE has for this subscriber at the moment: after the first time, the assets that
// changed since the last.
func (r *run) snapshot(ctx context.Context) error {
	info, err := r.state.Info(ctx)
	if err != nil {
		return err
	}
	for left := int(info.NumPending) + info.NumAckPending; left > 0; {
		batch, err := r.state.FetchNoWait(min(left, statePull))
		if err != nil {
			return err
		}
		n, err := r.each(ctx, batch, func(m jetstream.Msg) error {
			state, err := decodeState(m.Data())
			if err != nil {
				return r.passOver(ctx, m, err)
			}
			revisions := make(map[string]uint64, len(state.Open))
			for _, f := range state.Open {
				revisions[f.ID] = f.Revision
			}
			state.Open = r.wanted(state.Open)
			if err := r.h.Snapshot(ctx, state); err != nil {
				return err
			}
			for _, of := range []map[string]uint64{state.Resolved, revisions} {
				for id, revision := range of {
					r.seen[id] = max(r.seen[id], revision)
				}
			}
			return nil
		})
		if err != nil || n == 0 { // what is left was replaced, or is with a process that died with it
			return cmp.Or(err, ctx.Err())
		}
		left -= n
	}
	return nil
}

func decodeState(packed []byte) (finding.State, error) {
	body, err := compact.Unpack(packed)
	if err != nil {
		return finding.State{}, err
	}
	return wire.DecodeState(body)
}

// passOver skips what can not be read: it would stand in the way for good.
func (r *run) passOver(ctx context.Context, m jetstream.Msg, err error) error {
	r.cfg.Logger.ErrorContext(ctx, "read message failed", slog.String("subject", m.Subject()), slog.Any("error", err))
	return nil
}

// wanted leaves out findings of severities that were not subscribed to: STATE has all of them.
func (r *run) wanted(open []finding.Finding) []finding.Finding {
	if len(r.only) == 0 {
		return open
	}
	return slices.DeleteFunc(open, func(f finding.Finding) bool { return !r.subscribed(f.Severity) })
}

func (r *run) subscribed(s report.Severity) bool {
	return len(r.only) == 0 || slices.Contains(r.only, s.String())
}

// deltas waits for the next deltas and tells them.
func (r *run) deltas(ctx context.Context) error {
	waiting, stop := context.WithTimeout(ctx, pullWait)
	defer stop()
	// One is waited for, so that the end of ctx leaves none unread; what else is there comes with the next.
	batch, err := r.findings.Fetch(1, jetstream.FetchContext(waiting))
	if err != nil {
		return err
	}
	n, err := r.each(ctx, batch, func(m jetstream.Msg) error { return r.delta(ctx, m) })
	if err != nil || n == 0 {
		return err
	}
	more, err := r.findings.FetchNoWait(deltaPull)
	if err != nil {
		return err
	}
	_, err = r.each(ctx, more, func(m jetstream.Msg) error { return r.delta(ctx, m) })
	return err
}

func (r *run) delta(ctx context.Context, m jetstream.Msg) error {
	d, err := wire.DecodeDelta(m.Data())
	if err != nil {
		return r.passOver(ctx, m, err)
	}
	seen := r.seen[d.Finding.ID]
	if d.Finding.Revision <= seen {
		return nil
	}
	// Only an opening may skip revisions, and every delta that comes after some of severities that were not
	// subscribed to.
	if d.Transition != finding.Opened && d.Finding.Revision != seen+1 && len(r.only) == 0 && r.missed != d.EventID {
		r.missed = d.EventID // when it comes again after the snapshot, that had nothing newer
		return fmt.Errorf("%w: finding %s has revision %d, and %d was the last", errMissed, d.Finding.ID, d.Finding.Revision, seen)
	}
	if err := r.h.Delta(ctx, d); err != nil {
		return err
	}
	r.seen[d.Finding.ID] = d.Finding.Revision
	return nil
}

// each tells the messages of a batch and acknowledges them. One that is refused is told again until it is taken,
// while those after it wait: handed back, they would come in another order. What can not be told, because some
// are missing before it or ctx ends, is handed back with all after it.
func (r *run) each(ctx context.Context, batch jetstream.MessageBatch, tell func(jetstream.Msg) error) (n int, failed error) {
	var all []jetstream.Msg
	for m := range batch.Messages() {
		all = append(all, m)
	}
	for i, m := range all {
		if failed == nil {
			failed = r.untilTaken(ctx, all[i:], func() error { return tell(m) })
		}
		var err error
		if failed != nil {
			err = m.Nak()
		} else {
			settling, stop := context.WithTimeout(context.WithoutCancel(ctx), settleWait)
			err = m.DoubleAck(settling)
			stop()
		}
		if err != nil && failed == nil {
			failed = err // it comes again, and is known by its revision
		}
	}
	if err := batch.Error(); failed == nil && err != nil && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, context.DeadlineExceeded) {
		failed = err
	}
	return len(all), failed
}

// untilTaken repeats what a handler refuses, with a growing delay, and meanwhile keeps the messages that wait.
func (r *run) untilTaken(ctx context.Context, waiting []jetstream.Msg, tell func() error) error {
	for delay := r.cfg.Retry; ; delay = min(2*delay, r.cfg.Retry*maxBackoff) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err := tell()
		if err == nil || errors.Is(err, errMissed) {
			return err
		}
		r.cfg.Logger.WarnContext(ctx, "handler refused, will tell it again", slog.Duration("delay", delay), slog.Any("error", err))
		for _, m := range waiting {
			if err := m.InProgress(); err != nil { // it comes again later
				r.cfg.Logger.WarnContext(ctx, "keep message failed", slog.Any("error", err))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}
