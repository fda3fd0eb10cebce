package layercache

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts"
)

// A planner that is told to stop gives back the images that wait for layers, at once and not after its
// grace: the next planner holds them then.
func TestStoppedPlannerGivesBackWhatWaits(t *testing.T) {
	const patience = 30 * time.Second
	r := newRig(t, 0)
	server := bustest.StartServer(t)
	var seen *bus.Bus
	start := func() (metrics *prometheus.Registry, stop func()) {
		b := bustest.On(t, bustest.Connect(t, server), bus.Config{Drain: time.Hour, AckWait: time.Hour}, bus.Options{})
		seen = b
		metrics = prometheus.NewRegistry()
		s, err := New(Config{}, Deps{Bus: b, Registry: r.registry, Facts: busfacts.New(b), Logger: slog.New(slog.DiscardHandler), Registerer: metrics})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		t.Cleanup(cancel)
		return metrics, func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(patience):
				t.Fatal("the planner does not end")
			}
		}
	}
	holds := func(metrics *prometheus.Registry) {
		t.Helper()
		late := time.After(patience)
		for gauge(t, metrics, "pratique_layercache_held_images") != 1 {
			select {
			case <-late:
				t.Fatal("the image is not held")
			case <-time.After(time.Millisecond):
			}
		}
	}
	first, stop := start()
	if err := seen.PutSetting(t.Context(), "analysis.default", testAnalysis); err != nil { // of a scanner that never comes
		t.Fatal(err)
	}
	p := r.image("team/app", "v1", "amd64", []string{"base"}, nil)
	_, err := seen.PublishEvent(t.Context(), event.Event{
		ID: "1", Kind: event.KindImage, Source: "distribution", Action: event.Push, Cause: event.CausePush,
		Reference: p.reference(r.host), Received: time.Now().UTC(),
	})
	if err != nil {
		t.Fatal(err)
	}
	holds(first)
	stop()
	second, stop := start()
	holds(second)
	stop()
}

// gauge is the value of a metric without labels.
func gauge(t *testing.T, metrics *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric is named %s", name)
	return 0
}
