package render

import (
	"fmt"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/pratique-sec/pratique/pkg/report"
)

// Verdict is what the Pod Security Standards say about one object.
type Verdict struct {
	Document              int
	Kind, Namespace, Name string
	Violations            []Violation // none: it is allowed
}

// Violation is a check that it fails.
type Violation struct{ Level, Check, Message string }

// Verdicts writes the verdicts on a file's objects. Messages are not clipped: they say what to change.
func (p Printer) Verdicts(file string, verdicts []Verdict) error {
	if len(verdicts) == 0 {
		return nil
	}
	if err := p.Linef("%s", p.Bold(clean(file))); err != nil {
		return err
	}
	for _, v := range verdicts {
		state := p.paint(lipgloss.NewStyle().Foreground(lipgloss.Green), "allowed")
		if len(v.Violations) > 0 {
			state = p.paint(severityStyle(report.High), "DENIED ")
		}
		name := v.Kind + " " + v.Name
		if v.Namespace != "" {
			name = v.Kind + " " + v.Namespace + "/" + v.Name
		}
		if err := p.Linef("  %s  %s  %s", state, clean(name), p.Faint(fmt.Sprintf("document %d", v.Document))); err != nil {
			return err
		}
		if err := p.violations(v.Violations); err != nil {
			return err
		}
	}
	return nil
}

func (p Printer) violations(all []Violation) error {
	width := 0
	for _, v := range all {
		width = max(width, lipgloss.Width(clean(v.Check)))
	}
	for _, v := range all {
		style := severityStyle(report.Medium)
		if v.Level == "baseline" {
			style = severityStyle(report.High)
		}
		err := p.Linef("    %s  %s  %s", p.paint(style, pad(strings.ToUpper(clean(v.Level)), len("RESTRICTED"))), pad(clean(v.Check), width), clean(v.Message))
		if err != nil {
			return err
		}
	}
	return nil
}

// VerdictTotals sums up.
func (p Printer) VerdictTotals(level, version string, allowed, denied, other int) error {
	line := fmt.Sprintf("%s judged by %s, %s: %d allowed, %d denied", plural(allowed+denied, "object", "objects"), level, version, allowed, denied)
	if other > 0 {
		line += fmt.Sprintf("; %s without pods", plural(other, "other", "others"))
	}
	return p.Linef("%s", line)
}
