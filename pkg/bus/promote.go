package bus

import (
	"context"
	"errors"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/work"
)

// Promotion moves a queued job to a higher lane in two steps, publish there and delete here, between
// which anybody may die and the old job may be delivered. Single flight survives because both jobs know
// of each other:
//
//   - the new one carries the sequences that it replaces. Its delivery first makes sure that they are
//     gone, and is handed back for a moment while one is being worked on.
//   - an old one, when delivered, finds the newer one on its key and steps aside.
const headerReplaces = "Pratique-Replaces"

// promote replaces the job with sequence old by m, if it is queued in a lower lane. ErrBusy if it is
// not, or if somebody else was faster.
func (b *Bus) promote(ctx context.Context, j job, m *nats.Msg, old uint64) error {
	raw, err := b.rawMessage(ctx, streamWork, old)
	if errors.Is(err, ErrNotFound) {
		return ErrBusy // it ended in this moment; the caller asks again
	}
	if err != nil {
		return err
	}
	there, ok := parseJob(b.cfg.Root, raw.Subject)
	if !ok || !j.lane.Higher(there.lane) {
		return ErrBusy
	}
	delivered, err := b.delivered(ctx, there, old)
	if err != nil {
		return err
	}
	if delivered {
		return ErrBusy
	}
	for _, r := range raw.Header.Values(headerReplaces) {
		m.Header.Add(headerReplaces, r)
	}
	m.Header.Add(headerReplaces, strconv.FormatUint(old, 10))
	if err := b.guarded(ctx, j, m, old); err != nil {
		return err
	}
	b.metrics.promoted.WithLabelValues(j.op()).Inc()
	// Whatever is not deleted now is dealt with when the new job is delivered.
	_, err = b.retire(ctx, old)
	return err
}

// delivered tells whether the consumer of a job has ever handed it out.
func (b *Bus) delivered(ctx context.Context, j job, seq uint64) (bool, error) {
	c, err := b.js.Consumer(ctx, b.name(streamWork), j.consumer())
	if err != nil {
		return false, storeError("read consumer "+j.consumer(), err)
	}
	return c.CachedInfo().Delivered.Stream >= seq, nil
}

// retire makes sure that a replaced job is gone. False: it is being worked on.
func (b *Bus) retire(ctx context.Context, seq uint64) (gone bool, err error) {
	raw, err := b.rawMessage(ctx, streamWork, seq)
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	j, ok := parseJob(b.cfg.Root, raw.Subject)
	if !ok {
		return true, nil // not a job of ours: nobody works on it
	}
	// Not delivered yet, although the newer job is stored: from now on its delivery steps aside, so
	// nobody works on it and it can be deleted.
	if delivered, err := b.delivered(ctx, j, seq); err != nil || delivered {
		return false, err
	}
	s, err := b.stream(ctx, b.name(streamWork))
	if err != nil {
		return false, storeError("open "+streamWork, err)
	}
	err = b.do(ctx, "delete "+j.op(), func(ctx context.Context) error { return s.DeleteMsg(ctx, seq) })
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		return false, storeError("delete "+j.op(), err)
	}
	return true, nil
}

// turn says what a delivery of a job may do now.
type turn int

const (
	proceed   turn = iota
	stepAside      // a newer job on the key has replaced this one, which may be deleted already
	holdBack       // the job that this one replaces is being worked on
)

// turnOf decides it by what else is on the job's key.
func (b *Bus) turnOf(ctx context.Context, j job, seq uint64, h nats.Header) (turn, error) {
	// Nothing is higher than the highest lane, so nothing can have replaced a job there.
	if j.lane != work.Lanes[0] {
		last, err := b.last(ctx, b.name(streamWork), j.guard(b.cfg.Root))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return proceed, err
		}
		// Replaced, or deleted while it was on its way here: the one that replaced it may even have ended.
		if errors.Is(err, ErrNotFound) || last.Sequence != seq {
			return stepAside, nil
		}
	}
	for _, r := range h.Values(headerReplaces) {
		old, err := strconv.ParseUint(r, 10, 64)
		if err != nil {
			continue // not written by us
		}
		if gone, err := b.retire(ctx, old); err != nil || !gone {
			return holdBack, err
		}
	}
	return proceed, nil
}
