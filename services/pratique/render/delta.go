package render

import (
	"cmp"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/pratique-sec/pratique/pkg/finding"
)

// Deltas writes transitions as a table, in the order given.
func (p Printer) Deltas(deltas []finding.Delta) error {
	rows := make([][]cell, 0, len(deltas))
	for _, d := range deltas {
		rows = append(rows, []cell{
			styled("  "+strings.ToUpper(string(d.Transition)), transitionStyle(d.Transition)),
			styled(strings.ToUpper(d.Finding.Severity.String()), severityStyle(d.Finding.Severity)),
			text(what(d.Finding)), text(of(d.Finding)), text(Asset(d.Asset)), text(change(d)),
		})
	}
	return p.table([]string{"  WHAT", "SEVERITY", "VULNERABILITY", "PACKAGE", "WHERE", "CHANGE"}, rows)
}

// Delta writes one transition on one line, for a stream that never ends.
func (p Printer) Delta(d finding.Delta) error {
	return p.Linef("%s  %s  %s  %s  %s  %s  %s",
		d.At.UTC().Format("15:04:05"),
		p.paint(transitionStyle(d.Transition), pad(strings.ToUpper(string(d.Transition)), 8)),
		p.paint(severityStyle(d.Finding.Severity), pad(strings.ToUpper(d.Finding.Severity.String()), 8)),
		clean(what(d.Finding)), clean(of(d.Finding)), clean(Asset(d.Asset)), clean(change(d)))
}

// what names what is wrong: a vulnerability, or a check that fails.
func what(f finding.Finding) string { return cmp.Or(f.Vulnerability, f.PodSecurity.Check) }

// of names what that is of: a package, or a level of the standards.
func of(f finding.Finding) string { return cmp.Or(f.Package, f.PodSecurity.Level) }

// Findings lists the open findings of one asset, the gravest first.
func (p Printer) Findings(s finding.State) error {
	about := plural(len(s.Open), "open finding", "open findings")
	if s.Image != "" {
		about = short(s.Image) + "  " + about
	}
	if err := p.Linef("%s  %s", p.Bold(clean(Asset(s.Asset))), p.Faint(about)); err != nil {
		return err
	}
	if len(s.Open) == 0 {
		return nil
	}
	rows := make([][]cell, 0, len(s.Open))
	open := slices.SortedStableFunc(slices.Values(s.Open), func(a, b finding.Finding) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), cmp.Compare(a.Package, b.Package), cmp.Compare(what(a), what(b)))
	})
	if s.Asset.Workload != (finding.Workload{}) {
		for _, f := range open {
			rows = append(rows, []cell{
				styled("  "+strings.ToUpper(f.Severity.String()), severityStyle(f.Severity)),
				text(f.PodSecurity.Check), text(f.PodSecurity.Level), text(f.PodSecurity.Message),
			})
		}
		return p.table([]string{"  SEVERITY", "CHECK", "LEVEL", "MESSAGE"}, rows)
	}
	for _, f := range open {
		rows = append(rows, []cell{
			styled("  "+strings.ToUpper(f.Severity.String()), severityStyle(f.Severity)),
			text(f.Vulnerability), text(f.Package), text(strings.Join(f.Versions, ", ")), text(f.Fixed), text(f.Title),
		})
	}
	return p.table([]string{"  SEVERITY", "VULNERABILITY", "PACKAGE", "INSTALLED", "FIXED IN", "TITLE"}, rows)
}

// Asset names an asset as a person would: "registry.example/team-a/api:1.0 linux/amd64",
// "prod/team-a/Deployment/api".
func Asset(a finding.Asset) string {
	if w := a.Workload; w != (finding.Workload{}) {
		return w.Cluster + "/" + w.Namespace + "/" + w.Kind + "/" + w.Name
	}
	separator := ":"
	if strings.HasPrefix(a.Track, "sha256:") {
		separator = "@"
	}
	return a.Host + "/" + a.Repository + separator + a.Track + " " + a.Platform.String()
}

// change says what a transition changed, in a few words.
func change(d finding.Delta) string {
	if d.Finding.Class == finding.ClassPSA && d.Transition != finding.Resolved {
		return d.Finding.PodSecurity.Message
	}
	switch d.Transition {
	case finding.Resolved:
		return string(d.Resolution)
	case finding.Changed:
		if d.Old != nil && d.Old.Severity != d.Finding.Severity {
			return "severity was " + d.Old.Severity.String()
		}
		if d.Old != nil && d.Old.Fixed != d.Finding.Fixed {
			return "fix is now " + d.Finding.Fixed
		}
		return strings.Join(d.Finding.Versions, ", ")
	default:
		if d.Finding.Fixed == "" {
			return strings.Join(d.Finding.Versions, ", ") + ", no fix yet"
		}
		return strings.Join(d.Finding.Versions, ", ") + " → " + d.Finding.Fixed
	}
}

func transitionStyle(t finding.Transition) lipgloss.Style {
	style := lipgloss.NewStyle().Bold(true)
	switch t {
	case finding.Resolved:
		return style.Foreground(lipgloss.Green)
	case finding.Opened:
		return style.Foreground(lipgloss.Red)
	default:
		return style.Foreground(lipgloss.Yellow)
	}
}
