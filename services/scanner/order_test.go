package scanner

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Whatever the order in which the matches of a track arrive, however often each comes again, on
// whichever of two databases: the state ends where the track is, on the newest database that judged it;
// every revision of every finding is told once; and folding what was told gives the state.
func TestOrderDoesNotMatter(t *testing.T) {
	h := newBench(t, Config{})
	databases := []vulndb.Pointer{dbOne, dbTwo}
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		var err error
		if h.seen, err = h.bus.LastDelta(t.Context()); err != nil {
			t.Fatal(err)
		}
		track := fmt.Sprintf("t%d", run)
		type delivery struct {
			job      work.MatchJob
			database int
		}
		var all []delivery
		last := uint64(rapid.IntRange(1, 4).Draw(t, "generations"))
		for g := uint64(1); g <= last; g++ {
			job := matchJob(fmt.Sprintf("%s %d", track, rapid.IntRange(0, 2).Draw(t, "image")), track, g)
			if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
				job = closeJob(track, g)
			}
			for db := range databases {
				for range rapid.IntRange(0, 2).Draw(t, "deliveries") {
					all = append(all, delivery{job, db})
				}
			}
			all = append(all, delivery{job, len(databases) - 1})
		}
		for i := range 3 { // what is in an image does not change with the order
			ids := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"CVE-2021-1", "CVE-2021-2", "GHSA-a"}), rapid.ID[string]).Draw(t, "found")
			h.matcher.finds(image.DigestOf([]byte(fmt.Sprintf("%s %d", track, i))), ids...)
		}
		for _, d := range rapid.Permutation(all).Draw(t, "order") {
			h.databases.set(databases[d.database])
			if err := h.judge(t.Context(), d.job, bus.Delivery{Attempt: 2, Queued: noon}); err != nil {
				t.Fatal(err)
			}
		}

		s, _, err := h.bus.State(t.Context(), finding.ClassVuln, assetOf(track))
		if err != nil {
			t.Fatal(err)
		}
		final := all[len(all)-1].job
		if s.Generation != last || s.Image != final.Image.Digest || len(s.Pending) != 0 {
			t.Fatalf("state of generation %d, image %s, %d pending; want %d, %s", s.Generation, s.Image, len(s.Pending), last, final.Image.Digest)
		}
		var open []string
		for _, f := range s.Open {
			open = append(open, f.Vulnerability)
		}
		want := slices.Clone(h.matcher.vulns[final.Image.Digest])
		slices.Sort(open)
		slices.Sort(want)
		if !slices.Equal(open, want) {
			t.Fatalf("open %v, want %v", open, want)
		}
		var fold finding.State
		for _, d := range h.deltasOf(t, track) {
			seen := fold.Resolved[d.Finding.ID]
			for _, f := range fold.Open {
				if f.ID == d.Finding.ID {
					seen = f.Revision
				}
			}
			if d.Finding.Revision != seen+1 {
				t.Fatalf("revision %d of %s after %d", d.Finding.Revision, d.Finding.Vulnerability, seen)
			}
			if err := finding.Fold(&fold, d); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(openOf(s), openOf(fold)); diff != "" {
			t.Fatalf("folding FINDINGS does not give STATE: %s", diff)
		}
	})
}
