package bus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/pkg/work"
)

const flushTimeout = 10 * time.Second

// Notify tells every planner that a layer's key is decided. It is core NATS: nobody may be listening,
// and a planner that missed it asks again by itself. Call it after the facts or the verdict are stored
// and before the job is acknowledged.
func (b *Bus) Notify(ctx context.Context, n work.Notice) error {
	body, err := wire.EncodeLayerNotice(n)
	if err != nil {
		return fmt.Errorf("bus: notice: %w", err)
	}
	m := message(ctx, b.subject("notice", Token(n.Key)), wire.TypeLayerNotice, body)
	return storeError("publish notice", b.do(ctx, "publish notice", func(context.Context) error { return b.nc.PublishMsg(m) }))
}

// Notices calls on with every notice from now on, one after the other; when it returns, the
// subscription is at the server. gap is called when notices may have been lost (a slow consumer, a
// reconnect): everything that waits must be looked up again. Both must return quickly. stop ends it;
// so does the end of ctx.
func (b *Bus) Notices(ctx context.Context, on func(work.Notice), gap func()) (stop func(), err error) {
	sub, err := b.nc.Subscribe(b.subject("notice", "*"), func(m *nats.Msg) {
		n, err := wire.DecodeLayerNotice(m.Data)
		if err != nil {
			b.log.WarnContext(ctx, "decode notice failed", slog.Any("error", err))
			return
		}
		if !b.dead.Load() {
			on(n)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("bus: subscribe to notices: %w", err)
	}
	connected := b.nc.StatusChanged(nats.CONNECTED)
	slow := sub.StatusChanged(nats.SubscriptionSlowConsumer)
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { b.watchGaps(ctx, connected, slow, gap) })
	stop = sync.OnceFunc(func() {
		cancel()
		watching.Wait()
		b.nc.RemoveStatusListener(connected)
		_ = sub.Unsubscribe() // fails only on a closed connection, which delivers nothing
	})
	context.AfterFunc(ctx, stop)
	if err := b.flush(ctx); err != nil {
		stop()
		return nil, storeError("subscribe to notices", err)
	}
	return stop, nil
}

// flush returns when the server has seen everything that was sent, subscriptions included.
func (b *Bus) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	return b.nc.FlushWithContext(ctx)
}

func (b *Bus) watchGaps(ctx context.Context, connected <-chan nats.Status, slow <-chan nats.SubStatus, gap func()) {
	for {
		select {
		case _, ok := <-connected:
			if !ok {
				return
			}
			// The subscription is at the new server before anybody looks things up again.
			if err := b.flush(ctx); err != nil {
				continue // gone again, or ctx ended; the next connection comes by here too
			}
		case _, ok := <-slow:
			if !ok {
				return
			}
		case <-b.died:
			return
		case <-ctx.Done():
			return
		}
		b.metrics.gaps.Inc()
		gap()
	}
}
