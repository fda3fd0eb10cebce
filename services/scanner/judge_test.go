package scanner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

func told(list []finding.Delta) (out []string) {
	for _, d := range list {
		t := fmt.Sprintf("%s %s r%d", d.Transition, d.Finding.Vulnerability, d.Finding.Revision)
		if d.Resolution != "" {
			t += " " + string(d.Resolution)
		}
		out = append(out, t)
	}
	return out
}

func wantDeltas(t *testing.T, got []finding.Delta, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, told(got)); diff != "" {
		t.Fatal(diff)
	}
}

// From the first push to the deletion: every step tells what changed, once.
func TestJudgingAnAsset(t *testing.T) {
	h := newBench(t, Config{})
	a := matchJob("a", "main", 1)
	a.Layers = finding.LayerCounts{Seen: 3, Known: 2, Analysed: 1}
	h.matcher.finds(a.Image.Digest, "CVE-2021-1")
	must(t, h.judge(t.Context(), a, first))
	wantDeltas(t, h.deltas(t), "opened CVE-2021-1 r1")

	r, err := h.bus.Report(t.Context(), a.Image.Digest, amd64)
	must(t, err)
	if r.Outcome != report.Findings || r.Database.Digest != dbOne.Digest {
		t.Errorf("report %+v", r)
	}
	s := h.state(t, "main")
	if len(s.Open) != 1 || len(s.Pending) != 0 || s.Generation != 1 || s.Image != a.Image.Digest || s.Outcome != report.Findings {
		t.Errorf("state %+v", s)
	}
	scans := h.scans(t)
	if len(scans) != 1 || scans[0].Opened != 1 || scans[0].Counts.High != 1 || scans[0].Outcome != report.Findings || scans[0].Layers != a.Layers ||
		scans[0].Cause != event.CausePush || !scans[0].Received.Equal(noon) {
		t.Errorf("scans %+v", scans)
	}

	// A redelivery, and a rebuild that changes nothing.
	must(t, h.judge(t.Context(), a, bus.Delivery{Attempt: 2, Queued: noon}))
	rebuilt := matchJob("rebuilt", "main", 2)
	h.matcher.finds(rebuilt.Image.Digest, "CVE-2021-1")
	must(t, h.judge(t.Context(), rebuilt, first))
	wantDeltas(t, h.deltas(t), "opened CVE-2021-1 r1")
	if got := h.state(t, "main"); got.Generation != 2 || got.Image != rebuilt.Image.Digest {
		t.Errorf("the state did not follow: %+v", got)
	}

	// A newer database, then a match that was late on the older one.
	h.databases.set(dbTwo)
	h.matcher.finds(rebuilt.Image.Digest, "CVE-2021-1", "CVE-2021-2")
	rematch := rebuilt
	rematch.Database, rematch.Origin.Cause = dbTwo.Digest, event.CauseRematch
	must(t, h.judge(t.Context(), rematch, first))
	all := h.deltas(t)
	wantDeltas(t, all, "opened CVE-2021-1 r1", "opened CVE-2021-2 r1")
	if all[1].Cause != event.CauseRematch || all[1].Database.Digest != dbTwo.Digest {
		t.Errorf("delta %+v", all[1])
	}
	h.databases.set(dbOne)
	h.matcher.finds(rebuilt.Image.Digest)
	late := matchJob("rebuilt", "main", 2)
	must(t, h.judge(t.Context(), late, first))
	wantDeltas(t, h.deltas(t), "opened CVE-2021-1 r1", "opened CVE-2021-2 r1")
	h.databases.set(dbTwo)

	// The track moves on; an image of an older generation has a report and a scan, and no say.
	next := matchJob("next", "main", 4)
	h.matcher.finds(next.Image.Digest, "CVE-2021-2")
	must(t, h.judge(t.Context(), next, first))
	old := matchJob("old", "main", 3)
	h.matcher.finds(old.Image.Digest, "CVE-2021-9")
	must(t, h.judge(t.Context(), old, first))
	wantDeltas(t, h.deltas(t), "opened CVE-2021-1 r1", "opened CVE-2021-2 r1", "resolved CVE-2021-1 r2 withdrawn")
	if _, err := h.bus.Report(t.Context(), old.Image.Digest, amd64); err != nil {
		t.Errorf("no report on an image of an older generation: %v", err)
	}
	scans = h.scans(t)
	if last := scans[len(scans)-1]; last.Reason != reason.Superseded || last.Opened != 0 || last.Generation != 3 {
		t.Errorf("scan %+v", last)
	}

	// A partial one resolves nothing.
	partial := matchJob("partial", "main", 5)
	h.matcher.outcome = report.Partial
	must(t, h.judge(t.Context(), partial, first))
	h.matcher.outcome = ""
	if s := h.state(t, "main"); len(s.Open) != 1 || s.Outcome != report.Partial {
		t.Errorf("state %+v", s)
	}

	// Deleted; and a match that was on its way.
	must(t, h.judge(t.Context(), closeJob("main", 7), first))
	late = matchJob("late", "main", 6)
	h.matcher.finds(late.Image.Digest, "CVE-2021-3")
	must(t, h.judge(t.Context(), late, first))
	wantDeltas(t, h.deltas(t), "opened CVE-2021-1 r1", "opened CVE-2021-2 r1", "resolved CVE-2021-1 r2 withdrawn", "resolved CVE-2021-2 r2 deleted")
	if s := h.state(t, "main"); len(s.Open) != 0 || s.Outcome != report.Closed || s.Generation != 7 {
		t.Errorf("state %+v", s)
	}
}

// What was never judged can be deleted: a match that comes late finds that it is late.
func TestCloseBeforeTheFirstMatch(t *testing.T) {
	h := newBench(t, Config{})
	must(t, h.judge(t.Context(), closeJob("main", 2), first))
	j := matchJob("a", "main", 1)
	h.matcher.finds(j.Image.Digest, "CVE-2021-1")
	must(t, h.judge(t.Context(), j, first))
	wantDeltas(t, h.deltas(t))
	var outcomes []report.Outcome
	for _, s := range h.scans(t) {
		outcomes = append(outcomes, s.Outcome)
	}
	if diff := cmp.Diff([]report.Outcome{report.Closed, report.Findings}, outcomes); diff != "" {
		t.Error(diff)
	}
	bad := closeJob("main", 3)
	bad.Asset = nil
	wantReason(t, h.judge(t.Context(), bad, first), reason.Refuse, reason.Malformed)
}

func TestReportOnly(t *testing.T) {
	h := newBench(t, Config{})
	j := matchJob("a", "", 0)
	j.Asset = nil
	h.matcher.finds(j.Image.Digest, "CVE-2021-1")
	must(t, h.judge(t.Context(), j, first))
	wantDeltas(t, h.deltas(t))
	if scans := h.scans(t); len(scans) != 1 || scans[0].Asset != nil || scans[0].Counts.High != 1 {
		t.Errorf("scans %+v", scans)
	}
	if _, err := h.bus.Report(t.Context(), j.Image.Digest, amd64); err != nil {
		t.Error(err)
	}
}

// A process that dies at any write, before or after it, costs nothing: the next attempt ends with the
// same deltas, state and scan as if nothing had happened.
func TestJudgeDiesAnywhere(t *testing.T) {
	server := newBench(t, Config{})
	nc := server.dial()
	scenario := func(track string) (before, at work.MatchJob) {
		before, at = matchJob("before "+track, track, 1), matchJob("at "+track, track, 2)
		at.Origin.Request = fmt.Sprintf("%d-0123456789abcdef", at.Generation)
		server.matcher.finds(before.Image.Digest, "CVE-2021-1", "CVE-2021-2")
		server.matcher.finds(at.Image.Digest, "CVE-2021-2", "CVE-2021-3")
		return before, at
	}
	want := []string{"opened CVE-2021-1 r1", "opened CVE-2021-2 r1", "opened CVE-2021-3 r1", "resolved CVE-2021-1 r2 withdrawn"}

	dies := func(t *testing.T, n int) (died bool) {
		track := fmt.Sprintf("t%d", n)
		before, at := scenario(track)
		must(t, server.judge(t.Context(), before, first))
		for _, k := range fateKeys(at) { // as the planner leaves them
			must(t, server.bus.UpdateFate(t.Context(), k, func(f *fate.Fate) {
				*f = fate.Fate{Reference: at.Image.Reference}
				f.SetImage(fate.Image{Digest: at.Image.Digest, Platform: amd64, Stage: fate.Matching})
			}))
		}
		ops := 0
		mortal, err := bus.New(nc, bus.Config{}, bus.Options{Logger: server.log, Fault: func(string, bus.Phase) error {
			if ops++; ops == n {
				died = true
				return errors.New("killed")
			}
			return nil
		}})
		must(t, err)
		h := benchOn(t, mortal, Config{})
		h.matcher.vulns = server.matcher.vulns
		err = h.judge(t.Context(), at, first)
		if died == (err == nil) {
			t.Fatalf("killed at operation %d: %v, judge: %v", n, died, err)
		}
		must(t, server.judge(t.Context(), at, bus.Delivery{Attempt: 2, Queued: noon}))

		var mine []finding.Delta
		var fold finding.State
		for _, d := range server.deltasOf(t, track) {
			mine = append(mine, d)
			must(t, finding.Fold(&fold, d))
		}
		got := told(mine)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("killed at operation %d: %s", n, diff)
		}
		s := server.state(t, track)
		if len(s.Pending) != 0 || s.Generation != 2 {
			t.Fatalf("killed at operation %d: state %+v", n, s)
		}
		if diff := cmp.Diff(openOf(s), openOf(fold)); diff != "" {
			t.Fatalf("killed at operation %d: folding FINDINGS does not give STATE: %s", n, diff)
		}
		var scans []finding.Scan
		for _, s := range server.scans(t) {
			if s.Asset.Track == track && s.Generation == 2 {
				scans = append(scans, s)
			}
		}
		if len(scans) != 1 || scans[0].Opened != 1 || scans[0].Resolved != 1 || scans[0].Changed != 0 {
			t.Fatalf("killed at operation %d: scans %+v", n, scans)
		}
		for _, k := range fateKeys(at) {
			if f, err := server.bus.Fate(t.Context(), k); err != nil || f.Stage != fate.Decided {
				t.Fatalf("killed at operation %d: fate %+v, %v", n, f, err)
			}
		}
		return died
	}
	n := 1
	for ; dies(t, n); n++ {
	}
	if n <= 2*8 { // report, state, two deltas, scan, state, two fates
		t.Errorf("only %d operations were killed", n-1)
	}
}

func openOf(s finding.State) (out []finding.Finding) {
	for _, f := range s.Open {
		out = append(out, f.Told())
	}
	return out
}

// An image whose facts are gone is planned again; while that is refused, the match is kept.
func TestFactsAreGone(t *testing.T) {
	h := newBench(t, Config{})
	j := matchJob("a", "main", 1)
	layer := image.Layer{Blob: image.DigestOf([]byte("blob")), DiffID: image.DigestOf([]byte("diff")), Size: 4}
	j.Image.Layers = []image.Layer{layer}
	j.Image.Index = image.DigestOf([]byte("index"))
	must(t, h.judge(t.Context(), j, first))
	if err := h.judge(t.Context(), j, first); !errors.Is(err, bus.ErrBusy) {
		t.Errorf("refused, and yet: %v", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var planned work.ImageJob
	must(t, h.bus.ConsumeImages(ctx, 1, func(_ context.Context, p work.ImageJob, _ bus.Delivery) error {
		planned = p
		cancel()
		return nil
	}))
	if planned.Reference != j.Image.Reference || planned.Platform == nil || *planned.Platform != amd64 || planned.Index != j.Image.Index ||
		planned.Asset == nil || *planned.Asset != *j.Asset || planned.Generation != 1 || planned.Lane != work.Push {
		t.Errorf("planned %+v", planned)
	}

	must(t, h.facts.PutFacts(t.Context(), facts.Layer{DiffID: layer.DiffID, Analysis: analysis, Blob: []byte(`{}`)}))
	must(t, h.judge(t.Context(), j, first))
	if h.matcher.layers != 1 {
		t.Errorf("matched with the facts of %d layers", h.matcher.layers)
	}
	h.Service.facts = awayFacts{h.Service.facts}
	wantReason(t, h.judge(t.Context(), j, first), reason.Retry, reason.CacheUnavailable)
}

type awayFacts struct{ store }

func (awayFacts) Facts(context.Context, image.Digest, string) (facts.Layer, error) {
	return facts.Layer{}, errAway
}

// One database, another, and the first again: what is judged on the first under its old sequence would
// lose against the state that the other left.
func TestMatchWaitsForADatabaseThatComesBack(t *testing.T) {
	h := newBench(t, Config{})
	j := matchJob("a", "main", 1)
	var back vulndb.Pointer
	for _, p := range []vulndb.Pointer{dbOne, dbTwo, dbOne} {
		var err error
		if back, err = h.bus.PutPointer(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	h.databases.set(dbOne)
	j.Database = dbOne.Digest
	wantReason(t, h.judge(t.Context(), j, first), reason.Retry, reason.NoDatabase)
	h.databases.set(back)
	must(t, h.judge(t.Context(), j, first))
}

func TestMatchWaitsForItsDatabase(t *testing.T) {
	h := newBench(t, Config{})
	j := matchJob("a", "main", 1)
	delete(h.databases.in, vulndb.Vulnerabilities)
	wantReason(t, h.judge(t.Context(), j, first), reason.Retry, reason.NoDatabase)

	// Queued for a database that this scanner does not have yet.
	h.databases.set(dbOne)
	j.Database = dbTwo.Digest
	if _, err := h.bus.PutPointer(t.Context(), dbOne); err != nil {
		t.Fatal(err)
	}
	if _, err := h.bus.PutPointer(t.Context(), dbTwo); err != nil {
		t.Fatal(err)
	}
	wantReason(t, h.judge(t.Context(), j, first), reason.Retry, reason.NoDatabase)

	// It is loaded while the job waits in its slot.
	h.cfg.DatabaseWait = patience
	done := make(chan error)
	go func() { done <- h.judge(t.Context(), j, first) }()
	h.databases.set(dbTwo)
	h.loaded.give()
	must(t, <-done)

	// Queued for one that has been replaced since.
	j.Database = dbOne.Digest
	must(t, h.judge(t.Context(), j, first))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	delete(h.databases.in, vulndb.Vulnerabilities)
	if err := h.judge(ctx, j, first); !errors.Is(err, context.Canceled) {
		t.Errorf("a drained scanner goes on waiting: %v", err)
	}
}

func TestMatchFails(t *testing.T) {
	h := newBench(t, Config{})
	good := matchJob("a", "main", 1)
	h.matcher.finds(good.Image.Digest, "CVE-2021-1")
	must(t, h.judge(t.Context(), good, first))
	before := h.state(t, "main")

	h.matcher.err = reason.Retryf(reason.FactsMissing, "damaged")
	again := matchJob("b", "main", 2)
	wantReason(t, h.judge(t.Context(), again, first), reason.Retry, reason.FactsMissing)
	wantReason(t, h.judge(t.Context(), again, bus.Delivery{Attempt: giveUpAttempts, Failed: giveUpAttempts - 1, Queued: noon.Add(-25 * time.Hour)}), reason.Refuse, reason.FactsMissing)
	h.matcher.err = reason.Refusef(reason.Malformed, "no facts")
	wantReason(t, h.judge(t.Context(), good, first), reason.Refuse, reason.Malformed)
	h.matcher.err = nil
	wantReason(t, h.judge(t.Context(), matchJob("c", "main", 3), bus.Delivery{Attempt: 6, Opened: 5, Queued: noon}), reason.Poison, reason.PoisonWork)

	if r, err := h.bus.Report(t.Context(), again.Image.Digest, amd64); err != nil || r.Outcome != report.Failed || r.Reason != reason.FactsMissing || r.Detail == "" {
		t.Errorf("report on a failed image: %+v, %v", r, err)
	}
	if r, err := h.bus.Report(t.Context(), good.Image.Digest, amd64); err != nil || r.Outcome != report.Findings {
		t.Errorf("a failure replaced a good report: %+v, %v", r, err)
	}
	if diff := cmp.Diff(before, h.state(t, "main")); diff != "" {
		t.Errorf("a failure changed the state: %s", diff)
	}
	var failed []reason.Code
	for _, s := range h.scans(t) {
		if s.Outcome == report.Failed {
			failed = append(failed, s.Reason)
		}
	}
	if diff := cmp.Diff([]reason.Code{reason.FactsMissing, reason.Malformed, reason.PoisonWork}, failed); diff != "" {
		t.Error(diff)
	}
}

func TestFates(t *testing.T) {
	h := newBench(t, Config{})
	j := matchJob("a", "main", 1)
	j.Origin.Request = "42-0123456789abcdef"
	keys := fateKeys(j)
	mine := fate.Image{Digest: j.Image.Digest, Platform: amd64, Stage: fate.Matching}
	other := fate.Image{Digest: image.DigestOf([]byte("other")), Platform: amd64, Stage: fate.Waiting}
	set := func(key string, images ...fate.Image) {
		must(t, h.bus.UpdateFate(t.Context(), key, func(f *fate.Fate) {
			*f = fate.Fate{Reference: j.Image.Reference, Stage: fate.Matching, Images: images}
		}))
	}
	get := func(key string) fate.Fate {
		f, err := h.bus.Fate(t.Context(), key)
		must(t, err)
		return f
	}

	// The reference has gone on to another image; the submission waits for this one.
	set(keys[0], other)
	set(keys[1], mine, other)
	h.matcher.err = reason.Retryf(reason.Internal, "full disk")
	wantReason(t, h.judge(t.Context(), j, bus.Delivery{Attempt: 3, Failed: 2, Queued: noon}), reason.Retry, reason.Internal)
	if f := get(keys[1]); f.Attempts != 3 || f.LastError == "" || f.Stage != fate.Matching {
		t.Errorf("after a failed attempt: %+v", f)
	}
	h.matcher.err = nil
	must(t, h.judge(t.Context(), j, first))
	if f := get(keys[0]); len(f.Images) != 1 || f.Images[0].Stage != fate.Waiting {
		t.Errorf("the reference's: %+v", f)
	}
	f := get(keys[1])
	if f.Stage != fate.Waiting || f.Images[0].Stage != fate.Decided || f.Images[0].Outcome != report.Clean || f.LastError != "" {
		t.Errorf("the submission's: %+v", f)
	}

	// A record that has expired is begun anew.
	fresh := matchJob("a", "fresh", 1)
	must(t, h.judge(t.Context(), fresh, first))
	if f := get(fateKeys(fresh)[0]); f.Stage != fate.Decided || f.Reference != fresh.Image.Reference {
		t.Errorf("a new one: %+v", f)
	}
}
