// Package ledger moves an asset's findings on, so that each revision is told, and told once, whoever dies
// in between: the next state is written compare-and-set with the deltas that lead to it pending, then they
// and the scan are published, then they are taken off the state. Whoever comes next finds in the state
// what was decided, and publishes it first.
package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// clashes bounds how often a state is read again because somebody else wrote it.
const clashes = 20

// Bus is what a ledger is kept on; *bus.Bus is one. State answers bus.ErrNotFound, PutState (with revision
// 0: there must be none) bus.ErrConflict.
type Bus interface {
	State(ctx context.Context, c finding.Class, a finding.Asset) (finding.State, uint64, error)
	PutState(ctx context.Context, c finding.Class, s finding.State, revision uint64) (uint64, error)
	PublishDelta(ctx context.Context, d finding.Delta) error
	PublishScan(ctx context.Context, s finding.Scan) error
}

// Ledger keeps the findings of one class.
type Ledger struct {
	Bus     Bus
	Class   finding.Class
	Decided func(finding.Transition) // is told of each transition that was written; nil: nobody is
}

// Change is how an asset's state moves on. Its functions must not change prev.
type Change struct {
	After func(prev finding.State) bool          // prev is further than what is to be written
	Made  func(prev finding.State) bool          // prev is what an earlier attempt at this very evaluation wrote
	Next  func(prev finding.State) finding.State // prev's Pending is empty
}

// Move makes a change to the state of the scan's asset and publishes what follows from it. current is
// false when the state was further already: then only the scan is published, as superseded.
//
// The scan goes out while the deltas are pending, since it counts them.
func (l Ledger) Move(ctx context.Context, scan finding.Scan, c Change) (current bool, err error) {
	for range clashes {
		prev, revision, err := l.Bus.State(ctx, l.Class, *scan.Asset)
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return false, fmt.Errorf("read state: %w", err)
		}
		if c.After(prev) {
			scan.Reason = reason.Superseded
			return false, l.publishScan(ctx, scan)
		}
		if err := l.publish(ctx, prev.Pending); err != nil {
			return false, err
		}
		told := scan
		if c.Made(prev) { // it died, maybe before its scan
			told = counted(told, prev.Pending)
		}
		prev.Pending = nil
		next := c.Next(prev)
		revision, err = l.Bus.PutState(ctx, l.Class, next, revision)
		if errors.Is(err, bus.ErrConflict) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("write state: %w", err)
		}
		if l.Decided != nil {
			for _, d := range next.Pending {
				l.Decided(d.Transition)
			}
		}
		return true, l.tell(ctx, counted(told, next.Pending), next, revision)
	}
	return false, reason.Retryf(reason.BusUnavailable, "write state: %d others were faster", clashes)
}

// tell publishes what is pending, then the scan, and takes the deltas off the state.
func (l Ledger) tell(ctx context.Context, scan finding.Scan, state finding.State, revision uint64) error {
	if err := l.publish(ctx, state.Pending); err != nil {
		return err
	}
	if err := l.publishScan(ctx, scan); err != nil {
		return err
	}
	if len(state.Pending) == 0 {
		return nil
	}
	state.Pending = nil
	_, err := l.Bus.PutState(ctx, l.Class, state, revision)
	if err != nil && !errors.Is(err, bus.ErrConflict) { // somebody has taken them over, and published them too
		return fmt.Errorf("take published deltas off the state: %w", err)
	}
	return nil
}

func (l Ledger) publish(ctx context.Context, deltas []finding.Delta) error {
	for _, d := range deltas {
		if err := l.Bus.PublishDelta(ctx, d); err != nil {
			return fmt.Errorf("publish delta: %w", err)
		}
	}
	return nil
}

func (l Ledger) publishScan(ctx context.Context, scan finding.Scan) error {
	if err := l.Bus.PublishScan(ctx, scan); err != nil {
		return fmt.Errorf("publish scan: %w", err)
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
