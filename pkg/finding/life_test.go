package finding_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func debian(vulns ...report.Vulnerability) report.Result {
	return withPackages(report.Result{Class: "os-pkgs", Type: "debian", Vulnerabilities: vulns})
}

// withPackages lists as installed what is vulnerable.
func withPackages(r report.Result) report.Result {
	for _, v := range r.Vulnerabilities {
		r.Packages = append(r.Packages, report.Package{Name: v.Package, Version: v.Version, Path: v.Path})
	}
	return r
}

func reportOf(results ...report.Result) *report.Report {
	r := &report.Report{Outcome: report.Clean, Results: results, Database: dbD}
	r.Image.Digest = imageA
	if r.Count().Total() > 0 {
		r.Outcome = report.Findings
	}
	return r
}

func vuln(id, pkg, version string) report.Vulnerability {
	return report.Vulnerability{ID: id, Package: pkg, Version: version, Severity: report.High, Status: "affected"}
}

// step judges the asset anew, with everything that was pending published.
func step(s finding.State, r *report.Report) finding.State {
	s.Pending = nil
	j := finding.Judgement{Asset: asset, Generation: s.Generation + 1, Cause: event.CausePush, At: noon.Add(time.Duration(s.Generation) * time.Hour)}
	return finding.Diff(s, r, finding.FromReport(asset, r), j)
}

func transitions(s finding.State) (out []string) {
	for _, d := range s.Pending {
		t := string(d.Transition) + " " + d.Finding.Vulnerability
		if d.Resolution != "" {
			t += " " + string(d.Resolution)
		}
		out = append(out, t)
	}
	slices.Sort(out)
	return out
}

func TestAliasesAreOneFinding(t *testing.T) {
	for name, c := range map[string]struct {
		vulns []report.Vulnerability
		want  []string // canonical ids
		also  []string // aliases of the first
	}{
		"by vendor id": {
			[]report.Vulnerability{vuln("CVE-2021-2", "p", "1.0"), with(vuln("GHSA-x", "p", "1.0"), "CVE-2021-2")},
			[]string{"CVE-2021-2"}, []string{"GHSA-x"},
		},
		"through a third": {
			[]report.Vulnerability{vuln("GO-1", "p", "1.0"), vuln("GHSA-x", "p", "1.0"), with(vuln("PYSEC-1", "p", "1.0"), "GO-1", "GHSA-x")},
			[]string{"GHSA-x"}, []string{"GO-1", "PYSEC-1"},
		},
		"an advisory of a vendor joins nothing": {
			[]report.Vulnerability{with(vuln("CVE-2021-1", "p", "1.0"), "DSA-1-1"), with(vuln("CVE-2021-2", "p", "1.0"), "DSA-1-1")},
			[]string{"CVE-2021-1", "CVE-2021-2"}, nil,
		},
		"nor does another package": {
			[]report.Vulnerability{with(vuln("CVE-2021-1", "p", "1.0"), "GHSA-x"), vuln("GHSA-x", "q", "1.0")},
			[]string{"CVE-2021-1", "GHSA-x"}, []string{"GHSA-x"},
		},
		"named by an alias that is not itself reported": {
			[]report.Vulnerability{with(vuln("GHSA-x", "p", "1.0"), "CVE-2024-9")},
			[]string{"CVE-2024-9"}, []string{"GHSA-x"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			list := finding.FromReport(asset, reportOf(debian(c.vulns...)))
			slices.SortFunc(list, func(a, b finding.Finding) int {
				return slices.Compare([]string{a.Vulnerability}, []string{b.Vulnerability})
			})
			var got []string
			for _, f := range list {
				got = append(got, f.Vulnerability)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Fatal(diff)
			}
			if diff := cmp.Diff(c.also, list[0].Aliases); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func with(v report.Vulnerability, vendorIDs ...string) report.Vulnerability {
	v.VendorIDs = vendorIDs
	return v
}

func TestMergedFinding(t *testing.T) {
	a, b, c := vuln("CVE-2021-1", "p", "2.0"), vuln("GHSA-x", "p", "1.0"), vuln("CVE-2021-1", "p", "1.0")
	a.Fixed, a.Status, a.Title, a.Severity = "2.1, 1.9", "fixed", "the name's own", report.Low
	b.Aliases, b.Fixed, b.Severity, b.Title = []string{"CVE-2021-1"}, "1.9", report.Critical, "worse, but another's"
	list := finding.FromReport(asset, reportOf(debian(b, a, c)))
	if len(list) != 1 {
		t.Fatalf("%d findings, want 1", len(list))
	}
	f := list[0]
	want := finding.Finding{
		ID: finding.ID(asset, finding.ClassVuln, "CVE-2021-1", "debian", "p", ""), Class: finding.ClassVuln,
		Vulnerability: "CVE-2021-1", Aliases: []string{"GHSA-x"}, Type: "debian", Package: "p", Versions: []string{"1.0", "2.0"},
		Fixed: "1.9, 2.1", Status: "fixed", Severity: report.Critical, Title: f.Title,
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Error(diff)
	}
}

// The place of a package is its path without its version; an OS package has none.
func TestPlaces(t *testing.T) {
	jar := func(version string) report.Result {
		v := vuln("CVE-2021-45046", "log4j-core", version)
		v.Path = "app/lib/log4j-core-" + version + ".jar"
		return withPackages(report.Result{Class: "lang-pkgs", Type: "jar", Target: "Java", Vulnerabilities: []report.Vulnerability{v}})
	}
	s := step(finding.State{}, reportOf(jar("2.14.1")))
	if got := s.Open[0].Path; got != "app/lib/log4j-core-*.jar" {
		t.Errorf("path %q", got)
	}
	s = step(s, reportOf(jar("2.15.0")))
	if len(s.Pending) != 0 {
		t.Errorf("an upgrade that fixes nothing: %v", transitions(s))
	}
	if diff := cmp.Diff([]string{"2.15.0"}, s.Open[0].Versions); diff != "" {
		t.Errorf("the state does not show what is installed now: %s", diff)
	}
	target := report.Result{Class: "lang-pkgs", Type: "gobinary", Target: "usr/bin/app", Vulnerabilities: []report.Vulnerability{vuln("CVE-1999-1", "stdlib", "v1.22.1")}}
	if f := finding.FromReport(asset, reportOf(target))[0]; f.Path != "usr/bin/app" {
		t.Errorf("a package without a path of its own is at %q, not at the result's target", f.Path)
	}
}

func TestLife(t *testing.T) {
	one := vuln("CVE-2021-1", "p", "1.0")
	s := step(finding.State{}, reportOf(debian(one, vuln("CVE-2021-2", "q", "1.0"), vuln("CVE-2021-3", "gone", "1.0"), vuln("CVE-2021-4", "r", "1.0"))))
	if got := transitions(s); len(got) != 4 || s.Open[0].Revision != 1 || s.Open[0].FirstSeen != noon {
		t.Fatalf("%v, %+v", got, s.Open[0])
	}

	// q is upgraded, gone is removed, of r the database thinks otherwise, of p there is now a fix.
	one.Fixed, one.Status = "1.1", "fixed"
	r := reportOf(debian(one))
	r.Results[0].Packages = append(r.Results[0].Packages, report.Package{Name: "q", Version: "1.1"}, report.Package{Name: "r", Version: "1.0"})
	s = step(s, r)
	want := []string{"changed CVE-2021-1", "resolved CVE-2021-2 fixed", "resolved CVE-2021-3 removed", "resolved CVE-2021-4 withdrawn"}
	if diff := cmp.Diff(want, transitions(s)); diff != "" {
		t.Fatal(diff)
	}
	for _, d := range s.Pending {
		if d.Finding.Revision != 2 || d.EventID != finding.EventID(d.Finding.ID, 2) || d.Asset != asset || d.Image != imageA || d.Database != dbD {
			t.Errorf("%+v", d)
		}
		if d.Transition == finding.Changed && (d.Old == nil || d.Old.Fixed != "" || d.Finding.Fixed != "1.1") {
			t.Errorf("CHANGED without old and new: %+v", d)
		}
	}

	// q comes back: its revisions go on.
	s = step(s, reportOf(debian(one, vuln("CVE-2021-2", "q", "1.0"))))
	if diff := cmp.Diff([]string{"opened CVE-2021-2"}, transitions(s)); diff != "" {
		t.Fatal(diff)
	}
	if d := s.Pending[0]; d.Finding.Revision != 3 {
		t.Errorf("re-opened with revision %d, want 3", d.Finding.Revision)
	}

	pending := s.Pending // what was not published stays in front
	s = finding.Close(s, finding.Judgement{Asset: asset, Generation: 9, Cause: event.CauseDelete, At: noon})
	if len(s.Open) != 0 || s.Image != "" || s.Outcome != report.Closed || s.Generation != 9 {
		t.Errorf("closed: %+v", s)
	}
	if len(s.Pending) != 3 || s.Pending[0].EventID != pending[0].EventID || s.Pending[2].Resolution != finding.Deleted || s.Pending[2].Image != imageA {
		t.Errorf("closed: %v", transitions(s))
	}
}

func TestPartialAndFailedResolveNothing(t *testing.T) {
	before := step(finding.State{}, reportOf(debian(vuln("CVE-2021-1", "p", "1.0"))))
	for _, outcome := range []report.Outcome{report.Partial, report.Failed} {
		r := reportOf(debian(vuln("CVE-2021-2", "q", "1.0")))
		r.Outcome = outcome
		s := step(before, r)
		if diff := cmp.Diff([]string{"opened CVE-2021-2"}, transitions(s)); diff != "" {
			t.Errorf("%s: %s", outcome, diff)
		}
		if len(s.Open) != 2 || s.Outcome != outcome {
			t.Errorf("%s: %d open", outcome, len(s.Open))
		}
	}
}

// A CVE that is assigned to what was known by its GHSA goes on with the finding that there is.
func TestIdentityIsCarriedOver(t *testing.T) {
	old := step(finding.State{}, reportOf(debian(vuln("GHSA-x", "p", "1.0"))))
	id := old.Open[0].ID
	s := step(old, reportOf(debian(with(vuln("CVE-2024-1", "p", "1.0"), "GHSA-x"))))
	if diff := cmp.Diff([]string{"changed CVE-2024-1"}, transitions(s)); diff != "" {
		t.Fatal(diff)
	}
	if f := s.Open[0]; f.ID != id || f.Revision != 2 || f.Vulnerability != "CVE-2024-1" {
		t.Errorf("%+v", f)
	}
	again := step(s, reportOf(debian(with(vuln("CVE-2024-1", "p", "1.0"), "GHSA-x"))))
	if len(again.Pending) != 0 || again.Open[0].ID != id {
		t.Errorf("a rebuild that changes nothing: %v", transitions(again))
	}

	// Two that claim the same old one: the first by id gets it, the other is new.
	both := reportOf(debian(with(vuln("CVE-2024-1", "p", "1.0")), with(vuln("CVE-2024-2", "p", "1.0"))))
	old.Open[0].Aliases = []string{"CVE-2024-1", "CVE-2024-2"}
	s = step(old, both)
	if len(s.Open) != 2 || s.Open[0].ID == s.Open[1].ID {
		t.Fatalf("%+v", s.Open)
	}
	if got := transitions(s); len(got) != 2 || got[0][:7] != "changed" || got[1][:6] != "opened" {
		t.Errorf("%v", got)
	}

	// Another package's, or another place's, is none of its business.
	s = step(old, reportOf(debian(with(vuln("CVE-2024-1", "other", "1.0"), "GHSA-x"))))
	if diff := cmp.Diff([]string{"opened CVE-2024-1", "resolved GHSA-x removed"}, transitions(s)); diff != "" {
		t.Error(diff)
	}
}

func TestForgottenRevisionsAreNotReused(t *testing.T) {
	vulns := make([]report.Vulnerability, 10_001)
	for i := range vulns {
		vulns[i] = vuln("CVE-2021-"+time.Duration(i).String(), "p", "1.0")
	}
	all := reportOf(debian(vulns...))
	s := step(step(finding.State{}, all), reportOf())
	if len(s.Resolved) != 10_000 || s.Forgotten != 2 {
		t.Fatalf("%d kept, %d forgotten", len(s.Resolved), s.Forgotten)
	}
	s = step(s, all)
	for _, f := range s.Open {
		if f.Revision != 3 {
			t.Fatalf("revision %d: one that subscribers have seen", f.Revision)
		}
	}
}

func TestFold(t *testing.T) {
	s := step(finding.State{}, reportOf(debian(vuln("CVE-2021-1", "p", "1.0"))))
	open := s.Pending[0]
	fixed := vuln("CVE-2021-1", "p", "1.0")
	fixed.Fixed = "1.1"
	s = step(s, reportOf(debian(fixed)))
	change := s.Pending[0]
	s = step(s, reportOf())
	closed := s.Pending[0]

	var f finding.State
	for _, d := range []finding.Delta{open, open, change, open, change, closed, change, closed} {
		if err := finding.Fold(&f, d); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.Open) != 0 || f.Resolved[open.Finding.ID] != 3 {
		t.Errorf("%+v", f)
	}

	f = finding.State{}
	if err := finding.Fold(&f, change); !errors.Is(err, finding.ErrGap) {
		t.Errorf("CHANGED before OPENED: %v", err)
	}
	if err := finding.Fold(&f, open); err != nil {
		t.Fatal(err)
	}
	if err := finding.Fold(&f, closed); !errors.Is(err, finding.ErrGap) {
		t.Errorf("a missing revision: %v", err)
	}
	foreign := change
	foreign.Asset.Platform = image.Platform{OS: "linux", Architecture: "arm64"}
	if err := finding.Fold(&f, foreign); err == nil {
		t.Error("another asset's delta was folded in")
	}
	odd := change
	odd.Transition = "?"
	if err := finding.Fold(&f, odd); err == nil {
		t.Error("an unknown transition was folded in")
	}
}
