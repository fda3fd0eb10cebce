package join

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/work"
)

const (
	analysis = "analysis-1"
	recheck  = 30 * time.Second
)

// world is everything around a join, in memory: the fact store, the guarded queue, a registry.
type world struct {
	mu       sync.Mutex
	records  map[image.Digest]facts.Record
	facts    map[image.Digest]bool
	holders  map[string]bool
	verdicts map[string]facts.Verdict
	blobs    map[string]bool // what the registry holds; nil: everything
	down     error           // the registry's answer to everything
	asked    int             // HEADs
	read     int             // blobs, whole
	lies     bool            // it has the digest of none of the bytes that it sends

	jobs     map[string]work.LayerJob // queued or running, by key
	accepted []work.LayerJob
	losing   int // that many accepted jobs vanish
	onJob    func(work.LayerJob)
}

func newWorld() *world {
	return &world{
		records: map[image.Digest]facts.Record{}, facts: map[image.Digest]bool{}, holders: map[string]bool{},
		verdicts: map[string]facts.Verdict{}, jobs: map[string]work.LayerJob{}, onJob: func(work.LayerJob) {},
	}
}

func at(host, repository string, d image.Digest) string {
	return host + "/" + repository + "@" + string(d)
}

func (w *world) HasFacts(_ context.Context, d image.Digest, a string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return a == analysis && w.facts[d], nil
}

func (w *world) Record(_ context.Context, blob image.Digest) (facts.Record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.records[blob]
	if !ok {
		return r, facts.ErrNotFound
	}
	return r, nil
}

func (w *world) PutHolder(_ context.Context, host, repository string, blob image.Digest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holders[at(host, repository, blob)] = true
	return nil
}

func (w *world) Holds(_ context.Context, host, repository string, blob image.Digest) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.holders[at(host, repository, blob)], nil
}

func (w *world) PutVerdict(_ context.Context, v facts.Verdict) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.verdicts[v.Key] = v
	return nil
}

func (w *world) Verdict(_ context.Context, key string) (facts.Verdict, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.verdicts[key]
	if !ok {
		return v, facts.ErrNotFound
	}
	return v, nil
}

func (w *world) HasBlob(_ context.Context, host, repository string, d image.Digest) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	return w.blobs == nil || w.blobs[at(host, repository, d)], w.down
}

func (w *world) VerifyBlob(_ context.Context, host, repository string, d image.Digest, _ int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read++
	switch {
	case w.down != nil:
		return w.down
	case w.blobs != nil && !w.blobs[at(host, repository, d)]:
		return reason.Refusef(reason.BlobMissing, "404")
	case w.lies:
		return reason.Refusef(reason.DigestMismatch, "other bytes")
	}
	return nil
}

func (w *world) QueueLayer(_ context.Context, j work.LayerJob) (bool, error) {
	w.mu.Lock()
	if _, busy := w.jobs[j.Key]; busy {
		w.mu.Unlock()
		return false, nil
	}
	w.accepted = append(w.accepted, j)
	if w.losing > 0 {
		w.losing--
		w.mu.Unlock()
		return true, nil
	}
	w.jobs[j.Key] = j
	w.mu.Unlock()
	w.onJob(j)
	return true, nil
}

// analyse does what a scanner does with a job, up to its acknowledgement.
func (w *world) analyse(j work.LayerJob) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.put(j.Layer)
	w.holders[at(j.Host, j.Repository, j.Layer.Blob)] = true
	w.holders[at(j.Host, facts.WholeHost, j.Layer.Blob)] = true
	delete(w.jobs, j.Key)
}

// put makes a layer's facts known; its diffID is what the image claims.
func (w *world) put(l image.Layer) {
	w.records[l.Blob] = facts.Record{Blob: l.Blob, DiffID: l.DiffID, Size: l.Size}
	w.facts[l.DiffID] = true
}

func (w *world) join() *Join {
	return New(Config{Store: w, Queue: w, Blobs: w, Recheck: recheck, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
}

func layer(name string) image.Layer {
	return image.Layer{Blob: image.DigestOf([]byte("blob " + name)), DiffID: image.DigestOf([]byte("diff " + name)), Size: int64(len(name))}
}

func need(layers ...image.Layer) Need {
	return Need{
		Image:    image.Image{Reference: image.Reference{Host: "r.example", Repository: "a/b"}, Layers: layers},
		Analysis: analysis, Pool: work.DefaultPool, Lane: work.Push,
		GiveUp:   time.Now().Add(24 * time.Hour),
		Progress: func(context.Context, []image.Digest) {},
	}
}

// later runs fn after everybody has come to rest: time is fake in these tests.
func later(fn func()) { time.AfterFunc(time.Millisecond, fn) }

func wantCounts(t *testing.T, got Result, want finding.LayerCounts) {
	t.Helper()
	if diff := cmp.Diff(want, got.Counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// wantReason checks a decision and answers the verdicts that it names.
func wantReason(t *testing.T, err error, kind reason.Kind, code reason.Code) (verdicts []string) {
	t.Helper()
	e := reason.Of(err)
	if err == nil || e.Kind != kind || e.Code != code {
		t.Fatalf("error %v, want kind %d with %s", err, kind, code)
	}
	return e.Verdicts
}

func TestKnownLayersNeedNoJob(t *testing.T) {
	w := newWorld()
	a, b := layer("a"), layer("b")
	w.put(a)
	w.put(b)
	res, err := w.join().Wait(t.Context(), need(a, b, a))
	if err != nil {
		t.Fatal(err)
	}
	wantCounts(t, res, finding.LayerCounts{Seen: 3, Known: 3})
	if len(w.accepted) != 0 {
		t.Errorf("queued %v", w.accepted)
	}
	if want := map[image.Digest]image.Digest{a.Blob: a.DiffID, b.Blob: b.DiffID}; !maps.Equal(want, res.DiffIDs) {
		t.Errorf("diffIDs %v", res.DiffIDs)
	}
	if w.read != 2 {
		t.Errorf("read %d blobs at the registry, want each once", w.read)
	}
	if _, err := w.join().Wait(t.Context(), need(a, b)); err != nil || w.read != 2 || w.asked != 0 {
		t.Errorf("read again (%d), asked (%d), or failed: %v", w.read, w.asked, err)
	}
}

func TestNoticeEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		j := w.join()
		// The notice comes while the first look is still under way: it must not be lost.
		w.onJob = func(l work.LayerJob) {
			if l.Layer.Blob == layer("a").Blob {
				w.analyse(l)
				j.Notice(work.Notice{Key: l.Key})
				return
			}
			later(func() {
				w.analyse(l)
				j.Notice(work.Notice{Key: l.Key})
			})
		}
		start := time.Now()
		res, err := j.Wait(t.Context(), need(layer("a"), layer("b"), layer("b")))
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took >= soon {
			t.Errorf("took %v: a notice was missed", took)
		}
		if len(w.accepted) != 2 {
			t.Errorf("%d jobs for two blobs", len(w.accepted))
		}
		wantCounts(t, res, finding.LayerCounts{Seen: 3, Known: 1, Analysed: 2}) // the one done at once, too
		if len(j.waiting) != 0 {
			t.Errorf("%d keys still registered", len(j.waiting))
		}
	})
}

// Our job was accepted, but another repository's made the facts: it was done just before, or replaced
// ours in a higher lane. Then the analysis counts there.
func TestAnalysisCountsWhereItWasDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		j := w.join()
		other := func(l work.LayerJob) {
			l.Repository = "other"
			w.analyse(l)
			j.Notice(work.Notice{Key: l.Key})
		}
		w.onJob = func(l work.LayerJob) {
			if l.Layer.Blob == layer("a").Blob {
				other(l)
				return
			}
			later(func() { other(l) })
		}
		res, err := j.Wait(t.Context(), need(layer("a"), layer("b")))
		if err != nil {
			t.Fatal(err)
		}
		wantCounts(t, res, finding.LayerCounts{Seen: 2, Waited: 2})
	})
}

func TestLostNoticesOnlyCostTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.onJob = func(l work.LayerJob) { later(func() { w.analyse(l) }) }
		start := time.Now()
		res, err := w.join().Wait(t.Context(), need(layer("a"), layer("b")))
		if err != nil {
			t.Fatal(err)
		}
		wantCounts(t, res, finding.LayerCounts{Seen: 2, Analysed: 2})
		if took := time.Since(start); took > 2*recheck {
			t.Errorf("took %v", took)
		}
	})
}

// A job that was refused because another was there, or that vanished, must be queued again by somebody:
// asking for its facts alone would wait for ever.
func TestLostJobsAreQueuedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.losing = 2
		j := w.join()
		w.onJob = func(l work.LayerJob) { w.analyse(l); j.Notice(work.Notice{Key: l.Key}) }
		if _, err := j.Wait(t.Context(), need(layer("a"))); err != nil {
			t.Fatal(err)
		}
		if len(w.accepted) != 3 {
			t.Errorf("queued %d times, want 3", len(w.accepted))
		}
	})
}

func TestGapLooksAtEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		j := w.join()
		done := make(chan error, 1)
		start := time.Now()
		go func() {
			_, err := j.Wait(t.Context(), need(layer("a"), layer("b")))
			done <- err
		}()
		synctest.Wait()
		for _, l := range w.accepted {
			w.analyse(l) // its notice is lost
		}
		j.Gap()
		if err := <-done; err != nil || time.Since(start) >= soon {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestSingleFlightAcrossPlanners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		planners := []*Join{w.join(), w.join(), w.join()}
		w.onJob = func(l work.LayerJob) {
			later(func() {
				w.analyse(l)
				for i, p := range planners {
					if i != 2 { // one planner never hears of anything
						p.Notice(work.Notice{Key: l.Key})
					}
				}
			})
		}
		var g errgroup.Group
		var mu sync.Mutex
		var total finding.LayerCounts
		for i := range 60 {
			g.Go(func() error {
				var layers []image.Layer
				for l := range 7 {
					layers = append(layers, layer(fmt.Sprint((i+l)%10)))
				}
				res, err := planners[i%3].Wait(t.Context(), need(layers...))
				mu.Lock()
				defer mu.Unlock()
				total.Seen += res.Counts.Seen
				total.Known += res.Counts.Known
				total.Waited += res.Counts.Waited
				total.Analysed += res.Counts.Analysed
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if len(w.accepted) != 10 || total.Analysed != 10 {
			t.Errorf("%d jobs for 10 blobs, counted %+v", len(w.accepted), total)
		}
		if total.Seen != 420 || total.Seen != total.Known+total.Waited+total.Analysed {
			t.Errorf("counts do not add up: %+v", total)
		}
	})
}

func TestVerdictRefusesTheImage(t *testing.T) {
	l := layer("a")
	k := work.LayerKey(l.Blob, analysis)
	for name, key := range map[string]string{
		"content": facts.VerdictKey(k),
		"source":  facts.SourceVerdictKey(k, "r.example", "a/b", l.Size),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.put(l)
			w.verdicts[key] = facts.Verdict{Key: key, Code: reason.Truncated, Detail: "ends early"}
			_, err := w.join().Wait(t.Context(), need(l))
			verdicts := wantReason(t, err, reason.Refuse, reason.Truncated)
			if !slices.Equal(verdicts, []string{key}) {
				t.Errorf("verdicts %v: a re-drive would not forget it", verdicts)
			}
		})
	}
}

func TestVerdictThatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		j := w.join()
		w.onJob = func(l work.LayerJob) {
			later(func() {
				_ = w.PutVerdict(t.Context(), facts.Verdict{Key: facts.VerdictKey(l.Key), Code: reason.Malformed})
				j.Notice(work.Notice{Key: l.Key, Failed: true})
			})
		}
		_, err := j.Wait(t.Context(), need(layer("a"), layer("b")))
		wantReason(t, err, reason.Refuse, reason.Malformed)
	})
}

// Another repository's broken copy says nothing about ours: our source is tried next, and soon.
func TestAnotherSourceIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		j := w.join()
		l := layer("a")
		k := work.LayerKey(l.Blob, analysis)
		w.jobs[k] = work.LayerJob{Key: k, Host: "r.example", Repository: "broken"}
		w.onJob = func(l work.LayerJob) {
			later(func() { w.analyse(l); j.Notice(work.Notice{Key: l.Key}) })
		}
		start := time.Now()
		later(func() {
			v := facts.Verdict{Key: facts.SourceVerdictKey(k, "r.example", "broken", l.Size), Code: reason.BlobMissing}
			_ = w.PutVerdict(t.Context(), v)
			j.Notice(work.Notice{Key: k, Failed: true}) // and only then the acknowledgement
			later(func() {
				w.mu.Lock()
				defer w.mu.Unlock()
				delete(w.jobs, k)
			})
		})
		res, err := j.Wait(t.Context(), need(l))
		if err != nil {
			t.Fatal(err)
		}
		wantCounts(t, res, finding.LayerCounts{Seen: 1, Analysed: 1})
		if len(w.accepted) != 1 || w.accepted[0].Repository != "a/b" {
			t.Errorf("jobs %+v", w.accepted)
		}
		if took := time.Since(start); took > 2*soon {
			t.Errorf("took %v", took)
		}
	})
}

// Facts of another repository's layer are no use to an image whose repository does not hold it.
func TestFactsOfAnotherRepositoryAreNotReadable(t *testing.T) {
	w := newWorld()
	l := layer("secret")
	w.put(l)
	w.holders[at("r.example", "other", l.Blob)] = true
	w.holders[at("r.example", facts.WholeHost, l.Blob)] = true
	w.blobs = map[string]bool{at("r.example", "other", l.Blob): true}
	_, err := w.join().Wait(t.Context(), need(l))
	verdicts := wantReason(t, err, reason.Refuse, reason.BlobMissing)
	key := facts.SourceVerdictKey(work.LayerKey(l.Blob, analysis), "r.example", "a/b", l.Size)
	if w.verdicts[key].Code != reason.BlobMissing || !slices.Equal(verdicts, []string{key}) {
		t.Errorf("verdicts %v, in the error %v", w.verdicts, verdicts)
	}
	_, err = w.join().Wait(t.Context(), need(l))
	wantReason(t, err, reason.Refuse, reason.BlobMissing)
	if w.asked != 1 {
		t.Errorf("asked the registry %d times, want once", w.asked)
	}
}

// A registry that says yes to every digest learns nothing of layers that others have: neither what is in
// them, nor that somebody has read them, nor what was wrong with them. It is asked for the bytes.
func TestALyingRegistryGainsNothing(t *testing.T) {
	l := layer("secret")
	key := work.LayerKey(l.Blob, analysis)
	wrong := l
	wrong.Size++
	for name, tc := range map[string]struct {
		known func(*world)
		claim image.Layer
	}{
		"facts": {func(w *world) { w.put(l) }, l},
		"a verdict": {func(w *world) {
			w.verdicts[key] = facts.Verdict{Key: key, Code: reason.AnalysisFailed, Detail: "secret"}
		}, l},
		"another size":  {func(w *world) { w.put(l) }, wrong},
		"a lying host":  {func(w *world) { w.put(l); w.holders[at("r.example", "elsewhere", l.Blob)] = true }, l},
		"another's own": {func(w *world) { w.put(l); w.holders[at("other.example", facts.WholeHost, l.Blob)] = true }, l},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			tc.known(w)
			w.lies = true
			res, err := w.join().Wait(t.Context(), need(tc.claim))
			wantReason(t, err, reason.Refuse, reason.DigestMismatch)
			if strings.Contains(err.Error(), "secret") || len(res.DiffIDs) > 0 || res.Counts.Known > 0 {
				t.Errorf("it learns %v of %+v", err, res)
			}
			if w.read != 1 || w.asked != 0 {
				t.Errorf("%d readings and %d questions, want one reading", w.read, w.asked)
			}
			for at := range w.holders {
				if strings.HasPrefix(at, "r.example/a/b") || strings.HasPrefix(at, "r.example/*") {
					t.Errorf("it is remembered as a holder: %s", at)
				}
			}
		})
	}
}

// A host that has sent the bytes once is asked from then on: it keeps its repositories apart by itself.
func TestAHostIsReadOnce(t *testing.T) {
	w := newWorld()
	l := layer("shared")
	w.put(l)
	j := w.join()
	for i, repository := range []string{"a/b", "a/c", "a/b"} {
		n := need(l)
		n.Image.Repository = repository
		if _, err := j.Wait(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if w.read != 1 || w.asked != min(i, 1) {
			t.Errorf("after %d images: %d readings, %d questions", i+1, w.read, w.asked)
		}
	}
	if len(j.readings.hosts) != 0 {
		t.Errorf("%d hosts are still counted", len(j.readings.hosts))
	}
}

// A manifest that lies about a blob's size has nothing remembered against one that does not.
func TestVerdictOnAnotherSizeIsNotOurs(t *testing.T) {
	w := newWorld()
	l := layer("a")
	key := facts.SourceVerdictKey(work.LayerKey(l.Blob, analysis), "r.example", "a/b", l.Size+1)
	w.verdicts[key] = facts.Verdict{Key: key, Code: reason.SizeMismatch}
	w.onJob = w.analyse
	if _, err := w.join().Wait(t.Context(), need(l)); err != nil {
		t.Error(err)
	}
}

func TestSizeThatTheManifestClaims(t *testing.T) {
	w := newWorld()
	l := layer("a")
	w.put(l)
	l.Size = 7
	_, err := w.join().Wait(t.Context(), need(l))
	wantReason(t, err, reason.Refuse, reason.SizeMismatch)
}

func TestJobIsComplete(t *testing.T) {
	w := newWorld()
	w.onJob = w.analyse
	n := need(layer("a"))
	n.Lane, n.Origin = work.Interactive, work.Origin{Request: "7-x"}
	if _, err := w.join().Wait(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	l := layer("a")
	want := []work.LayerJob{{
		Key: work.LayerKey(l.Blob, analysis), Analysis: analysis, Host: "r.example", Repository: "a/b",
		Layer: l, Pool: work.DefaultPool, Class: work.XS, Lane: work.Interactive, Origin: n.Origin,
	}}
	if diff := cmp.Diff(want, w.accepted); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
}

func TestStaleAnalysisBeginsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stale := make(chan struct{})
		n := need(layer("a"))
		n.Stale = stale
		later(func() { close(stale) })
		_, err := newWorld().join().Wait(t.Context(), n)
		wantReason(t, err, reason.Retry, reason.WrongAnalysis)
	})
}

func TestEndOfContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		j := newWorld().join()
		later(cancel)
		if _, err := j.Wait(ctx, need(layer("a"))); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if len(j.waiting) != 0 {
			t.Errorf("%d keys still registered", len(j.waiting))
		}
	})
}

func TestGivingUpNeedsASilentRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		n := need(layer("a"))
		n.GiveUp = time.Now().Add(5 * recheck)
		start := time.Now()
		time.AfterFunc(20*recheck, func() { // no scanner comes for a long time, but the registry is there
			w.mu.Lock()
			defer w.mu.Unlock()
			w.down = reason.Retryf(reason.Unreachable, "no answer")
		})
		_, err := w.join().Wait(t.Context(), n)
		wantReason(t, err, reason.Retry, reason.Unreachable)
		if took := time.Since(start); took < 20*recheck || took > 22*recheck {
			t.Errorf("gave up after %v", took)
		}
	})
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(layer("known"))
		n := need(layer("known"), layer("b"), layer("a"), layer("b"))
		ctx, cancel := context.WithCancel(t.Context())
		var told [][]image.Digest
		n.Progress = func(_ context.Context, missing []image.Digest) {
			if told = append(told, missing); len(told) == 3 {
				cancel()
			}
		}
		_, _ = w.join().Wait(ctx, n)
		want := []image.Digest{layer("b").Blob, layer("a").Blob}
		if diff := cmp.Diff([][]image.Digest{want, want, want}, told); diff != "" {
			t.Errorf("progress (-want +got):\n%s", diff)
		}
	})
}
