package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
)

// Report writes one image's report: what it is, what was found, what was not read. name is what the
// reader calls the image. At most limit vulnerabilities are listed, the gravest first; 0 lists all.
func (p Printer) Report(name string, r *report.Report, limit int) error {
	which := strings.TrimRight(platform(r.Image.Platform)+"  "+short(r.Image.Digest), " ")
	if err := p.Linef("%s  %s", p.Bold(clean(name)), p.Faint(which)); err != nil {
		return err
	}
	if r.Outcome == report.Failed {
		return p.Linef("  %s: %s  %s", p.paint(severityStyle(report.Critical), "FAILED"), clean(string(r.Reason)), clean(r.Detail))
	}
	var about []string
	if r.OS.Family != "" {
		os := r.OS.Family + " " + r.OS.Name
		if r.OS.EndOfLife {
			os += " (end of life: its distributor no longer fixes it)"
		}
		about = append(about, clean(os))
	}
	packages := 0
	for _, res := range r.Results {
		packages += len(res.Packages)
	}
	about = append(about, plural(packages, "package", "packages"), p.Counts(r.Count()))
	if err := p.Linef("  %s", strings.Join(about, " · ")); err != nil {
		return err
	}
	if err := p.vulnerabilities(r, limit); err != nil {
		return err
	}
	return p.notRead(r.NotRead)
}

func (p Printer) vulnerabilities(r *report.Report, limit int) error {
	all := vulnerabilities(r)
	if len(all) == 0 {
		return nil
	}
	listed := all
	if limit > 0 && len(all) > limit {
		listed = all[:limit]
	}
	rows := make([][]cell, 0, len(listed))
	for _, v := range listed {
		fixed := v.Fixed
		if fixed == "" {
			fixed = "-"
		}
		rows = append(rows, []cell{
			styled("  "+strings.ToUpper(v.Severity.String()), severityStyle(v.Severity)),
			text(v.ID), text(v.Package), text(v.Version), text(fixed), text(v.Title),
		})
	}
	if err := p.table([]string{"  SEVERITY", "VULNERABILITY", "PACKAGE", "INSTALLED", "FIXED IN", "TITLE"}, rows); err != nil {
		return err
	}
	if n := len(all) - len(listed); n > 0 {
		return p.Linef("  %s", p.Faint(fmt.Sprintf("… and %d more", n)))
	}
	return nil
}

func (p Printer) notRead(files []report.NotRead) error {
	for _, n := range files {
		what := "not read"
		if n.Packages {
			what = "NOT READ, and it holds packages"
		}
		if err := p.Linef("  %s: %s  %s  %s", p.paint(severityStyle(report.Medium), what), clean(n.Path), n.Code, clean(n.Detail)); err != nil {
			return err
		}
	}
	return nil
}

// vulnerabilities lists a report's in reading order: the gravest first, then by package and id.
func vulnerabilities(r *report.Report) []report.Vulnerability {
	var all []report.Vulnerability
	for _, res := range r.Results {
		all = append(all, res.Vulnerabilities...)
	}
	slices.SortStableFunc(all, func(a, b report.Vulnerability) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), cmp.Compare(a.Package, b.Package), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Path, b.Path))
	})
	return all
}

// Counts is "2 critical, 5 high, 7 unknown", or that nothing was found.
func (p Printer) Counts(c report.Counts) string {
	var parts []string
	for _, of := range []struct {
		n int
		s report.Severity
	}{{c.Critical, report.Critical}, {c.High, report.High}, {c.Medium, report.Medium}, {c.Low, report.Low}, {c.Unknown, report.Unknown}} {
		if of.n > 0 {
			parts = append(parts, p.paint(severityStyle(of.s), fmt.Sprintf("%d %s", of.n, of.s)))
		}
	}
	if len(parts) == 0 {
		return p.paint(lipgloss.NewStyle().Foreground(lipgloss.Green), "nothing known against it")
	}
	return strings.Join(parts, ", ")
}

// Layers says what the layer cache did.
func (p Printer) Layers(c finding.LayerCounts) string {
	return fmt.Sprintf("layers: %d seen, %d already known, %d shared in flight, %d analysed", c.Seen, c.Known, c.Waited, c.Analysed)
}

func platform(pl image.Platform) string {
	if pl == (image.Platform{}) {
		return "no platform"
	}
	return clean(pl.String())
}

// short is the beginning of a digest, enough to find it again.
func short(d image.Digest) string {
	hex := strings.TrimPrefix(string(d), "sha256:")
	return hex[:min(len(hex), 12)]
}
