package finding_test

import (
	"fmt"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/report"
)

// drawReport makes a report out of few names, so that aliases, versions, places and severities meet.
func drawReport(t *rapid.T, label string) *report.Report {
	ids := []string{"CVE-2021-1", "CVE-2021-2", "GHSA-a", "GHSA-b", "GO-1", "DSA-1"}
	result := func(class, typ string, paths []string) report.Result {
		res := report.Result{Class: class, Type: typ}
		for i := range rapid.IntRange(0, 6).Draw(t, label+" "+typ) {
			l := fmt.Sprintf("%s %s %d", label, typ, i)
			v := report.Vulnerability{
				ID:       rapid.SampledFrom(ids).Draw(t, l+" id"),
				Package:  rapid.SampledFrom([]string{"p", "q"}).Draw(t, l+" package"),
				Version:  rapid.SampledFrom([]string{"1.0", "2.0"}).Draw(t, l+" version"),
				Path:     rapid.SampledFrom(paths).Draw(t, l+" path"),
				Fixed:    rapid.SampledFrom([]string{"", "1.1", "2.1, 1.1"}).Draw(t, l+" fixed"),
				Status:   rapid.SampledFrom([]string{"affected", "fixed", "will_not_fix"}).Draw(t, l+" status"),
				Severity: report.Severity(rapid.IntRange(0, 4).Draw(t, l+" severity")),
				Title:    rapid.SampledFrom([]string{"x", "y"}).Draw(t, l+" title"),
			}
			if rapid.Bool().Draw(t, l+" has alias") {
				v.VendorIDs = []string{rapid.SampledFrom(ids).Draw(t, l+" alias")}
			}
			res.Vulnerabilities = append(res.Vulnerabilities, v)
		}
		return withPackages(res)
	}
	r := reportOf(result("os-pkgs", "debian", []string{""}), result("lang-pkgs", "jar", []string{"a.jar", "b-1.0.jar"}))
	if rapid.IntRange(0, 4).Draw(t, label+" partial") == 0 {
		r.Outcome = report.Partial
	}
	return r
}

// Folding all deltas from nothing gives what is open; each (finding, revision) is told once, revisions
// grow by one, and nothing is open twice.
func TestFoldOfDiffIsState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s, folded finding.State
		last := map[string]uint64{}
		for i := range rapid.IntRange(1, 6).Draw(t, "steps") {
			s = step(s, drawReport(t, fmt.Sprint(i)))
			for _, d := range s.Pending {
				if d.Finding.Revision != last[d.Finding.ID]+1 {
					t.Fatalf("revision %d of %s after %d", d.Finding.Revision, d.Finding.ID, last[d.Finding.ID])
				}
				last[d.Finding.ID] = d.Finding.Revision
				if err := finding.Fold(&folded, d); err != nil {
					t.Fatal(err)
				}
			}
			if !strictlySorted(s.Open) {
				t.Fatalf("open findings are not sorted, each once: %v", s.Open)
			}
			if diff := gocmp.Diff(told(s.Open), told(folded.Open), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("state and fold differ: %s", diff)
			}
			if diff := gocmp.Diff(s.Resolved, folded.Resolved, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("resolved revisions differ: %s", diff)
			}
		}
	})
}

func strictlySorted(list []finding.Finding) bool {
	for i := 1; i < len(list); i++ {
		if list[i-1].ID >= list[i].ID {
			return false
		}
	}
	return true
}

func told(list []finding.Finding) []finding.Finding {
	out := make([]finding.Finding, len(list))
	for i, f := range list {
		out[i] = f.Told()
	}
	return out
}

// A rebuild that changes nothing tells nothing, whatever came before it, and in whatever order the
// engine lists what it found.
func TestRebuildTellsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := step(finding.State{}, drawReport(t, "before"))
		r := drawReport(t, "now")
		s = step(s, r)
		shuffled := *r
		shuffled.Results = rapid.Permutation(r.Results).Draw(t, "results")
		for i := range shuffled.Results {
			shuffled.Results[i].Vulnerabilities = rapid.Permutation(shuffled.Results[i].Vulnerabilities).Draw(t, "vulnerabilities")
		}
		again := step(s, &shuffled)
		if len(again.Pending) != 0 {
			t.Fatalf("told %v", transitions(again))
		}
		if diff := gocmp.Diff(s.Open, again.Open, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("the order of the report counts: %s", diff)
		}
	})
}

// Going to another image and back ends with the findings of the first, each at a revision that no
// subscriber has seen with another content.
func TestThereAndBackAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawReport(t, "a"), drawReport(t, "b")
		a.Outcome, b.Outcome = report.Findings, report.Findings // partial ones resolve nothing
		first := step(finding.State{}, a)
		back := step(step(first, b), a)
		facts := func(list []finding.Finding) (out []string) {
			for _, f := range list {
				out = append(out, fmt.Sprint(f.Vulnerability, f.Aliases, f.Type, f.Package, f.Path, f.Versions, f.Severity, f.Fixed, f.Status))
			}
			slices.Sort(out)
			return out
		}
		if diff := gocmp.Diff(facts(first.Open), facts(back.Open)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Diff changes neither the state nor the list that it was given.
func TestDiffKeepsItsInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := step(finding.State{}, drawReport(t, "before"))
		before := s
		before.Open, before.Pending = slices.Clone(s.Open), slices.Clone(s.Pending)
		resolved := fmt.Sprint(s.Resolved)
		r := drawReport(t, "now")
		next := finding.FromReport(asset, r)
		given := slices.Clone(next)
		finding.Diff(s, r, next, finding.Judgement{Asset: asset, At: noon})
		finding.Close(s, finding.Judgement{Asset: asset, At: noon})
		if gocmp.Diff(before, s) != "" || gocmp.Diff(given, next, cmpopts.EquateEmpty()) != "" || fmt.Sprint(s.Resolved) != resolved {
			t.Fatal("its input was changed")
		}
	})
}
