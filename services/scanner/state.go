package scanner

import (
	"context"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/ledger"
	"github.com/pratique-sec/pratique/pkg/report"
)

// change is how an asset's state moves on.
type change struct {
	generation uint64
	database   uint64 // sequence
	closes     bool   // it rests on no database
	next       func(prev finding.State) finding.State
}

// after tells whether a state is further than the change: of a newer generation of the track, or of the
// same on a newer database.
func (c change) after(s finding.State) bool {
	if s.Generation != c.generation {
		return s.Generation > c.generation
	}
	return !c.closes && s.Database.Sequence > c.database
}

// made tells whether the state is what the change leads to.
func (c change) made(s finding.State) bool {
	if s.Generation != c.generation {
		return false
	}
	if c.closes {
		return s.Outcome == report.Closed
	}
	return s.Outcome != report.Closed && s.Database.Sequence == c.database
}

// move writes an asset's next state and tells of it. current is false when the state was further already.
func (s *Service) move(ctx context.Context, scan finding.Scan, c change) (current bool, err error) {
	l := ledger.Ledger{Bus: s.bus, Class: finding.ClassVuln, Decided: func(t finding.Transition) {
		s.metrics.findings.WithLabelValues(string(t)).Inc()
	}}
	return l.Move(ctx, scan, ledger.Change{After: c.after, Made: c.made, Next: c.next})
}
