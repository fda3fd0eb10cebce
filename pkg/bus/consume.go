package bus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Delivery is what a handler may know of the message that its value came in.
type Delivery struct {
	Sequence uint64 // in its stream
	Attempt  int    // 1 on the first delivery; drains, pauses and restarts count too
	Opened   int    // layers and matches: earlier attempts, from the second on, that began and never ended
	Failed   int    // jobs: earlier attempts that ended with a failure of their own; events: all earlier ones
	Queued   time.Time
	// Stopping is closed when this process takes no more work. A handler that only waits answers
	// ErrStopping then; one that works has Config.Drain to finish, after which its context ends.
	Stopping <-chan struct{}
}

// queue is what one Consume call takes from.
type queue struct {
	stream   string
	op       string     // the queue's name to people, metrics and faults: "EVENTS", "WORK.layer"
	service  string     // whose dead letters its refusals are
	lanes    [][]string // consumers by lane, highest first
	pools    []string   // whose consumers to make again when one is gone
	wake     string     // subject of the messages that say that something was stored
	attempts bool       // count attempts that never end
	shares   []int      // of the slots, by lane; nil: each lane may have all
}

// consumers are those that the queue takes from: a process may not make another's.
func (q queue) consumers() []consumer {
	return slices.DeleteFunc(consumers(q.pools), func(c consumer) bool {
		return c.stream != q.stream || !slices.ContainsFunc(q.lanes, func(names []string) bool { return slices.Contains(names, c.name) })
	})
}

// handler handles the body of one message.
type handler func(ctx context.Context, body []byte, d Delivery) error

// ConsumeEvents hands every event of a registry to h, at most slots at a time, until ctx ends; then it
// waits for the running handlers, whose contexts end Config.Drain later, and returns nil.
//
// What an error of h does to its message, here and in the other Consume methods: nil acknowledges;
// ErrBusy and errors of kind reason.Retry hand it back with a delay; reason.Refuse and reason.Poison
// make it a dead letter; a panic counts as Retry. ErrStopping, and whatever a handler answers whose
// context ended, hands its message back at once and counts as no attempt. While h runs, the message is
// kept alive.
func (b *Bus) ConsumeEvents(ctx context.Context, slots int, h func(context.Context, event.Event, Delivery) error) error {
	q := queue{
		stream: streamEvents, op: streamEvents, service: "layercache",
		lanes: [][]string{{consumerEvents}}, pools: b.cfg.Pools, wake: b.subject("wake", "event", string(event.KindImage), ">"),
	}
	return b.consume(ctx, q, slots, decoded(wire.DecodeEvent, h))
}

// ConsumeImages hands image jobs to h, by lane; budget is how many may be held at a time, of which lower
// lanes leave a part to higher ones.
func (b *Bus) ConsumeImages(ctx context.Context, budget int, h func(context.Context, work.ImageJob, Delivery) error) error {
	q := b.workQueue(kindImage, "layercache", b.cfg.Pools, func(l work.Lane) []string { return []string{imageConsumer(l)} })
	q.shares = imageShares
	return b.consume(ctx, q, budget, decoded(wire.DecodeImageJob, h))
}

// ConsumeLayers hands layer jobs of a pool to h, by lane, the cost classes of a lane in turn.
func (b *Bus) ConsumeLayers(ctx context.Context, pool string, slots int, h func(context.Context, work.LayerJob, Delivery) error) error {
	q := b.workQueue(kindLayer, "scanner", []string{pool}, func(l work.Lane) []string {
		var names []string
		for _, c := range work.Classes {
			names = append(names, layerConsumer(l, c, pool))
		}
		return names
	})
	q.wake, q.attempts = b.subject("wake", "work", "*", kindLayer, Token(pool), ">"), true
	return b.consume(ctx, q, slots, decoded(wire.DecodeLayerJob, h))
}

// ConsumeMatches hands match jobs to h, by lane.
func (b *Bus) ConsumeMatches(ctx context.Context, slots int, h func(context.Context, work.MatchJob, Delivery) error) error {
	q := b.workQueue(kindMatch, "scanner", b.cfg.Pools, func(l work.Lane) []string { return []string{matchConsumer(l)} })
	q.attempts = true
	return b.consume(ctx, q, slots, decoded(wire.DecodeMatchJob, h))
}

func (b *Bus) workQueue(kind, service string, pools []string, names func(work.Lane) []string) queue {
	q := queue{
		stream: streamWork, op: job{kind: kind}.op(), service: service,
		pools: pools, wake: b.subject("wake", "work", "*", kind, ">"),
	}
	for _, l := range work.Lanes {
		q.lanes = append(q.lanes, names(l))
	}
	return q
}

// decoded makes a handler of bytes from one of values. Bytes that are no value are refused.
func decoded[T any](decode func([]byte) (T, error), h func(context.Context, T, Delivery) error) handler {
	return func(ctx context.Context, body []byte, d Delivery) error {
		v, err := decode(body)
		if err != nil {
			return reason.Refusef(reason.Malformed, "decode: %w", err)
		}
		return h(ctx, v, d)
	}
}

// lookAgain is when to look again after a wake. The server sends it when a message is stored, which may
// be before the consumer counts the message: the first look then finds nothing. The
// second one comes soon: an image passes three queues.
var lookAgain = []time.Duration{300 * time.Microsecond, 2 * time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond}

// QueueManifests is what ConsumeManifests takes from, as Health hears of it.
const QueueManifests = streamEvents + ".manifest"

// Queues are what layercache and scanner work on, as Health hears of them.
func Queues() []string {
	return []string{streamEvents, job{kind: kindImage}.op(), job{kind: kindLayer}.op(), job{kind: kindMatch}.op()}
}

// errNotConsuming is the state of a queue that this process does not work on any more.
var errNotConsuming = errors.New("not consuming")

// consume is the one loop behind every Consume method. One dispatcher takes a free slot, looks for a
// message and gives it to a goroutine: nothing is ever prefetched beyond free slots, and an idle
// process asks the server with one voice, however many slots it has.
func (b *Bus) consume(ctx context.Context, q queue, slots int, h handler) error {
	if slots < 1 {
		return fmt.Errorf("bus: consume %s: %d slots", q.op, slots)
	}
	b.metrics.shown(q.op)
	ackWait, err := b.ackWait(ctx, q)
	if err != nil {
		return fmt.Errorf("bus: consume %s: %w", q.op, err)
	}
	wake := make(chan struct{}, 1)
	sub, err := b.nc.Subscribe(q.wake, func(*nats.Msg) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return fmt.Errorf("bus: consume %s: subscribe to wakes: %w", q.op, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection, which has none

	handling, end := b.grace(ctx)
	defer end()
	var running sync.WaitGroup
	err = b.dispatch(ctx, q, slots, wake, func(m *nats.Msg, release func()) {
		running.Go(func() {
			defer release()
			b.deliver(handling, ctx.Done(), q, m, ackWait, h, &running)
		})
	})
	b.report(q.op, errNotConsuming)
	if err != nil {
		end() // the dead handlers too
	}
	running.Wait()
	return err
}

// grace answers the context of handlers: it ends Config.Drain after ctx does.
func (b *Bus) grace(ctx context.Context) (handling context.Context, end context.CancelFunc) {
	handling, end = context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		_ = sleep(handling, b.cfg.Drain) // or until everything has ended
		end()
	})
	return handling, end
}

// dispatch takes messages, whenever a slot is free, and starts each of them, until ctx ends or the bus is
// dead. A slot is taken until its release is called.
func (b *Bus) dispatch(ctx context.Context, q queue, slots int, wake <-chan struct{}, start func(m *nats.Msg, release func())) error {
	poll := time.NewTicker(b.cfg.Poll)
	defer poll.Stop()
	pull := &puller{b: b, q: q}
	defer pull.close()
	free := newSlots(slots, len(q.lanes), q.shares)
	looked := len(lookAgain)
	// Replicas begin at different turns, or all would look into the same lane at the same time.
	turn := rand.IntN(len(wheel))
	for ctx.Err() == nil && !b.dead.Load() {
		full := !free.room(0)
		if !full {
			m, lane := pull.sweep(ctx, turn, free.room)
			turn++
			if m != nil {
				free.take(lane)
				start(m, func() { free.give(lane) })
				continue
			}
		}
		var again <-chan time.Time
		if looked < len(lookAgain) && !full {
			again = time.After(lookAgain[looked])
			looked++
		}
		select {
		case <-wake:
			looked = 0
		case <-free.freed:
		case <-again:
		case <-poll.C:
		case <-b.died:
		case <-ctx.Done():
		}
	}
	if b.dead.Load() {
		return errDead
	}
	return nil
}

// report tells how a queue is worked on.
func (b *Bus) report(queue string, state error) {
	if b.health != nil {
		b.health.Set(queue, state)
	}
}

// ackWait is the shortest AckWait of a queue's consumers as they are in the server, whoever made them:
// heartbeats must be faster.
func (b *Bus) ackWait(ctx context.Context, q queue) (time.Duration, error) {
	if err := b.provisionConsumers(ctx, q.consumers()); err != nil {
		return 0, err
	}
	shortest := b.cfg.AckWait
	for _, names := range q.lanes {
		for _, name := range names {
			c, err := b.js.Consumer(ctx, b.name(q.stream), name)
			if err != nil {
				return 0, fmt.Errorf("read consumer %s: %w", name, err)
			}
			shortest = min(shortest, c.CachedInfo().Config.AckWait)
		}
	}
	return shortest, nil
}
