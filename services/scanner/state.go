package scanner

import (
	"context"
	"errors"
	"fmt"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
)

// clashes bounds how often a state is read again because somebody else wrote it.
const clashes = 20

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

// move writes an asset's next state with the deltas that lead to it pending, publishes them and the
// scan, and takes them off. Whoever comes next, after a crash at any point, finds in the state what was
// decided and publishes it first; so each revision is told, and told once. current is false when the
// state was further already: then only the scan is published, as superseded.
//
// The scan goes out while the deltas are pending, since it counts them.
func (s *Service) move(ctx context.Context, scan finding.Scan, c change) (current bool, err error) {
	for range clashes {
		prev, revision, err := s.bus.State(ctx, finding.ClassVuln, *scan.Asset)
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return false, fmt.Errorf("read state: %w", err)
		}
		if c.after(prev) {
			scan.Reason = reason.Superseded
			return false, s.publishScan(ctx, scan)
		}
		if err := s.publish(ctx, prev.Pending); err != nil {
			return false, err
		}
		told := scan
		if c.made(prev) { // an earlier attempt at this very evaluation died, maybe before its scan
			told = counted(told, prev.Pending)
		}
		prev.Pending = nil
		next := c.next(prev)
		revision, err = s.bus.PutState(ctx, finding.ClassVuln, next, revision)
		if errors.Is(err, bus.ErrConflict) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("write state: %w", err)
		}
		for _, d := range next.Pending {
			s.metrics.findings.WithLabelValues(string(d.Transition)).Inc()
		}
		return true, s.tell(ctx, counted(told, next.Pending), next, revision)
	}
	return false, reason.Retryf(reason.BusUnavailable, "write state: %d others were faster", clashes)
}

// tell publishes what is pending, then the scan, and takes the deltas off the state.
func (s *Service) tell(ctx context.Context, scan finding.Scan, state finding.State, revision uint64) error {
	if err := s.publish(ctx, state.Pending); err != nil {
		return err
	}
	if err := s.publishScan(ctx, scan); err != nil {
		return err
	}
	if len(state.Pending) == 0 {
		return nil
	}
	state.Pending = nil
	_, err := s.bus.PutState(ctx, finding.ClassVuln, state, revision)
	if err != nil && !errors.Is(err, bus.ErrConflict) { // somebody has taken them over, and published them too
		return fmt.Errorf("take published deltas off the state: %w", err)
	}
	return nil
}

func (s *Service) publish(ctx context.Context, deltas []finding.Delta) error {
	for _, d := range deltas {
		if err := s.bus.PublishDelta(ctx, d); err != nil {
			return fmt.Errorf("publish delta: %w", err)
		}
	}
	return nil
}

// counted adds transitions to a scan.
func counted(scan finding.Scan, deltas []finding.Delta) finding.Scan {
	for _, d := range deltas {
		switch d.Transition {
		case finding.Opened:
			scan.Opened++
		case finding.Changed:
			scan.Changed++
		case finding.Resolved:
			scan.Resolved++
		}
	}
	return scan
}
