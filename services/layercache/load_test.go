package layercache

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/work"
)

// gauges are the series of the load that a registry shows, as "name lane value".
func gauges(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "pratique_work_") {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			slices.Sort(labels)
			got[f.GetName()+" "+strings.Join(labels, " ")] = m.GetGauge().GetValue()
		}
	}
	return got
}

func TestLoadIsAbsentWhenItIsNotKnown(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	r := prometheus.NewRegistry()
	l, err := newLoad(r, time.Hour, func() time.Time { return noon })
	if err != nil {
		t.Fatal(err)
	}
	if got := gauges(t, r); len(got) != 0 {
		t.Errorf("who does not lead shows %v", got)
	}
	l.measured(time.Now(), []work.Load{
		{Pool: "default", Lane: work.Push, Seconds: 12.5, Oldest: noon.Add(-90 * time.Second)},
		{Pool: "default", Lane: work.Backfill},
		{Pool: "default", Lane: work.Interactive, Seconds: 1, Oldest: noon.Add(time.Second)}, // the server's clock is ahead
	})
	want := map[string]float64{
		"pratique_work_seconds lane=push pool=default":               12.5,
		"pratique_work_oldest_seconds lane=push pool=default":        90,
		"pratique_work_seconds lane=backfill pool=default":           0,
		"pratique_work_oldest_seconds lane=backfill pool=default":    0,
		"pratique_work_seconds lane=interactive pool=default":        1,
		"pratique_work_oldest_seconds lane=interactive pool=default": 0,
	}
	got := gauges(t, r)
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Errorf("%s is %v (there: %v), want %v", k, g, ok, v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("shows %v", got)
	}
	l.measured(time.Now().Add(-2*time.Hour), l.last)
	if got := gauges(t, r); len(got) != 0 {
		t.Errorf("what is two hours old is shown: %v", got)
	}
}

// loads is a bus whose load a test decides, and which lets it decide who leads.
type loads struct {
	*memory
	mu  sync.Mutex
	err error
}

func (l *loads) Load(context.Context, string) ([]work.Load, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return []work.Load{{Pool: "default", Lane: work.Push, Seconds: 3}}, l.err
}

func TestLeaderAloneShowsTheLoad(t *testing.T) {
	r, b := prometheus.NewRegistry(), &loads{memory: newMemory()}
	s, err := New(Config{LoadCheck: 5 * time.Millisecond}, Deps{Bus: b, Registry: newShelf(), Logger: slog.New(slog.DiscardHandler), Registerer: r})
	if err != nil {
		t.Fatal(err)
	}
	shown := func(want bool) {
		t.Helper()
		late := time.After(30 * time.Second)
		for (len(gauges(t, r)) > 0) != want {
			select {
			case <-late:
				t.Fatalf("shown: %v, want %v", !want, want)
			case <-time.After(time.Millisecond):
			}
		}
	}
	ctx, resign := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.measureLoad(ctx) }()
	shown(true)
	b.mu.Lock()
	b.err = errors.New("the bus is away")
	b.mu.Unlock()
	shown(false)
	b.mu.Lock()
	b.err = nil
	b.mu.Unlock()
	shown(true)
	resign()
	if err := <-done; err != nil {
		t.Errorf("measure: %v", err)
	}
	shown(false)
}
