package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/work"
)

// layers runs a layer consumer in the background.
func layers(t *testing.T, b *bus.Bus, slots int, h func(context.Context, work.LayerJob, bus.Delivery) error) (stop func()) {
	t.Helper()
	return background(t, func(ctx context.Context) error { return b.ConsumeLayers(ctx, work.DefaultPool, slots, h) })
}

var errKilled = errors.New("killed")

// killAt answers a fault that kills its bus the first time that an operation reaches a phase.
func killAt(op string, phase bus.Phase) bus.Fault {
	return func(o string, p bus.Phase) error {
		if o == op && p == phase {
			return errKilled
		}
		return nil
	}
}

func TestKilledBeforeItsAckTheJobComesBack(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	cfg := bus.Config{AckWait: 300 * time.Millisecond}
	dying := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{Fault: killAt("ack WORK.layer", bus.Before)})
	must(t, dying.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	runs := make(chan bus.Delivery, 10)
	h := func(_ context.Context, _ work.LayerJob, d bus.Delivery) error {
		runs <- d
		return nil
	}
	ended := make(chan error, 1)
	go func() { ended <- dying.ConsumeLayers(t.Context(), work.DefaultPool, 1, h) }()
	if d := receive(t, "first delivery", runs); d.Attempt != 1 {
		t.Errorf("first delivery: attempt %d", d.Attempt)
	}
	if err := receive(t, "the dead consumer's end", ended); err == nil {
		t.Error("a dead bus goes on consuming")
	}
	if err := dying.PublishLayer(t.Context(), layerJob("b", work.Push, work.S)); err == nil {
		t.Error("a dead bus goes on publishing")
	}

	next := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{})
	layers(t, next, 1, h)
	if d := receive(t, "second delivery", runs); d.Attempt != 2 || d.Opened != 0 {
		t.Errorf("second delivery: attempt %d, %d opened", d.Attempt, d.Opened)
	}
	idle(t, next)
}

// A process that dies takes all its handlers with it.
func TestDeathEndsEveryHandler(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{Fault: killAt("ack WORK.layer", bus.Before)})
	waiting := make(chan struct{})
	must(t, b.PublishLayer(t.Context(), layerJob("waits", work.Interactive, work.S)))
	must(t, b.PublishLayer(t.Context(), layerJob("dies", work.Push, work.S)))
	ended := make(chan error, 1)
	go func() {
		ended <- b.ConsumeLayers(t.Context(), work.DefaultPool, 2, func(ctx context.Context, j work.LayerJob, _ bus.Delivery) error {
			if j.Lane == work.Push {
				<-waiting
				return nil
			}
			close(waiting)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	if err := receive(t, "the end", ended); err == nil {
		t.Error("still alive")
	}
}

// Attempts that take their process with them are counted from the second delivery on; those that end
// are not, whatever the delivery count says.
func TestAttemptsThatNeverEnd(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	cfg := bus.Config{AckWait: 300 * time.Millisecond}
	first := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{})
	must(t, first.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	for kill := range 3 {
		b := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{Fault: killAt("publish notice", bus.Before)})
		ended := make(chan error, 1)
		go func() {
			ended <- b.ConsumeLayers(t.Context(), work.DefaultPool, 1, func(ctx context.Context, j work.LayerJob, d bus.Delivery) error {
				if want := max(0, kill-1); d.Opened != want {
					t.Errorf("delivery %d: %d opened, want %d", d.Attempt, d.Opened, want)
				}
				return b.Notify(ctx, work.Notice{Key: j.Key}) // dies here
			})
		}()
		if err := receive(t, "death", ended); err == nil {
			t.Fatal("still alive")
		}
	}
	seen := make(chan bus.Delivery, 10)
	layers(t, first, 1, func(_ context.Context, _ work.LayerJob, d bus.Delivery) error {
		seen <- d
		if d.Attempt < 6 {
			return reason.Retryf(reason.Unreachable, "not yet")
		}
		return nil
	})
	for attempt := 4; attempt <= 6; attempt++ {
		if d := receive(t, "delivery", seen); d.Attempt != attempt || d.Opened != 2 {
			t.Errorf("attempt %d: %d opened, want attempt %d with 2", d.Attempt, d.Opened, attempt)
		}
	}
	idle(t, first)

	// The job ended well: another one with its key starts with a clean record.
	must(t, first.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	receive(t, "another job", seen)
	if _, _, err := first.Bucket("attempts").Get(t.Context(), "layer."+layerJob("a", work.Push, work.S).Key); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("the record of attempts: %v, want none", err)
	}
}

func TestRetryHonoursTheDelayThatWasAskedFor(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	must(t, b.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	const delay = 400 * time.Millisecond
	times := make(chan time.Time, 10)
	layers(t, b, 1, func(_ context.Context, _ work.LayerJob, d bus.Delivery) error {
		times <- time.Now()
		if d.Attempt > 1 {
			return nil
		}
		return &reason.Error{Kind: reason.Retry, Code: reason.RateLimited, RetryAfter: delay}
	})
	first := receive(t, "first delivery", times)
	if waited := receive(t, "second delivery", times).Sub(first); waited < delay {
		t.Errorf("came back after %v, want %v", waited, delay)
	}
	idle(t, b)
}

func TestWhatComesBack(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"an error without a decision": func() error { return errors.New("odd") },
		"somebody else is on it":      func() error { return fmt.Errorf("publish: %w", bus.ErrBusy) },
		"a panic":                     func() error { panic("bad day") },
	} {
		t.Run(name, func(t *testing.T) {
			b := bustest.New(t, bus.Config{}, bus.Options{})
			_, err := b.PublishEvent(t.Context(), pushEvent("a"))
			must(t, err)
			attempts := make(chan int, 10)
			background(t, func(ctx context.Context) error {
				return b.ConsumeEvents(ctx, 1, func(_ context.Context, _ event.Event, d bus.Delivery) error {
					attempts <- d.Attempt
					if d.Attempt < 3 {
						return fail()
					}
					return nil
				})
			})
			for want := 1; want <= 3; want++ {
				if got := receive(t, "delivery", attempts); got != want {
					t.Errorf("attempt %d, want %d", got, want)
				}
			}
		})
	}
}

// A handler may take many times the AckWait: while it runs, nobody else gets its message.
func TestLongHandlersAreKeptAlive(t *testing.T) {
	t.Parallel()
	const ackWait = 1500 * time.Millisecond
	b := bustest.New(t, bus.Config{AckWait: ackWait}, bus.Options{})
	must(t, b.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	runs := make(chan int, 10)
	layers(t, b, 2, func(_ context.Context, _ work.LayerJob, d bus.Delivery) error {
		runs <- d.Attempt
		<-time.After(3 * ackWait)
		return nil
	})
	receive(t, "the job", runs)
	idle(t, b)
	if len(runs) > 0 {
		t.Errorf("delivered again while it ran, attempt %d", <-runs)
	}
}

// At the end of its context a consumer waits for its handlers; what they give back is somebody else's
// at once, long before the AckWait.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	cfg := bus.Config{AckWait: time.Hour}
	leaving := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{})
	must(t, leaving.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	must(t, leaving.PublishLayer(t.Context(), layerJob("b", work.Push, work.S)))
	started := make(chan struct{}, 2)
	stop := layers(t, leaving, 2, func(ctx context.Context, j work.LayerJob, _ bus.Delivery) error {
		started <- struct{}{}
		<-ctx.Done()
		if j.Key == layerJob("a", "", "").Key {
			return nil // done in spite of it
		}
		return ctx.Err()
	})
	receive(t, "one job", started)
	receive(t, "another job", started)
	stop()

	staying := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{})
	got := make(chan string, 10)
	layers(t, staying, 1, func(_ context.Context, j work.LayerJob, _ bus.Delivery) error {
		got <- j.Key
		return nil
	})
	if key := receive(t, "the job that was given back", got); key != layerJob("b", "", "").Key {
		t.Error("the finished job came back")
	}
	idle(t, staying)
}

// No lane starves, and the higher ones get more: 7, 2 and 1 of each 10 while all are full.
func TestLanesShare(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	const each = 60
	for i := range each {
		for _, lane := range work.Lanes {
			must(t, b.PublishLayer(t.Context(), layerJob(fmt.Sprint(lane, i), lane, work.Classes[i%len(work.Classes)])))
		}
	}
	// One slot, so that the order of deliveries is the wheel's.
	counts := map[work.Lane]int{}
	classes := map[work.Class]int{}
	seen := make(chan work.LayerJob)
	layers(t, b, 1, func(ctx context.Context, j work.LayerJob, _ bus.Delivery) error {
		select {
		case seen <- j:
		case <-ctx.Done():
		}
		return nil
	})
	for range 60 {
		j := receive(t, "a job", seen)
		counts[j.Lane]++
		classes[j.Class]++
	}
	if counts[work.Interactive] != 42 || counts[work.Push] != 12 || counts[work.Backfill] != 6 || counts[work.Speculative] != 0 {
		t.Errorf("of 60 jobs: %v, want 42, 12, 6 and none", counts)
	}
	for _, c := range work.Classes {
		if classes[c] < 10 {
			t.Errorf("class %s got %d of 60 turns", c, classes[c])
		}
	}
	for range len(work.Lanes)*each - 60 { // idle slots take whatever is there
		receive(t, "a job", seen)
	}
}

// However much of a backfill a planner holds, there is room for a push, and then for what is asked for.
func TestHeldBackfillLeavesRoom(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{Poll: time.Hour}, bus.Options{})
	held := make(chan work.Lane, 100)
	release := map[work.Lane]chan struct{}{work.Interactive: make(chan struct{}), work.Push: make(chan struct{}), work.Backfill: make(chan struct{})}
	background(t, func(ctx context.Context) error {
		return b.ConsumeImages(ctx, 10, func(ctx context.Context, j work.ImageJob, _ bus.Delivery) error {
			held <- j.Lane
			select {
			case <-release[j.Lane]:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for _, c := range []struct {
		lane work.Lane
		want int
	}{{work.Backfill, 5}, {work.Push, 3}, {work.Interactive, 2}} {
		for i := range 20 {
			must(t, b.PublishImage(t.Context(), imageJob(fmt.Sprint(c.lane, i), c.lane)))
		}
		for range c.want {
			if lane := receive(t, "an image of "+string(c.lane), held); lane != c.lane {
				t.Fatalf("holds one of %s, want %s", lane, c.lane)
			}
		}
		select {
		case lane := <-held:
			t.Fatalf("holds one more, of %s", lane)
		case <-time.After(200 * time.Millisecond):
		}
	}
	// Whoever is first, what a lane gives back goes to somebody at once, without the poll.
	release[work.Backfill] <- struct{}{}
	if lane := receive(t, "an image in its place", held); lane == work.Backfill {
		t.Error("the backfill takes its place back from those that it had to leave room to")
	}
}

// Nobody prefetches: what one worker can not start now is there for another.
func TestNothingIsTakenBeyondFreeSlots(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	for i := range 10 {
		must(t, b.PublishLayer(t.Context(), layerJob(fmt.Sprint(i), work.Push, work.S)))
	}
	running, end := make(chan struct{}, 10), make(chan struct{})
	layers(t, b, 3, func(context.Context, work.LayerJob, bus.Delivery) error {
		running <- struct{}{}
		<-end
		return nil
	})
	for range 3 {
		receive(t, "a running job", running)
	}
	if queued, inFlight := pending(t, b, work.Push); queued != 7 || inFlight != 3 {
		t.Errorf("%d queued and %d in flight, want 7 and 3", queued, inFlight)
	}
	close(end)
	idle(t, b)
}

// A stored job wakes an idle consumer; it need not wait for the poll.
func TestWake(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{Poll: time.Hour}, bus.Options{})
	must(t, b.PublishImage(t.Context(), imageJob("1", work.Push)))
	got := make(chan string, 10)
	background(t, func(ctx context.Context) error {
		return b.ConsumeImages(ctx, 1, func(_ context.Context, j work.ImageJob, _ bus.Delivery) error {
			got <- j.Reference.Tag
			return nil
		})
	})
	receive(t, "the job that its first look finds", got)
	for i := range 50 {
		tag := fmt.Sprint("more-", i)
		must(t, b.PublishImage(t.Context(), imageJob(tag, work.Backfill)))
		if woke := receive(t, "job "+tag, got); woke != tag {
			t.Errorf("job %s, want %s", woke, tag)
		}
	}
}

func TestAConsumerThatWasDeletedIsMadeAgain(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	got := make(chan string, 10)
	layers(t, b, 1, func(_ context.Context, j work.LayerJob, _ bus.Delivery) error {
		got <- j.Key
		return nil
	})
	must(t, b.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	receive(t, "a job", got)
	js, err := jetstream.New(nc)
	must(t, err)
	must(t, js.DeleteConsumer(t.Context(), "WORK", "layer-push-s-default"))
	must(t, b.PublishLayer(t.Context(), layerJob("b", work.Push, work.S)))
	receive(t, "a job after the consumer was deleted", got)
}
