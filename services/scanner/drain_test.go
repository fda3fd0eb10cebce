package scanner

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/work"
)

// slow analyses a layer when the test says so.
type slow struct {
	*fakeAnalyzer
	began   chan struct{}
	release chan struct{}
}

func (s slow) Analyze(ctx context.Context, l image.Layer, r io.Reader) (facts.Layer, error) {
	s.began <- struct{}{}
	select {
	case <-s.release:
		return s.fakeAnalyzer.Analyze(ctx, l, r)
	case <-ctx.Done():
		return facts.Layer{}, ctx.Err()
	}
}

// serve runs the service until stop is called, which waits for its end.
func (h *bench) serve(t *testing.T) (stop func() (ended <-chan struct{})) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return func() <-chan struct{} {
		cancel()
		return done
	}
}

func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("never: %s", what)
	}
}

// A scanner that is told to stop finishes the layer that it is at.
func TestStoppedScannerFinishesItsLayer(t *testing.T) {
	b := bustest.New(t, bus.Config{Drain: patience, AckWait: time.Second}, bus.Options{})
	h := benchOn(t, b, Config{})
	h.registry.body = "a layer"
	s := slow{h.analyzer, make(chan struct{}, 1), make(chan struct{})}
	h.Service.analyzer = s
	stop := h.serve(t)
	h.announced(t, analysis)
	job := layerJob("a layer")
	must(t, b.PublishLayer(t.Context(), job))
	within(t, "the layer is begun", s.began)
	ended := stop()
	select {
	case <-ended:
		t.Fatal("gone, although it is at a layer")
	case <-time.After(100 * time.Millisecond):
	}
	close(s.release)
	within(t, "the end", ended)
	if _, err := h.facts.Record(t.Context(), job.Layer.Blob); err != nil {
		t.Errorf("the layer's facts: %v", err)
	}
	queues, err := b.Backlog(t.Context())
	must(t, err)
	for _, q := range queues {
		if q.Pending+uint64(q.InFlight) > 0 {
			t.Errorf("left in the queues: %+v", q)
		}
	}
}

// Twenty upgrades in a row, each in the middle of the same layer: it is analysed by the one that is given
// the time, and nothing was ever held against it.
func TestInterruptedLayerIsNeverPoison(t *testing.T) {
	server := bustest.StartServer(t)
	cfg := bus.Config{Drain: time.Millisecond, AckWait: time.Hour}
	job := layerJob("a layer")
	for upgrade := range 21 {
		b := bustest.On(t, bustest.Connect(t, server), cfg, bus.Options{})
		// A day has gone by, too.
		h := benchOn(t, b, Config{GiveUp: time.Nanosecond, PoisonAfter: 1})
		h.registry.body = "a layer"
		s := slow{h.analyzer, make(chan struct{}, 1), make(chan struct{})}
		h.Service.analyzer = s
		stop := h.serve(t)
		h.announced(t, analysis)
		if upgrade == 0 {
			must(t, b.PublishLayer(t.Context(), job))
		}
		within(t, "the layer is begun", s.began)
		if upgrade == 20 {
			notices := h.notices(t)
			close(s.release)
			wantNotice(t, notices, work.Notice{Key: job.Key})
		}
		within(t, "the end", stop())
		must(t, b.DeadLetters(t.Context(), func(_ uint64, l system.DeadLetter) error {
			t.Fatalf("upgrade %d: dead letter %+v", upgrade, l)
			return nil
		}))
	}
}
