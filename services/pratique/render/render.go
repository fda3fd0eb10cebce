// Package render writes what people read in a terminal: tables of findings, counts, fates, letters.
// It decides about columns, colour and width, and about nothing else. Machines read JSON instead
// (pkg/wire).
//
// Everything that comes from an image or a registry is printed without control characters: a package
// name can not move the cursor of whoever looks at it.
package render

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"charm.land/lipgloss/v2"
	"golang.org/x/term"

	"github.com/pratique-sec/pratique/pkg/report"
)

// Printer writes to one destination.
type Printer struct {
	W     io.Writer
	Color bool
	Width int // columns of the terminal; 0: as wide as it gets

	Terminal bool // one that can be drawn anew: not a file, a pipe, or a dumb terminal
}

// New looks at the destination: colour only on a terminal that is not dumb and where NO_COLOR is not
// set, and the width of the terminal where there is one.
func New(w io.Writer, getenv func(string) string) Printer {
	p := Printer{W: w}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return p
	}
	p.Terminal = getenv("TERM") != "dumb"
	p.Color = getenv("NO_COLOR") == "" && p.Terminal
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		p.Width = width
	}
	return p
}

// Linef writes one line.
func (p Printer) Linef(format string, args ...any) error {
	_, err := fmt.Fprintf(p.W, format+"\n", args...)
	return err
}

// Bold makes plain text stand out.
func (p Printer) Bold(s string) string { return p.paint(lipgloss.NewStyle().Bold(true), s) }

// Faint makes plain text stand back.
func (p Printer) Faint(s string) string { return p.paint(lipgloss.NewStyle().Faint(true), s) }

func (p Printer) paint(style lipgloss.Style, s string) string {
	if !p.Color {
		return s
	}
	return style.Render(s)
}

// severityStyle has one colour for each severity, from the terminal's own sixteen.
func severityStyle(s report.Severity) lipgloss.Style {
	style := lipgloss.NewStyle()
	switch s {
	case report.Critical:
		return style.Bold(true).Foreground(lipgloss.BrightRed)
	case report.High:
		return style.Foreground(lipgloss.Red)
	case report.Medium:
		return style.Foreground(lipgloss.Yellow)
	case report.Low:
		return style.Foreground(lipgloss.Cyan)
	default:
		return style.Faint(true)
	}
}

// clean makes text from outside fit for a terminal: on one line, without control characters.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// clip shortens s to width columns, the last one "…" when something was left out.
func clip(s string, width int) string {
	if width <= 0 || lipgloss.Width(s) <= width {
		return s
	}
	used := 0
	for i, r := range s {
		w := lipgloss.Width(string(r))
		if used+w > width-1 {
			return s[:i] + "…"
		}
		used += w
	}
	return s
}

// ago says how long before now t was, in one unit.
func ago(now, t time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "never"
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
