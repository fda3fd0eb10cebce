package bus

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

// wheel is the lanes' guaranteed shares, as indexes into work.Lanes: 7 turns of 10 begin at the
// highest, 2 at the second, 1 at the third. The speculative lane has none: it takes what is idle. A
// turn that finds its lane empty takes from the others, highest first.
var wheel = [10]int{0, 0, 1, 0, 0, 2, 0, 0, 1, 0}

// pullTimeout bounds one request for a message. The server answers at once, so this is only for a
// connection that broke in between.
const pullTimeout = 5 * time.Second

// sweep asks every consumer of a queue once, in the order of this turn; nil when none has a message
// or ctx has ended.
func (b *Bus) sweep(ctx context.Context, q queue, turn int) *nats.Msg {
	first := wheel[turn%len(wheel)] % len(q.lanes)
	for i := -1; i < len(q.lanes); i++ {
		lane := i
		if i == -1 {
			lane = first
		} else if i == first {
			continue
		}
		names := q.lanes[lane]
		for n := range names {
			// Each sweep begins at another class, so that none starves another.
			m, err := b.next(ctx, q.stream, names[(turn+n)%len(names)])
			if err != nil {
				b.revive(ctx, q, err)
				return nil
			}
			if m != nil || ctx.Err() != nil {
				return m
			}
		}
	}
	return nil
}

// next takes one message if there is one, without waiting; nil when there is none.
//
// It is one plain request. The client library's FetchNoWait subscribes and unsubscribes each time, and
// never returns when the connection breaks between request and answer. The end of ctx does not cut the
// request short either: a message whose receiver has left is lost until its AckWait is over.
func (b *Bus) next(ctx context.Context, stream, consumer string) (*nats.Msg, error) {
	if b.dead.Load() || ctx.Err() != nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pullTimeout)
	defer cancel()
	subject := "$JS.API.CONSUMER.MSG.NEXT." + b.name(stream) + "." + consumer
	m, err := b.nc.RequestWithContext(ctx, subject, []byte(`{"batch":1,"no_wait":true}`))
	if err != nil {
		return nil, err
	}
	// A status instead of a message: none there (404), or the server is busy with itself (408, 409).
	if len(m.Data) == 0 && m.Header.Get("Status") != "" {
		return nil, nil
	}
	return m, nil
}

// revive is what follows a pull that nobody answered: the consumer is gone, and must be made again, or
// the server is. Either way the poll or a wake comes back here.
func (b *Bus) revive(ctx context.Context, q queue, cause error) {
	if b.dead.Load() || ctx.Err() != nil {
		return
	}
	b.log.WarnContext(ctx, "pull work failed", slog.String("queue", q.op), slog.Any("error", cause))
	if !errors.Is(cause, nats.ErrNoResponders) {
		return
	}
	if err := b.provisionConsumers(ctx, q.pools); err != nil {
		b.log.WarnContext(ctx, "recreate consumers failed", slog.String("queue", q.op), slog.Any("error", err))
	}
}
