package render

import (
	"strings"

	"charm.land/lipgloss/v2"
)

const gap = 2 // columns between columns

// minLast is how narrow the last column may become before the table runs over the terminal's edge: a
// clipped id could not be copied.
const minLast = 12

// cell is text and how to show it.
type cell struct {
	text  string
	style *lipgloss.Style
}

func text(s string) cell { return cell{text: clean(s)} }

func styled(s string, style lipgloss.Style) cell { return cell{text: clean(s), style: &style} }

// table writes aligned columns under a header. Only the last column is clipped to the terminal.
func (p Printer) table(header []string, rows [][]cell) error {
	widths := make([]int, len(header))
	for i, h := range header {
		widths[i] = lipgloss.Width(h)
	}
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], lipgloss.Width(c.text))
		}
	}
	last := len(header) - 1
	before := 0
	for _, w := range widths[:last] {
		before += w + gap
	}
	room := 0
	if p.Width > 0 {
		room = max(p.Width-before, minLast)
	}
	head := make([]cell, len(header))
	for i, h := range header {
		head[i] = styled(h, lipgloss.NewStyle().Faint(true))
	}
	for _, row := range append([][]cell{head}, rows...) {
		var b strings.Builder
		for i, c := range row {
			s, pad := c.text, 0
			if i == last {
				s = clip(s, room)
			} else {
				pad = widths[i] + gap - lipgloss.Width(s)
			}
			if c.style != nil {
				s = p.paint(*c.style, s)
			}
			b.WriteString(s)
			b.WriteString(strings.Repeat(" ", pad))
		}
		if err := p.Linef("%s", strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}
