package bus_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/work"
)

func loadOf(t *testing.T, b *bus.Bus, lane work.Lane) work.Load {
	t.Helper()
	all, err := b.Load(t.Context(), work.DefaultPool)
	must(t, err)
	for _, l := range all {
		if l.Pool == work.DefaultPool && l.Lane == lane {
			return l
		}
	}
	t.Fatalf("nothing on lane %s in %+v", lane, all)
	return work.Load{}
}

// wantSeconds waits for it: a consumer counts a job a moment after it is stored.
func wantSeconds(t *testing.T, b *bus.Bus, lane work.Lane, want float64) work.Load {
	t.Helper()
	var l work.Load
	eventually(t, fmt.Sprintf("%v seconds on lane %s", want, lane), func() bool {
		l = loadOf(t, b, lane)
		return math.Abs(l.Seconds-want) < 1e-6
	})
	return l
}

// Load is jobs times what their class costs, queued or running, and who waits longest.
func TestLoad(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	if l := loadOf(t, b, work.Push); l.Seconds != 0 || !l.Oldest.IsZero() {
		t.Errorf("nothing to do, and yet %+v", l)
	}
	before := time.Now().Add(-time.Second)
	for i := range 3 {
		must(t, b.PublishLayer(t.Context(), layerJob(fmt.Sprint("small", i), work.Push, work.S)))
	}
	must(t, b.PublishLayer(t.Context(), layerJob("large", work.Push, work.L)))
	must(t, b.PublishImage(t.Context(), imageJob("1", work.Push))) // is no scanner's
	l := wantSeconds(t, b, work.Push, 3*work.Guess(work.S).Seconds+work.Guess(work.L).Seconds)
	if l.Oldest.Before(before) || l.Oldest.After(time.Now().Add(time.Second)) {
		t.Errorf("oldest of %v", l.Oldest)
	}
	wantSeconds(t, b, work.Backfill, 0)

	// What scanners measure takes the place of the guess. Each tells its own, at the same time.
	var telling sync.WaitGroup
	for range 10 {
		telling.Go(func() {
			if err := b.AddCost(context.Background(), work.DefaultPool, work.S, work.Cost{Seconds: 7, Samples: 2}); err != nil {
				t.Error(err)
			}
		})
	}
	telling.Wait()
	must(t, b.AddCost(t.Context(), "another", work.S, work.Cost{Seconds: 1000, Samples: 1}))
	wantSeconds(t, b, work.Push, 3*7+work.Guess(work.L).Seconds)

	// In flight counts; done does not, and the next one is the oldest then.
	began, finish := make(chan struct{}, 10), make(chan struct{})
	stop := layers(t, b, 1, func(ctx context.Context, _ work.LayerJob, _ bus.Delivery) error {
		began <- struct{}{}
		select {
		case <-finish:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	receive(t, "a job", began)
	wantSeconds(t, b, work.Push, 3*7+work.Guess(work.L).Seconds)
	finish <- struct{}{}
	receive(t, "another job", began)
	next := loadOf(t, b, work.Push)
	if next.Oldest.Before(l.Oldest) {
		t.Errorf("after one is done: %+v, before %+v", next, l)
	}
	stop()

	// What is no cost is not believed.
	must(t, b.PublishLayer(t.Context(), layerJob("backfilled", work.Backfill, work.L)))
	for _, bad := range []string{"", "x", "1", "-3 5", "NaN 5", "+Inf 5", "1 0"} {
		_, err := b.Bucket("settings").Put(t.Context(), "cost.default.l", []byte(bad))
		must(t, err)
		wantSeconds(t, b, work.Backfill, work.Guess(work.L).Seconds)
	}
}
