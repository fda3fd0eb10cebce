package render

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/work"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	now   = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	amd64 = image.Platform{OS: "linux", Architecture: "amd64"}
	asset = finding.Asset{Host: "registry.example", Repository: "team-a/api", Track: "1.0", Platform: amd64}
	dig   = image.Digest("sha256:" + strings.Repeat("0123456789abcdef", 4))
)

func golden(t *testing.T, name string, write func(Printer) error) {
	t.Helper()
	var b bytes.Buffer
	if err := write(Printer{W: &b, Width: 100}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func exampleReport() *report.Report {
	return &report.Report{
		Image:   image.Image{Reference: image.Reference{Host: "registry.example", Repository: "team-a/api", Tag: "1.0", Digest: dig}, Platform: amd64},
		Outcome: report.Partial,
		OS:      report.OS{Family: "debian", Name: "12.5", EndOfLife: true},
		Results: []report.Result{{
			Class: "os-pkgs", Type: "debian",
			Packages: []report.Package{{Name: "libexpat1"}, {Name: "zlib1g"}},
			Vulnerabilities: []report.Vulnerability{
				{ID: "CVE-2024-2", Package: "zlib1g", Version: "1:1.2.13", Severity: report.Unknown},
				{ID: "CVE-2024-1", Package: "libexpat1", Version: "2.5.0-1", Fixed: "2.5.0-1+deb12u1", Severity: report.Critical, Title: "expat: a very long title that does not fit into what is left of the line"},
				{ID: "CVE-2024-3", Package: "hostile\x1b[2J\nname", Version: "1", Severity: report.High, Title: "short"},
			},
		}},
		NotRead: []report.NotRead{{NotRead: facts.NotRead{Path: "lib/apk/db/installed", Code: reason.OverBound, Detail: "a line of 70000 bytes", Packages: true}}},
	}
}

func TestReport(t *testing.T) {
	golden(t, "report", func(p Printer) error { return p.Report("registry.example/team-a/api:1.0", exampleReport(), 0) })
	golden(t, "report-limited", func(p Printer) error { return p.Report("api", exampleReport(), 1) })
	golden(t, "report-clean", func(p Printer) error {
		return p.Report("api", &report.Report{Image: image.Image{Platform: amd64}, Outcome: report.Clean, OS: report.OS{Family: "alpine", Name: "3.20"}}, 0)
	})
	golden(t, "report-failed", func(p Printer) error {
		return p.Report("api", &report.Report{Outcome: report.Failed, Reason: reason.DiffIDMismatch, Detail: "layer 2 is not what its config says"}, 0)
	})
}

func TestDeltas(t *testing.T) {
	f := finding.Finding{Vulnerability: "CVE-2024-1", Package: "libexpat1", Versions: []string{"2.5.0-1"}, Severity: report.High, Fixed: "2.5.0-2"}
	old := f
	old.Severity = report.Low
	deltas := []finding.Delta{
		{Asset: asset, Transition: finding.Opened, Finding: f, At: now},
		{Asset: asset, Transition: finding.Changed, Finding: f, Old: &old, At: now},
		{Asset: asset, Transition: finding.Resolved, Finding: f, Resolution: finding.Fixed, At: now},
	}
	golden(t, "deltas", func(p Printer) error { return p.Deltas(deltas) })
	golden(t, "delta-lines", func(p Printer) error {
		for _, d := range deltas {
			if err := p.Delta(d); err != nil {
				return err
			}
		}
		return nil
	})
	golden(t, "findings", func(p Printer) error {
		return p.Findings(finding.State{Asset: asset, Image: dig, Open: []finding.Finding{f}})
	})
}

func TestWorkloads(t *testing.T) {
	workload := finding.Asset{Workload: finding.Workload{Cluster: "prod", Namespace: "team-a", Kind: "Deployment", Name: "api"}}
	f := finding.Finding{Class: finding.ClassPSA, Severity: report.High, PodSecurity: finding.PodSecurity{
		Level: "baseline", Check: "hostNamespaces", Message: "host namespaces (hostNetwork=true)",
	}}
	old := f
	old.PodSecurity.Message = "host namespaces (hostPID=true)"
	deltas := []finding.Delta{
		{Asset: workload, Transition: finding.Opened, Finding: f, At: now},
		{Asset: workload, Transition: finding.Changed, Finding: f, Old: &old, At: now},
		{Asset: workload, Transition: finding.Resolved, Finding: f, Resolution: finding.Fixed, At: now},
	}
	golden(t, "workload-deltas", func(p Printer) error { return p.Deltas(deltas) })
	golden(t, "workload-delta-lines", func(p Printer) error {
		for _, d := range deltas {
			if err := p.Delta(d); err != nil {
				return err
			}
		}
		return nil
	})
	golden(t, "workload-findings", func(p Printer) error { return p.Findings(finding.State{Asset: workload, Open: []finding.Finding{f}}) })
	golden(t, "verdicts", func(p Printer) error {
		err := p.Verdicts("chart\x1b.yaml", []Verdict{
			{Document: 1, Kind: "Deployment", Namespace: "team-a", Name: "api", Violations: []Violation{
				{Level: "baseline", Check: "hostNamespaces", Message: "host namespaces (hostNetwork=true)"},
				{Level: "restricted", Check: "runAsNonRoot", Message: "hostile\x1b[2J\nmessage"},
			}},
			{Document: 3, Kind: "CronJob", Name: "tidy"},
		})
		if err != nil {
			return err
		}
		return p.VerdictTotals("restricted", "latest", 1, 1, 12)
	})
}

func TestFate(t *testing.T) {
	golden(t, "fate", func(p Printer) error {
		return p.Fate(fate.Fate{
			Request:   "7-0123456789abcdef",
			Reference: image.Reference{Host: "registry.example", Repository: "team-a/api", Tag: "1.0"},
			Stage:     fate.Waiting, Attempts: 3, LastError: "registry.example: 503", TraceID: strings.Repeat("ab", 16),
			Received: now.Add(-3 * time.Minute), Updated: now.Add(-time.Second),
			Images: []fate.Image{
				{Digest: dig, Platform: amd64, Stage: fate.Waiting, Missing: []image.Digest{dig}},
				{Digest: dig, Stage: fate.Decided, Outcome: report.Failed, Reason: reason.BlobMissing, Detail: "blob 2"},
			},
		}, now)
	})
}

func TestLetters(t *testing.T) {
	l := Letter{Sequence: 12, DeadLetter: system.DeadLetter{
		Service: "layercache", Reason: reason.IndexCycle, Detail: "index contains itself", Subject: "pratique.work.push.image.x",
		Data: []byte("12345"), Attempts: 1, At: now.Add(-50 * time.Hour),
	}}
	golden(t, "letters", func(p Printer) error { return p.Letters([]Letter{l}, now) })
	golden(t, "letter", func(p Printer) error { return p.Letter(l) })
}

func TestStatus(t *testing.T) {
	golden(t, "status", func(p Printer) error {
		return p.Status(Status{
			Databases: []Database{{Kind: "vulndb", Digest: dig, UpdatedAt: now.Add(-72 * time.Hour), Loaded: true}, {Kind: "javadb"}},
			Queues:    []Queue{{Name: "layer", Lane: work.Push, Pending: 3, InFlight: 1}},
			Assets:    4, Open: 17, Letters: 2,
		}, now)
	})
	full := Status{
		At:        now,
		Databases: []Database{{Kind: "vulndb", Digest: dig, UpdatedAt: now.Add(-7 * time.Hour), Loaded: true}},
		Queues: []Queue{
			{Name: "image", Lane: work.Push, Pending: 1200, InFlight: 500},
			{Name: "layer", Lane: work.Push, Pending: 30, InFlight: 4}, {Name: "layer", Lane: work.Backfill, Pending: 70_000},
		},
		Work: []Work{
			{Pool: "default", Lane: work.Push, Seconds: 4.25, Oldest: now.Add(-5 * time.Second)},
			{Pool: "default", Lane: work.Backfill, Seconds: 93_600, Oldest: now.Add(-26 * time.Hour)},
			{Pool: "default", Lane: work.Interactive},
		},
		Paused: []Paused{
			{Registry: "registry.example:5000", Since: now.Add(-10 * time.Minute), Until: now.Add(90 * time.Second), Error: "unreachable: \x1b[2J503"},
			{Registry: "other.example", Since: now.Add(-time.Hour), Until: now.Add(-time.Second), Error: "rate-limited"},
		},
		Rates:  &Rates{Events: 1234.5, Scans: 0.25, Findings: 0},
		Assets: 4, Open: 17, Letters: 2,
	}
	golden(t, "status-full", func(p Printer) error { return p.Status(full, now) })
	golden(t, "status-line", func(p Printer) error { return p.StatusLine(full, now) })
}

// A screen shows the present look alone, whatever was longer before.
func TestScreen(t *testing.T) {
	var b bytes.Buffer
	s := NewScreen(Printer{W: &b})
	for _, lines := range []string{"a long line\nanother\n", "short\n"} {
		if err := s.Show(func(p Printer) error { return p.Linef("%s", strings.TrimSuffix(lines, "\n")) }); err != nil {
			t.Fatal(err)
		}
	}
	want := "\x1b[2J\x1b[Ha long line\x1b[K\nanother\x1b[K\n\x1b[J" + "\x1b[Hshort\x1b[K\n\x1b[J"
	if got := b.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestColorOnlyOnTerminals(t *testing.T) {
	var b bytes.Buffer
	p := New(&b, func(string) string { return "" })
	if p.Color || p.Width != 0 {
		t.Errorf("a buffer is no terminal: %+v", p)
	}
	if got := p.Bold("x"); got != "x" {
		t.Errorf("%q", got)
	}
	p.Color = true
	if got := p.Bold("x"); !strings.Contains(got, "\x1b[") {
		t.Errorf("no colour: %q", got)
	}
}
