package bus_test

import (
	"context"
	"errors"
	"testing"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/work"
)

func TestHigherLaneReplacesAQueuedJob(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	for _, lane := range []work.Lane{work.Speculative, work.Backfill, work.Interactive} {
		must(t, b.PublishLayer(t.Context(), layerJob("a", lane, work.S)))
		for _, other := range work.Lanes {
			want := uint64(0)
			if other == lane {
				want = 1
			}
			if queued, _ := pending(t, b, other); queued != want {
				t.Errorf("published in %s: %d jobs in %s, want %d", lane, queued, other, want)
			}
		}
	}
	if err := b.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)); !errors.Is(err, bus.ErrBusy) {
		t.Errorf("a lower lane: %v, want ErrBusy", err)
	}
	runs := make(chan work.Lane, 10)
	background(t, func(ctx context.Context) error { return consumeLanes(ctx, b, runs) })
	if lane := receive(t, "the job", runs); lane != work.Interactive {
		t.Errorf("ran in %s", lane)
	}
	idle(t, b)
	if len(runs) > 0 {
		t.Errorf("ran again in %s", <-runs)
	}
}

func consumeLanes(ctx context.Context, b *bus.Bus, runs chan<- work.Lane) error {
	return b.ConsumeLayers(ctx, work.DefaultPool, 4, func(_ context.Context, j work.LayerJob, _ bus.Delivery) error {
		runs <- j.Lane
		return nil
	})
}

// idle waits until no layer job is queued or running.
func idle(t *testing.T, b *bus.Bus) {
	t.Helper()
	eventually(t, "no job is left", func() bool {
		for _, lane := range work.Lanes {
			if queued, inFlight := pending(t, b, lane); queued > 0 || inFlight > 0 {
				return false
			}
		}
		return true
	})
}

// between answers a fault that lets the test act at one moment of the first publish to a queue after
// the first refusal of it: between the steps of a promotion.
func between(phase bus.Phase, act func()) bus.Fault {
	publishes := 0
	return func(op string, p bus.Phase) error {
		if op == "publish WORK.layer" && p == phase {
			if publishes++; publishes == 2 { // the first was refused
				act()
			}
		}
		return nil
	}
}

// The old job is delivered after the promoter looked and before it publishes: the new one waits.
func TestPromotionOfAJobThatStartsMeanwhile(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	worker := bustest.On(t, bustest.Connect(t, s), bus.Config{}, bus.Options{})
	must(t, worker.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))

	running, end := make(chan work.Lane), make(chan struct{})
	start := func() {
		background(t, func(ctx context.Context) error {
			return worker.ConsumeLayers(ctx, work.DefaultPool, 4, func(_ context.Context, j work.LayerJob, _ bus.Delivery) error {
				running <- j.Lane
				<-end
				return nil
			})
		})
		if lane := receive(t, "the old job", running); lane != work.Push {
			t.Errorf("ran in %s first", lane)
		}
	}
	promoter := bustest.On(t, bustest.Connect(t, s), bus.Config{}, bus.Options{Fault: between(bus.Before, start)})
	must(t, promoter.PublishLayer(t.Context(), layerJob("a", work.Interactive, work.S)))

	eventually(t, "the new job was handed out", func() bool {
		_, inFlight := pending(t, worker, work.Interactive)
		return inFlight == 1
	})
	select {
	case lane := <-running:
		t.Fatalf("a second job on the key ran in %s at the same time", lane)
	default:
	}
	close(end)
	if lane := receive(t, "the new job", running); lane != work.Interactive {
		t.Errorf("ran in %s next", lane)
	}
	idle(t, worker)
}

// The old job is delivered between the publish of the new one and its own deletion: it steps aside.
func TestPromotionOfAJobThatIsDeliveredTooLate(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	worker := bustest.On(t, bustest.Connect(t, s), bus.Config{}, bus.Options{})
	must(t, worker.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))

	runs := make(chan work.Lane, 10)
	start := func() {
		background(t, func(ctx context.Context) error { return consumeLanes(ctx, worker, runs) })
		if lane := receive(t, "a job", runs); lane != work.Interactive {
			t.Errorf("ran in %s", lane)
		}
	}
	promoter := bustest.On(t, bustest.Connect(t, s), bus.Config{}, bus.Options{Fault: between(bus.After, start)})
	must(t, promoter.PublishLayer(t.Context(), layerJob("a", work.Interactive, work.S)))
	idle(t, worker)
	if len(runs) > 0 {
		t.Errorf("ran again in %s", <-runs)
	}
}

// The promoter dies between its two steps: the new job runs, the old one never does.
func TestPromoterDies(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	worker := bustest.On(t, bustest.Connect(t, s), bus.Config{}, bus.Options{})
	must(t, worker.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	promoter := bustest.On(t, bustest.Connect(t, s), bus.Config{}, bus.Options{Fault: func(op string, p bus.Phase) error {
		if op == "delete WORK.layer" && p == bus.Before {
			return errors.New("killed")
		}
		return nil
	}})
	if err := promoter.PublishLayer(t.Context(), layerJob("a", work.Interactive, work.S)); err == nil {
		t.Fatal("a dead promoter answered nil")
	}
	if queued, _ := pending(t, worker, work.Push); queued != 1 {
		t.Fatalf("%d jobs in push, want the old one", queued)
	}
	runs := make(chan work.Lane, 10)
	background(t, func(ctx context.Context) error { return consumeLanes(ctx, worker, runs) })
	if lane := receive(t, "the job", runs); lane != work.Interactive {
		t.Errorf("ran in %s", lane)
	}
	idle(t, worker)
	if len(runs) > 0 {
		t.Errorf("ran again in %s", <-runs)
	}
}
