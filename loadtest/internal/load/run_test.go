package load_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/loadtest/internal/drive"
	"github.com/pratique-sec/pratique/loadtest/internal/load"
	"github.com/pratique-sec/pratique/loadtest/internal/real"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/ingest/source"
)

// double judges what is pushed to it, as the test wants it to.
type double struct {
	mu    sync.Mutex
	scans chan finding.Scan
	delta chan finding.Delta
	judge func(n int, r image.Reference) []finding.Scan
	n     int
}

func (d *double) LastScan(context.Context) (uint64, error)  { return 0, nil }
func (d *double) LastDelta(context.Context) (uint64, error) { return 0, nil }

func (d *double) WatchScans(ctx context.Context, _ uint64, fn func(uint64, finding.Scan) error) error {
	return feed(ctx, d.scans, fn)
}

func (d *double) WatchDeltas(ctx context.Context, _ uint64, fn func(uint64, finding.Delta) error) error {
	return feed(ctx, d.delta, fn)
}

func feed[T any](ctx context.Context, from <-chan T, fn func(uint64, T) error) error {
	for seq := uint64(1); ; seq++ {
		select {
		case v := <-from:
			if err := fn(seq, v); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// ServeHTTP is ingest's door: it reads notifications as ingest does.
func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, s := range source.All {
		if !strings.HasSuffix(r.URL.Path, "/"+s.Name) {
			continue
		}
		batch, err := s.Parse(body, time.Now())
		if err != nil || len(batch.Events) != 1 || len(batch.Events[0].Unusable) > 0 {
			http.Error(w, "no event", http.StatusBadRequest)
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, s := range d.judge(d.n, batch.Events[0].Reference) {
			d.scans <- s
		}
		d.n++
		w.WriteHeader(http.StatusAccepted)
		return
	}
	http.NotFound(w, r)
}

func drivenBy(t *testing.T, judge func(n int, r image.Reference) []finding.Scan) *load.Result {
	t.Helper()
	d := &double{scans: make(chan finding.Scan, 1000), delta: make(chan finding.Delta), judge: judge}
	door := httptest.NewServer(d)
	t.Cleanup(door.Close)
	host, stop, err := real.NewRegistry().Serve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	set, err := real.Own(t.Context(), host, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pool, err := real.NewPool(set, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	outcomes, ended, err := drive.Follow(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	o := load.Options{Seed: 1, Duration: time.Second, Rate: 20, Burst: 5, BurstOf: 0.5, Tags: 5, Layers: 8, ImageLayers: 3, Zipf: 1.5}
	system := &drive.System{Door: drive.NewDoor(door.URL, ""), Outcomes: outcomes}
	t.Cleanup(system.Door.Close)
	r, err := load.Run(t.Context(), load.Target{System: system, Host: host, Pool: pool}, load.Plan(o), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// scan is an outcome of a push, with an id of its own.
func scan(r image.Reference) finding.Scan {
	return finding.Scan{ID: string(r.Digest), Reference: r, Outcome: report.Findings, Layers: finding.LayerCounts{Seen: 4, Known: 3, Analysed: 1}}
}

func TestAllIsWell(t *testing.T) {
	r := drivenBy(t, func(_ int, r image.Reference) []finding.Scan { return []finding.Scan{scan(r)} })
	if !r.Sound() || r.Scans != 20 || r.Overtaken != 0 || r.Dedup() != 0.75 || len(r.Lanes) != 1 || len(r.Lanes[0].Samples) != 20 {
		t.Errorf("%+v", r)
	}
}

// A push that is never judged is lost only if none of its tag comes after it.
func TestLossIsNoticed(t *testing.T) {
	latest := map[string]image.Digest{}
	var mu sync.Mutex
	r := drivenBy(t, func(n int, r image.Reference) []finding.Scan {
		mu.Lock()
		defer mu.Unlock()
		if n >= 10 {
			latest[r.Repository] = r.Digest
			return nil
		}
		return []finding.Scan{scan(r)}
	})
	if r.Sound() || len(r.Lost) != len(latest) || r.Overtaken != 10-len(latest) {
		t.Errorf("%d lost of %d, %d overtaken", len(r.Lost), len(latest), r.Overtaken)
	}
	for _, d := range latest {
		if !strings.Contains(strings.Join(r.Lost, " "), string(d)) {
			t.Errorf("not told: %s", d)
		}
	}
}

func TestRepetitionIsNoticed(t *testing.T) {
	r := drivenBy(t, func(n int, r image.Reference) []finding.Scan {
		if n == 3 {
			return []finding.Scan{scan(r), scan(r)}
		}
		return []finding.Scan{scan(r)}
	})
	if r.Sound() || r.Repeated != 1 || len(r.Lost) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestFailureIsNoticed(t *testing.T) {
	r := drivenBy(t, func(n int, r image.Reference) []finding.Scan {
		s := scan(r)
		if n == 3 {
			s.Outcome, s.Reason, s.Detail = report.Failed, reason.Unreachable, "gone"
		}
		return []finding.Scan{s}
	})
	if r.Sound() || len(r.Failed) != 1 || !strings.Contains(r.Failed[0], "gone") {
		t.Errorf("%+v", r)
	}
}
