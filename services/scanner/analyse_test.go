package scanner

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/work"
)

// notices collects what planners are told.
func (h *bench) notices(t *testing.T) <-chan work.Notice {
	t.Helper()
	ch := make(chan work.Notice, 16)
	stop, err := h.bus.Notices(t.Context(), func(n work.Notice) { ch <- n }, func() {})
	must(t, err)
	t.Cleanup(stop)
	return ch
}

func wantNotice(t *testing.T, ch <-chan work.Notice, want work.Notice) {
	t.Helper()
	select {
	case n := <-ch:
		if n != want {
			t.Fatalf("notice %+v, want %+v", n, want)
		}
	case <-time.After(patience):
		t.Fatal("no notice")
	}
}

func TestLayerBecomesFacts(t *testing.T) {
	h := newBench(t, Config{})
	notices := h.notices(t)
	h.registry.body = "a layer"
	job := layerJob(h.registry.body)
	must(t, h.analyse(t.Context(), job, first))
	wantNotice(t, notices, work.Notice{Key: job.Key})

	rec, err := h.facts.Record(t.Context(), job.Layer.Blob)
	must(t, err)
	if rec.Size != job.Layer.Size {
		t.Errorf("record %+v", rec)
	}
	l, err := h.facts.Facts(t.Context(), rec.DiffID, analysis)
	must(t, err)
	if l.Size != 7 {
		t.Errorf("facts %+v", l)
	}
	if held, err := h.facts.Holds(t.Context(), host, repository, job.Layer.Blob); err != nil || !held {
		t.Errorf("holder not kept: %v", err)
	}

	// Again, as after a crash before the acknowledgement: told, but not read.
	must(t, h.analyse(t.Context(), job, bus.Delivery{Attempt: 2, Opened: 99, Queued: noon}))
	wantNotice(t, notices, work.Notice{Key: job.Key})
	if h.analyzer.calls != 1 {
		t.Errorf("analysed %d times", h.analyzer.calls)
	}
}

func TestLayerFails(t *testing.T) {
	shared := bustest.New(t, bus.Config{}, bus.Options{})
	late := bus.Delivery{Attempt: giveUpAttempts, Failed: giveUpAttempts - 1, Queued: noon.Add(-25 * time.Hour)}
	down := reason.Retryf(reason.Unreachable, "no answer")
	broken := reason.Refusef(reason.Malformed, "no tar")
	for name, c := range map[string]struct {
		registry fakeRegistry
		analyzer analyses
		d        bus.Delivery
		kind     reason.Kind
		code     reason.Code
		content  bool // the verdict is on the bytes
		source   bool // the verdict is on this repository
	}{
		"denied":                       {registry: fakeRegistry{open: reason.Refusef(reason.Denied, "403")}, d: first, kind: reason.Refuse, code: reason.Denied, source: true},
		"not there":                    {registry: fakeRegistry{open: reason.Refusef(reason.BlobMissing, "404")}, d: first, kind: reason.Refuse, code: reason.BlobMissing, source: true},
		"other bytes":                  {registry: fakeRegistry{end: reason.Refusef(reason.DigestMismatch, "x")}, d: first, kind: reason.Refuse, code: reason.DigestMismatch, source: true},
		"other bytes that are no tar":  {registry: fakeRegistry{end: reason.Refusef(reason.SizeMismatch, "x")}, analyzer: analyses{err: broken}, d: first, kind: reason.Refuse, code: reason.SizeMismatch, source: true},
		"the right bytes are no tar":   {analyzer: analyses{err: broken}, d: first, kind: reason.Refuse, code: reason.Malformed, content: true},
		"refused before the end":       {analyzer: analyses{err: broken, lazy: true}, d: first, kind: reason.Refuse, code: reason.Malformed, source: true},
		"poison":                       {d: bus.Delivery{Attempt: 6, Opened: 5, Queued: noon}, kind: reason.Poison, code: reason.PoisonWork, content: true},
		"registry is down":             {registry: fakeRegistry{open: down}, d: first, kind: reason.Retry, code: reason.Unreachable},
		"breaks off":                   {registry: fakeRegistry{end: down}, d: first, kind: reason.Retry, code: reason.Unreachable},
		"breaks off for a day":         {registry: fakeRegistry{end: down}, d: late, kind: reason.Refuse, code: reason.Unreachable, source: true},
		"queued for a day":             {registry: fakeRegistry{end: down}, d: bus.Delivery{Attempt: 1, Queued: late.Queued}, kind: reason.Retry, code: reason.Unreachable},
		"paused for a day":             {registry: fakeRegistry{end: down}, d: bus.Delivery{Attempt: 99, Failed: 1, Queued: late.Queued}, kind: reason.Retry, code: reason.Unreachable},
		"our own fault":                {analyzer: analyses{err: errors.New("disk full")}, d: first, kind: reason.Retry, code: reason.Internal},
		"facts without an end":         {analyzer: analyses{lazy: true}, d: first, kind: reason.Retry, code: reason.Internal},
		"another Java index meanwhile": {analyzer: analyses{as: "other"}, d: late, kind: reason.Retry, code: reason.WrongAnalysis},
	} {
		t.Run(name, func(t *testing.T) {
			h := benchOn(t, shared, Config{})
			notices := h.notices(t)
			content := name // a blob of its own
			*h.registry = c.registry
			h.registry.body = content
			h.analyzer.analyses = c.analyzer
			job := layerJob(content)
			e := wantReason(t, h.analyse(t.Context(), job, c.d), c.kind, c.code)

			byContent := facts.VerdictKey(job.Key)
			bySource := facts.SourceVerdictKey(job.Key, host, repository, job.Layer.Size)
			for key, want := range map[string]bool{byContent: c.content, bySource: c.source} {
				v, err := h.facts.Verdict(t.Context(), key)
				if got := err == nil; got != want {
					t.Errorf("verdict under %s: %v (%v), want %v", key, got, err, want)
				}
				if want && (v.Code != c.code || v.Detail == "" || !v.At.Equal(noon)) {
					t.Errorf("verdict %+v", v)
				}
				if want && (len(e.Verdicts) != 1 || e.Verdicts[0] != key) {
					t.Errorf("the dead letter would forget %v", e.Verdicts)
				}
			}
			if _, err := h.facts.Record(t.Context(), job.Layer.Blob); !errors.Is(err, facts.ErrNotFound) {
				t.Errorf("something was recorded: %v", err)
			}
			if !c.content && !c.source {
				return
			}
			wantNotice(t, notices, work.Notice{Key: job.Key, Failed: true})
			// It is remembered: nobody reads it again, and the planners are told again.
			calls := h.analyzer.calls
			must(t, h.analyse(t.Context(), job, first))
			wantNotice(t, notices, work.Notice{Key: job.Key, Failed: true})
			if h.analyzer.calls != calls {
				t.Error("it was read again")
			}
		})
	}
}

func TestLayerOfAnotherVersion(t *testing.T) {
	h := newBench(t, Config{})
	job := layerJob("x")
	job.Analysis = strings.Repeat("0", 64)
	e := wantReason(t, h.analyse(t.Context(), job, first), reason.Retry, reason.WrongAnalysis)
	if e.RetryAfter <= 0 {
		t.Error("handed back without a delay: it would go round")
	}
	if err := h.analyse(t.Context(), job, bus.Delivery{Attempt: 9, Queued: noon.Add(-2 * time.Hour)}); err != nil {
		t.Errorf("nobody took it for two hours, and it still blocks its key: %v", err)
	}
	if h.analyzer.calls != 0 {
		t.Error("it was analysed")
	}
}

// away is a fact store of which one method fails.
type away struct {
	store
	method string
}

type store Facts // embedded under a name that none of its methods has

var errAway = reason.Retryf(reason.CacheUnavailable, "away")

func (a away) fails(method string) error {
	if a.method == method {
		return errAway
	}
	return nil
}

func (a away) Verdict(ctx context.Context, k string) (facts.Verdict, error) {
	if err := a.fails("Verdict"); err != nil {
		return facts.Verdict{}, err
	}
	return a.store.Verdict(ctx, k)
}

func (a away) PutVerdict(ctx context.Context, v facts.Verdict) error {
	if err := a.fails("PutVerdict"); err != nil {
		return err
	}
	return a.store.PutVerdict(ctx, v)
}

func (a away) Record(ctx context.Context, d image.Digest) (facts.Record, error) {
	if err := a.fails("Record"); err != nil {
		return facts.Record{}, err
	}
	return a.store.Record(ctx, d)
}

func (a away) PutFacts(ctx context.Context, l facts.Layer) error {
	if err := a.fails("PutFacts"); err != nil {
		return err
	}
	return a.store.PutFacts(ctx, l)
}

func (a away) PutRecord(ctx context.Context, r facts.Record) error {
	if err := a.fails("PutRecord"); err != nil {
		return err
	}
	return a.store.PutRecord(ctx, r)
}

func (a away) PutHolder(ctx context.Context, host, repository string, d image.Digest) error {
	if err := a.fails("PutHolder"); err != nil {
		return err
	}
	return a.store.PutHolder(ctx, host, repository, d)
}

// A cache that is away costs a retry: never a verdict, never a notice.
func TestLayerWhileTheCacheIsAway(t *testing.T) {
	shared := bustest.New(t, bus.Config{}, bus.Options{})
	for _, method := range []string{"Verdict", "Record", "PutFacts", "PutRecord", "PutHolder", "PutVerdict"} {
		t.Run(method, func(t *testing.T) {
			h := benchOn(t, shared, Config{})
			notices := h.notices(t)
			h.registry.body = method
			if method == "PutVerdict" {
				h.registry.open = reason.Refusef(reason.Denied, "403")
			}
			there := h.Service.facts
			h.Service.facts = away{there, method}
			wantReason(t, h.analyse(t.Context(), layerJob(method), first), reason.Retry, reason.CacheUnavailable)
			select {
			case n := <-notices:
				t.Errorf("planners were told %+v", n)
			default:
			}
			if method == "PutVerdict" {
				return
			}
			h.Service.facts = there
			must(t, h.analyse(t.Context(), layerJob(method), first))
		})
	}
}
