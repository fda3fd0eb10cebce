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

// puller takes messages for one consume loop, one at a time.
//
// It has one standing inbox. The client library's FetchNoWait subscribes and unsubscribes for every
// request, and never returns when the connection breaks between request and answer; nats.Conn.Request
// can not be used, because it tells answers apart by their subject, and a message's is its own.
type puller struct {
	b     *Bus
	q     queue
	inbox string
	sub   *nats.Subscription // nil: to be made
	works bool               // what was reported last
}

// answered notes whether the last request was, and reports a change. Before the first answer nothing is
// known, and whoever wants to hear of that says so himself.
func (p *puller) answered(err error) {
	if works := err == nil; works != p.works {
		p.works = works
		p.b.report(p.q.op, err)
	}
}

// close forgets the inbox.
func (p *puller) close() {
	if p.sub != nil {
		_ = p.sub.Unsubscribe() // fails only on a closed connection, which has none
		p.sub = nil
	}
}

// sweep asks every consumer of the lanes with room once, in the order of this turn, and answers a message
// and its lane; nil when none has a message or ctx has ended.
func (p *puller) sweep(ctx context.Context, turn int, room func(lane int) bool) (*nats.Msg, int) {
	first := wheel[turn%len(wheel)] % len(p.q.lanes)
	for i := -1; i < len(p.q.lanes); i++ {
		lane := i
		if i == -1 {
			lane = first
		} else if i == first {
			continue
		}
		if !room(lane) {
			continue
		}
		names := p.q.lanes[lane]
		for n := range names {
			if p.b.dead.Load() || ctx.Err() != nil {
				return nil, 0
			}
			// Each sweep begins at another class, so that none starves another.
			m, err := p.next(ctx, names[(turn+n)%len(names)])
			p.answered(err)
			if err != nil {
				p.close()
				p.revive(ctx, err)
				return nil, 0
			}
			if m != nil {
				return m, lane
			}
		}
	}
	return nil, 0
}

// next takes one message from a consumer if there is one, without waiting; nil when there is none. The
// end of ctx does not cut the request short: a message whose receiver has left is lost until its
// AckWait is over.
func (p *puller) next(ctx context.Context, consumer string) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pullTimeout)
	defer cancel()
	if p.sub == nil {
		p.inbox = p.b.nc.NewInbox()
		sub, err := p.b.nc.SubscribeSync(p.inbox)
		if err != nil {
			return nil, err
		}
		p.sub = sub
	}
	request := "$JS.API.CONSUMER.MSG.NEXT." + p.b.name(p.q.stream) + "." + consumer
	if err := p.b.nc.PublishRequest(request, p.inbox, []byte(`{"batch":1,"no_wait":true}`)); err != nil {
		return nil, err
	}
	m, err := p.sub.NextMsgWithContext(ctx)
	if err != nil {
		return nil, err
	}
	if len(m.Data) > 0 {
		return m, nil
	}
	switch m.Header.Get("Status") {
	case "": // an empty message, which is refused as malformed
		return m, nil
	case "503":
		return nil, nats.ErrNoResponders
	default: // none there (404), or the server is busy with itself (408, 409)
		return nil, nil
	}
}

// revive is what follows a pull that nobody answered: the consumer is gone, and must be made again, or
// the server is. Either way the poll or a wake leads back here.
func (p *puller) revive(ctx context.Context, cause error) {
	log := p.b.log.With(slog.String("queue", p.q.op))
	log.WarnContext(ctx, "pull work failed", slog.Any("error", cause))
	if !errors.Is(cause, nats.ErrNoResponders) {
		return
	}
	if err := p.b.provisionConsumers(ctx, p.q.consumers()); err != nil {
		log.WarnContext(ctx, "recreate consumers failed", slog.Any("error", err))
	}
}
