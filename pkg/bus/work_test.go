package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/work"
)

func TestGuardRefusesWhileQueuedOrRunning(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	job := layerJob("a", work.Push, work.S)
	must(t, b.PublishLayer(t.Context(), job))
	busy := func(when string, lane work.Lane, class work.Class) {
		t.Helper()
		if err := b.PublishLayer(t.Context(), layerJob("a", lane, class)); !errors.Is(err, bus.ErrBusy) {
			t.Errorf("%s: %s %s: %v, want ErrBusy", when, lane, class, err)
		}
	}
	busy("queued", work.Push, work.S)
	busy("queued", work.Push, work.L) // the class is only a prediction
	busy("queued", work.Backfill, work.S)

	running, end := make(chan struct{}), make(chan struct{})
	background(t, func(ctx context.Context) error {
		return b.ConsumeLayers(ctx, work.DefaultPool, 1, func(context.Context, work.LayerJob, bus.Delivery) error {
			running <- struct{}{}
			<-end
			return nil
		})
	})
	receive(t, "the job", running)
	busy("running", work.Push, work.S)
	busy("running", work.Interactive, work.S) // too late for a promotion
	close(end)
	eventually(t, "the key is free again", func() bool { return b.PublishLayer(t.Context(), job) == nil })
	receive(t, "the job again", running)
}

func TestGuardIsPerPoolAndKind(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{Pools: []string{work.DefaultPool, "eu west"}}, bus.Options{})
	job := layerJob("a", work.Push, work.S)
	must(t, b.PublishLayer(t.Context(), job))
	job.Pool = "eu west"
	must(t, b.PublishLayer(t.Context(), job))
	must(t, b.PublishImage(t.Context(), imageJob("1", work.Push)))
	if err := b.PublishImage(t.Context(), imageJob("1", work.Backfill)); !errors.Is(err, bus.ErrBusy) {
		t.Errorf("second image job: %v", err)
	}
	match := work.MatchJob{
		Image: image.Image{
			Reference: image.Reference{Host: "registry.example", Repository: "team/app", Digest: digest("m")},
			Config:    digest("c"), Platform: image.Platform{OS: "linux", Architecture: "amd64"},
		},
		Asset:    &finding.Asset{Host: "registry.example", Repository: "team/app", Track: "1", Platform: image.Platform{OS: "linux", Architecture: "amd64"}},
		Analysis: "a1", Lane: work.Push, Origin: origin(),
	}
	must(t, b.PublishMatch(t.Context(), match))
	if err := b.PublishMatch(t.Context(), match); !errors.Is(err, bus.ErrBusy) {
		t.Errorf("second match job: %v", err)
	}
	match.Database = "sha256:new"
	must(t, b.PublishMatch(t.Context(), match)) // another database is another judgement

	all, err := b.Backlog(t.Context())
	must(t, err)
	got := map[string]uint64{}
	for _, q := range all {
		if q.Pending > 0 {
			got[fmt.Sprint(q.Kind, " ", q.Lane, " ", q.Class, " ", q.Pool)] = q.Pending
		}
	}
	want := map[string]uint64{"image push  ": 1, "match push  ": 2, "layer push s default": 1, "layer push s eu%20west": 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("backlog %v, want %v", got, want)
	}
	if n := len(all); n != 4+4+2*4*4 {
		t.Errorf("%d queues", n)
	}
}

func TestJobsThatNoConsumerWouldTakeAreRefused(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	job := layerJob("a", "urgent", work.S)
	if err := b.PublishLayer(t.Context(), job); err == nil || reason.Of(err).Kind != reason.Refuse {
		t.Errorf("unknown lane: %v", err)
	}
	job = layerJob("a", work.Push, "xxl")
	if err := b.PublishLayer(t.Context(), job); err == nil || reason.Of(err).Kind != reason.Refuse {
		t.Errorf("unknown class: %v", err)
	}
}

// A full WORK is not "somebody is on it", though the server answers both with one code.
func TestWorkWhenFull(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{MaxBytes: 16 << 10}, bus.Options{})
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = b.PublishLayer(t.Context(), layerJob(fmt.Sprint(i), work.Push, work.S))
	}
	if e := reason.Of(err); err == nil || errors.Is(err, bus.ErrBusy) || e.Kind != reason.Retry || e.Code != reason.BusUnavailable {
		t.Fatalf("full stream: %v", err)
	}
}

// The heart of single flight: publishers in several lanes and classes, workers in several processes,
// and no key is ever worked on twice at the same time.
func TestNoKeyRunsTwiceAtATime(t *testing.T) {
	t.Parallel()
	const keys, workers = 60, 4
	s := bustest.StartServer(t)
	var overlaps, runs atomic.Int64
	var active sync.Map
	for range workers {
		b := bustest.On(t, bustest.Connect(t, s), bus.Config{}, bus.Options{})
		background(t, func(ctx context.Context) error {
			return b.ConsumeLayers(ctx, work.DefaultPool, 3, func(_ context.Context, j work.LayerJob, _ bus.Delivery) error {
				if _, there := active.LoadOrStore(j.Key, true); there {
					overlaps.Add(1)
				}
				runs.Add(1)
				active.Delete(j.Key)
				return nil
			})
		})
	}
	var publishers sync.WaitGroup
	for _, lane := range work.Lanes {
		for _, class := range []work.Class{work.XS, work.L} {
			b := bustest.On(t, bustest.Connect(t, s), bus.Config{}, bus.Options{})
			publishers.Go(func() {
				for i := range keys {
					if err := b.PublishLayer(t.Context(), layerJob(fmt.Sprint(i), lane, class)); err != nil && !errors.Is(err, bus.ErrBusy) {
						t.Error(err)
					}
				}
			})
		}
	}
	publishers.Wait()
	b := bustest.On(t, bustest.Connect(t, s), bus.Config{}, bus.Options{})
	eventually(t, "everything is done", func() bool {
		for _, lane := range work.Lanes {
			if queued, inFlight := pending(t, b, lane); queued > 0 || inFlight > 0 {
				return false
			}
		}
		return true
	})
	if overlaps.Load() > 0 || runs.Load() < keys {
		t.Errorf("%d overlaps in %d runs of %d keys", overlaps.Load(), runs.Load(), keys)
	}
}
