package bus

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrTrimmed: the stream no longer holds the position that was asked for. Take the snapshot again.
var ErrTrimmed = errors.New("bus: the stream no longer holds this position")

const (
	followPull     = 256         // messages asked for at a time: FINDINGS, SCANS, SYSTEM hold small ones
	snapshotPull   = 8           // STATE holds up to maxState each, and a client buffers 64 MB
	idleConsumer   = time.Minute // after which the server forgets who went away without a word
	tailWait       = time.Second // after which a snapshot asks whether there is anything left
	followAgain    = time.Second // first delay after a failure; doubles
	followAgainMax = 30 * time.Second
)

// follow calls fn with each message from a sequence on (0: only new ones) until ctx ends, which is no
// error, or fn fails, which is returned. Whatever else happens (server away, consumer gone) it carries
// on behind the last message that fn took.
func (b *Bus) follow(ctx context.Context, stream, filter string, from uint64, fn func(m jetstream.Msg, seq uint64) error) error {
	wait := followAgain
	for {
		before := from
		stopped, err := b.followOnce(ctx, stream, filter, &from, fn)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end that was asked for
		case stopped:
			return err
		case from != before:
			wait = followAgain
		}
		b.log.WarnContext(ctx, "follow stream again", "stream", stream, "from", from, "wait", wait, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, followAgainMax)
	}
}

// followOnce does it with one ordered consumer; stopped tells that err is fn's.
func (b *Bus) followOnce(ctx context.Context, stream, filter string, from *uint64, fn func(jetstream.Msg, uint64) error) (stopped bool, err error) {
	if *from == 0 {
		// Not DeliverNew: a consumer that is made again would skip what came in between.
		_, last, err := b.bounds(ctx, stream)
		if err != nil {
			return false, err
		}
		*from = last + 1
	}
	iter, err := b.ordered(ctx, stream, filter, *from, followPull, false)
	if err != nil {
		return false, err
	}
	defer iter.Stop()
	for {
		m, err := iter.Next(jetstream.NextContext(ctx))
		if err != nil {
			return false, err
		}
		meta, err := m.Metadata()
		if err != nil {
			return false, err
		}
		if err := fn(m, meta.Sequence.Stream); err != nil {
			return true, err
		}
		*from = meta.Sequence.Stream + 1
	}
}

// chases bounds how often a snapshot looks for what was written while it read.
const chases = 20

// snapshot calls fn with each message of the filter that the stream holds, in order, and returns.
//
// A subject whose message is replaced while the snapshot reads moves behind where its end was, and would be
// passed over. So it goes on with what was written meanwhile, until there is nothing: a subject that was
// there all the time is seen at least once, and then again if it was replaced after that, the newest last.
// Where writing never ends, only a subject that was replaced during each of chases readings could be missed.
func (b *Bus) snapshot(ctx context.Context, stream, filter string, headersOnly bool, fn func(m jetstream.Msg, seq uint64) error) error {
	next := uint64(1)
	for range chases {
		more, err := b.holds(ctx, stream, filter, next, math.MaxUint64)
		if err != nil || !more {
			return err
		}
		_, end, err := b.bounds(ctx, stream)
		if err != nil {
			return err
		}
		if err := b.snapshotUpTo(ctx, stream, filter, next, end, headersOnly, fn); err != nil {
			return err
		}
		next = end + 1
	}
	return nil
}

// snapshotUpTo reads between two sequences, both included.
func (b *Bus) snapshotUpTo(ctx context.Context, stream, filter string, next, end uint64, headersOnly bool, fn func(m jetstream.Msg, seq uint64) error) error {
	for {
		// Asked each time, since the rest may have been replaced or removed: it would never come.
		more, err := b.holds(ctx, stream, filter, next, end)
		if err != nil || !more {
			return err
		}
		if err := b.snapshotOnce(ctx, stream, filter, &next, end, headersOnly, fn); err != nil {
			return err
		}
	}
}

// snapshotOnce does it with one ordered consumer, until the end or until nothing comes any more.
func (b *Bus) snapshotOnce(ctx context.Context, stream, filter string, next *uint64, end uint64, headersOnly bool, fn func(jetstream.Msg, uint64) error) error {
	iter, err := b.ordered(ctx, stream, filter, *next, snapshotPull, headersOnly)
	if err != nil {
		return storeError("read "+stream, err)
	}
	defer iter.Stop()
	for *next <= end {
		m, err := iter.Next(jetstream.NextMaxWait(tailWait))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, nats.ErrTimeout):
			return nil
		case err != nil:
			return storeError("read "+stream, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return storeError("read "+stream, err)
		}
		seq := meta.Sequence.Stream
		if seq > end {
			return nil
		}
		if err := fn(m, seq); err != nil {
			return err
		}
		*next = seq + 1
		if meta.NumPending == 0 {
			return nil
		}
	}
	return nil
}

// holds tells whether the stream holds a message of the filter between two sequences, both included.
func (b *Bus) holds(ctx context.Context, stream, filter string, first, last uint64) (bool, error) {
	s, err := b.stream(ctx, stream)
	if err != nil {
		return false, storeError("open "+stream, err)
	}
	m, err := s.GetMsg(ctx, first, jetstream.WithGetMsgSubject(filter))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, storeError("read "+stream, err)
	}
	return m.Sequence <= last, nil
}

// bounds are the first and last sequences of a stream.
func (b *Bus) bounds(ctx context.Context, stream string) (first, last uint64, err error) {
	s, err := b.stream(ctx, stream)
	if err != nil {
		return 0, 0, storeError("open "+stream, err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		return 0, 0, storeError("ask "+stream, err)
	}
	return info.State.FirstSeq, info.State.LastSeq, nil
}

func (b *Bus) ordered(ctx context.Context, stream, filter string, from uint64, pull int, headersOnly bool) (jetstream.MessagesContext, error) {
	c, err := b.js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{
		FilterSubjects:    []string{filter},
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       from,
		HeadersOnly:       headersOnly,
		InactiveThreshold: idleConsumer,
		MaxResetAttempts:  1, // follow tries again itself, and listens to ctx while it waits
	})
	if err != nil {
		return nil, err
	}
	return c.Messages(jetstream.PullMaxMessages(pull))
}

// watch follows a stream of one message type. A message that can not be decoded is logged and passed
// over: it would stop every watcher for good.
func watch[T any](ctx context.Context, b *Bus, stream, filter string, from uint64, decode func([]byte) (T, error), fn func(uint64, T) error) error {
	return b.follow(ctx, b.name(stream), b.subject(filter), from, func(m jetstream.Msg, seq uint64) error {
		v, err := decode(m.Data())
		if err != nil {
			b.log.ErrorContext(ctx, "decode watched message failed", "stream", stream, "sequence", seq, "error", err)
			return nil
		}
		return fn(seq, v)
	})
}
