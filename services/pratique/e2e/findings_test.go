package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

// An image is pushed, its findings arrive; a rebuild that fixes packages resolves them; deleting the tag
// resolves the rest.
func TestPushRebuildDelete(t *testing.T) { inBoth(t, pushRebuildDelete) }

func pushRebuildDelete(t *testing.T, start wiring) {
	p := start(t, options{})
	first, rebuilt := demoImages(t)
	p.push(first...)
	p.settle()
	for key, r := range p.reports(first...) {
		if r.Outcome != report.Findings && r.Outcome != report.Clean {
			t.Errorf("%s: outcome %s: %s", key, r.Outcome, r.Detail)
		}
	}
	if got, want := len(p.reports(first...)), len(digests(t, first)); got != want {
		t.Errorf("%d reports for %d images", got, want)
	}
	opened := p.deltas()
	if len(opened) == 0 || slices.ContainsFunc(opened, func(d finding.Delta) bool { return d.Transition != finding.Opened || d.Cause != event.CausePush }) {
		t.Fatalf("a first push opens findings and nothing else: %d deltas", len(opened))
	}

	p.push(first...) // again: nothing is new
	p.settle()
	if again := len(p.deltas()); again != len(opened) {
		t.Errorf("pushing the same images again emitted %d deltas", again-len(opened))
	}

	p.push(rebuilt...)
	p.settle()
	var fixed int
	for _, d := range p.deltas()[len(opened):] {
		if d.Transition == finding.Resolved && d.Resolution == finding.Fixed {
			fixed++
		}
	}
	if fixed == 0 {
		t.Error("the rebuild resolved nothing as fixed")
	}
	p.consistent()

	p.delete(rebuilt[0].Name())
	p.settle()
	for asset, s := range p.states() {
		if asset.Repository == rebuilt[0].Repository && (len(s.Open) > 0 || s.Outcome != report.Closed) {
			t.Errorf("%v: %d findings are open after the tag was deleted, outcome %s", asset, len(s.Open), s.Outcome)
		}
	}
	p.consistent()
}

// What is no image is noted, and never scanned.
func TestSignatureIsSkipped(t *testing.T) { inBoth(t, signatureIsSkipped) }

func signatureIsSkipped(t *testing.T, start wiring) {
	p := start(t, options{})
	first, _ := demoImages(t)
	p.push(first...)
	p.settle()
	var skipped []string
	for _, s := range p.scans() {
		if s.Outcome == report.Skipped {
			skipped = append(skipped, s.Reference.Tag)
		}
	}
	if len(skipped) != 1 || !strings.HasPrefix(skipped[0], "sha256-") {
		t.Errorf("skipped %q, want the signature alone", skipped)
	}
}

// A new database is judged against every known image, from facts: the registry is not asked.
func TestNewDatabaseRematchesWithoutAPull(t *testing.T) { inBoth(t, newDatabaseRematchesWithoutAPull) }

func newDatabaseRematchesWithoutAPull(t *testing.T, start wiring) {
	p := start(t, options{noDatabase: true})
	first, _ := demoImages(t)
	old := demoDatabase(t, func(line string) bool { return !strings.Contains(line, `"lodash"`) })
	p.load(old)
	p.push(first...)
	p.settle()
	before, asked := len(p.deltas()), p.registry.requests()

	p.load(usual)
	var deltas []finding.Delta
	p.until("lodash is found", func() bool {
		deltas = p.deltas()[before:]
		return len(deltas) > 0
	})
	p.settle()
	deltas = p.deltas()[before:]
	for _, d := range deltas {
		if d.Finding.Package != "lodash" || d.Transition != finding.Opened || d.Cause != event.CauseRematch {
			t.Errorf("unexpected delta %s %s %s (%s)", d.Transition, d.Finding.Package, d.Finding.Vulnerability, d.Cause)
		}
	}
	if now := p.registry.requests(); now != asked {
		t.Errorf("the re-match asked the registry %d times", now-asked)
	}
	p.consistent()
}

func demoImages(t *testing.T) (first, rebuilt []demodata.Image) {
	t.Helper()
	first, err := demodata.Images()
	if err != nil {
		t.Fatal(err)
	}
	rebuilt, err = demodata.Rebuilt()
	if err != nil {
		t.Fatal(err)
	}
	return first, rebuilt
}
