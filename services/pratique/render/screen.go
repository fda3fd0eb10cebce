package render

import (
	"bytes"
	"strings"
)

// Control sequences that every terminal since the VT100 knows.
const (
	home      = "\x1b[H"
	endOfLine = "\x1b[K" // clear to it
	below     = "\x1b[J" // clear the rest
	wipe      = "\x1b[2J"
)

// Screen shows one thing in place of the last on a terminal.
type Screen struct {
	p     Printer
	begun bool
}

// NewScreen takes over a terminal: p.Terminal is true.
func NewScreen(p Printer) *Screen { return &Screen{p: p} }

// Show writes what draw draws over what was there. It is one write, so that nothing flickers.
func (s *Screen) Show(draw func(Printer) error) error {
	var drawn bytes.Buffer
	p := s.p
	p.W = &drawn
	if err := draw(p); err != nil {
		return err
	}
	var out strings.Builder
	if !s.begun {
		out.WriteString(wipe)
		s.begun = true
	}
	out.WriteString(home)
	out.WriteString(strings.ReplaceAll(drawn.String(), "\n", endOfLine+"\n"))
	out.WriteString(below)
	_, err := s.p.W.Write([]byte(out.String()))
	return err
}
