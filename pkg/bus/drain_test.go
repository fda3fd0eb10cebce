package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/work"
)

// leave consumes layers until stop is closed, as a process does that gets SIGTERM then. ended is closed
// when the call returns.
func leave(t *testing.T, b *bus.Bus, h func(context.Context, work.LayerJob, bus.Delivery) error) (stop func(), ended <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := b.ConsumeLayers(ctx, work.DefaultPool, 1, h); err != nil {
			t.Errorf("consume: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return cancel, done
}

// What is in progress when the process is told to stop is finished, and nothing new is begun.
func TestWorkInProgressEndsWithinTheGrace(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{Drain: patience, AckWait: 300 * time.Millisecond}, bus.Options{})
	must(t, b.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	must(t, b.PublishLayer(t.Context(), layerJob("b", work.Push, work.S)))
	began, finish := make(chan bus.Delivery, 10), make(chan struct{})
	stop, ended := leave(t, b, func(ctx context.Context, _ work.LayerJob, d bus.Delivery) error {
		began <- d
		<-finish
		return ctx.Err() // none yet
	})
	d := receive(t, "a job", began)
	stop()
	receive(t, "the word to stop", d.Stopping)
	// Longer than the AckWait: it is kept alive.
	<-time.After(time.Second)
	select {
	case <-ended:
		t.Fatal("gone, although a handler runs")
	default:
	}
	close(finish)
	receive(t, "the end", ended)
	if len(began) > 0 {
		t.Error("another job was begun after the word to stop")
	}
	if queued, inFlight := pending(t, b, work.Push); queued != 1 || inFlight != 0 {
		t.Errorf("%d queued and %d in flight, want the other job alone", queued, inFlight)
	}
}

// What takes longer than the grace is handed back and counts as no attempt: a layer that was interrupted twenty times is as healthy as ever.
func TestInterruptedWorkIsNoAttempt(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	// Nobody waits for an AckWait here: what is not handed back is not seen again.
	cfg := bus.Config{Drain: time.Millisecond, AckWait: time.Hour}
	first := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{})
	must(t, first.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	for drain := range 20 {
		b := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{})
		began := make(chan bus.Delivery, 1)
		waits := drain%2 == 1
		stop, ended := leave(t, b, func(ctx context.Context, _ work.LayerJob, d bus.Delivery) error {
			began <- d
			if waits {
				<-d.Stopping
				return bus.ErrStopping
			}
			<-ctx.Done()
			return ctx.Err()
		})
		d := receive(t, "the job", began)
		if d.Attempt != drain+1 || d.Opened != 0 || d.Failed != 0 {
			t.Fatalf("after %d drains: attempt %d, %d opened, %d failed", drain, d.Attempt, d.Opened, d.Failed)
		}
		stop()
		receive(t, "the end", ended)
	}
	deliveries := make(chan bus.Delivery, 10)
	layers(t, first, 1, func(_ context.Context, _ work.LayerJob, d bus.Delivery) error {
		deliveries <- d
		switch d.Failed {
		case 0:
			return reason.Retryf(reason.Unreachable, "once")
		case 1:
			if d.Attempt == 22 {
				return reason.Retryf(reason.RegistryPaused, "not tried")
			}
			return nil
		default:
			return nil
		}
	})
	for i, failed := range []int{0, 1, 1} {
		if d := receive(t, "a delivery", deliveries); d.Attempt != 21+i || d.Failed != failed || d.Opened != 0 {
			t.Errorf("attempt %d: %d failed, %d opened; want attempt %d with %d and none", d.Attempt, d.Failed, d.Opened, 21+i, failed)
		}
	}
	idle(t, first)
	keys, err := first.Bucket("attempts").Keys(t.Context(), "")
	must(t, err)
	if len(keys) > 0 {
		t.Errorf("records of attempts are left: %v", keys)
	}
}

// A handler that does not notice the end of its context does not keep its message from others, nor does
// the kill that ends it count as its attempt's.
func TestWhoDoesNotListenIsLeft(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	cfg := bus.Config{Drain: time.Millisecond, AckWait: time.Hour}
	deaf := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{})
	must(t, deaf.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	began, release := make(chan int, 10), make(chan struct{})
	stop, ended := leave(t, deaf, func(_ context.Context, _ work.LayerJob, d bus.Delivery) error {
		began <- d.Attempt
		if d.Attempt == 1 {
			return reason.Retryf(reason.Unreachable, "so that the next attempt is counted")
		}
		<-release
		return errors.New("nobody hears this")
	})
	receive(t, "the job", began)
	receive(t, "the job again", began)
	stop()

	next := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{})
	taken := make(chan bus.Delivery, 10)
	layers(t, next, 1, func(_ context.Context, _ work.LayerJob, d bus.Delivery) error {
		taken <- d
		return nil
	})
	if d := receive(t, "the job that was left", taken); d.Attempt != 3 || d.Opened != 0 || d.Failed != 1 {
		t.Errorf("attempt %d, %d opened, %d failed, want the third with none and one", d.Attempt, d.Opened, d.Failed)
	}
	close(release)
	receive(t, "the end", ended)
	idle(t, next)
}
