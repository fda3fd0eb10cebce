package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Kinds of jobs on WORK, as tokens of its subjects.
const (
	kindImage = "image"
	kindLayer = "layer"
	kindMatch = "match"
)

// clashWait and clashAttempts: a guarded publish that meets another one in flight is repeated until
// one of them is stored.
const (
	clashWait     = 2 * time.Millisecond
	clashAttempts = 500
)

// PublishImage queues the planning of an image. ErrBusy: one with the same id is queued or running.
func (b *Bus) PublishImage(ctx context.Context, j work.ImageJob) error {
	body, err := wire.EncodeImageJob(j)
	if err != nil {
		return fmt.Errorf("bus: image job: %w", err)
	}
	return b.enqueue(ctx, j.Lane, kindImage, []string{work.ImageID(j)}, wire.TypeImageJob, body)
}

// PublishLayer queues the analysis of a blob. ErrBusy: one with the same key is queued or running in
// the same pool, in whatever lane or class.
func (b *Bus) PublishLayer(ctx context.Context, j work.LayerJob) error {
	body, err := wire.EncodeLayerJob(j)
	if err != nil {
		return fmt.Errorf("bus: layer job: %w", err)
	}
	return b.enqueue(ctx, j.Lane, kindLayer, []string{Token(j.Pool), Token(string(j.Class)), Token(j.Key)}, wire.TypeLayerJob, body)
}

// PublishMatch queues a judgement. ErrBusy: one with the same key is queued or running.
func (b *Bus) PublishMatch(ctx context.Context, j work.MatchJob) error {
	body, err := wire.EncodeMatchJob(j)
	if err != nil {
		return fmt.Errorf("bus: match job: %w", err)
	}
	return b.enqueue(ctx, j.Lane, kindMatch, []string{work.MatchKey(j)}, wire.TypeMatchJob, body)
}

// enqueue publishes a job unless one with its key is there. One that is still queued in a lower lane
// is replaced.
func (b *Bus) enqueue(ctx context.Context, lane work.Lane, kind string, rest []string, messageType string, body []byte) error {
	subject := b.subject(append([]string{"work", Token(string(lane)), kind}, rest...)...)
	j, ok := parseJob(b.cfg.Root, subject)
	if !ok {
		return reason.Refusef(reason.Malformed, "bus: no job can have the subject %q: unknown lane or class, or empty key", subject)
	}
	m := message(ctx, subject, messageType, body)
	err := b.guarded(ctx, j, m, 0)
	if !errors.Is(err, ErrBusy) {
		return err
	}
	b.metrics.refused.WithLabelValues(j.op()).Inc()
	var busy *busyError
	if errors.As(err, &busy) {
		return b.promote(ctx, j, m, busy.sequence)
	}
	return err
}

// busyError is ErrBusy with the sequence of the job that is there.
type busyError struct{ sequence uint64 }

func (e *busyError) Error() string { return ErrBusy.Error() }
func (e *busyError) Unwrap() error { return ErrBusy }

// guarded publishes a job if the last message on its guard's subjects is the one with sequence last
// (0: if there is none). The server checks it together with storing: no lock, no lease, no clock.
func (b *Bus) guarded(ctx context.Context, j job, m *nats.Msg, last uint64) error {
	for range clashAttempts {
		_, err := b.publish(ctx, j.op(), m, jetstream.WithExpectLastSequenceForSubject(last, j.guard(b.cfg.Root)))
		switch {
		case err == nil:
			return nil
		case apiCode(err) == codeWrongLast:
			return &busyError{sequence: wrongLastSequence(err)}
		case isSubjectFull(err):
			return ErrBusy
		case apiCode(err) != codeClash:
			return storeError("publish "+j.op(), err)
		}
		if err := sleep(ctx, clashWait); err != nil {
			return err
		}
	}
	return reason.Retryf(reason.BusUnavailable, "bus: publish %s: still clashing after %d attempts", j.op(), clashAttempts)
}

// wrongLastSequence reads N out of "wrong last sequence: N"; 0 when the text says none.
func wrongLastSequence(err error) uint64 {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return 0
	}
	_, number, _ := strings.Cut(api.Description, ": ")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// job is what a WORK subject says: <root>.work.<lane>.<kind>[.<pool>.<class>].<key>.
type job struct {
	lane        work.Lane
	kind        string
	pool, class string // layers only, as tokens
	key         string
}

func parseJob(root, subject string) (job, bool) {
	t := strings.Split(subject, ".")
	if len(t) < 5 || t[0] != root || t[1] != "work" {
		return job{}, false
	}
	j := job{lane: work.Lane(t[2]), kind: t[3], key: t[len(t)-1]}
	switch {
	case !slices.Contains(work.Lanes, j.lane):
		return job{}, false
	case len(t) == 5 && (j.kind == kindImage || j.kind == kindMatch):
	case len(t) == 7 && j.kind == kindLayer && slices.Contains(work.Classes, work.Class(t[5])):
		j.pool, j.class = t[4], t[5]
	default:
		return job{}, false
	}
	return j, j.key != "" && j.key != Token("")
}

// op names the queue to people, metrics and faults.
func (j job) op() string { return streamWork + "." + j.kind }

// guard is the filter under which no other job may exist: the key in any lane and class. Everybody
// must send the same text, because the server tells clashes in flight apart by it.
func (j job) guard(root string) string {
	if j.kind == kindLayer {
		return root + ".work.*.layer." + j.pool + ".*." + j.key
	}
	return root + ".work.*." + j.kind + "." + j.key
}

// consumer is the durable that delivers the job.
func (j job) consumer() string {
	switch j.kind {
	case kindImage:
		return imageConsumer(j.lane)
	case kindMatch:
		return matchConsumer(j.lane)
	default:
		return "layer-" + string(j.lane) + "-" + j.class + "-" + j.pool
	}
}

// sleep waits, or answers the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
