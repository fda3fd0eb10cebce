package finding

import (
	"errors"
	"fmt"
	"slices"
)

// ErrGap: a delta does not follow the last one of its finding that was folded. Some are missing; take
// the snapshot (STATE) again.
var ErrGap = errors.New("finding: a revision is missing")

// Fold applies one delta, as subscribers do: from the zero State over all deltas of an asset it leads
// to the same open findings, up to what Told leaves out. A revision that was seen already changes
// nothing.
func Fold(s *State, d Delta) error {
	if s.Asset == (Asset{}) {
		s.Asset = d.Asset
	}
	if s.Asset != d.Asset {
		return fmt.Errorf("finding: a delta of %v was folded into the state of %v", d.Asset, s.Asset)
	}
	f := d.Finding
	at, open := slices.BinarySearchFunc(s.Open, f, compareFindings)
	seen := s.Resolved[f.ID]
	if open {
		seen = s.Open[at].Revision
	}
	if f.Revision <= seen {
		return nil
	}
	// Only an opening may skip revisions: those that the publisher had forgotten (State.Forgotten).
	if d.Transition == Opened && open || d.Transition != Opened && (!open || f.Revision != seen+1) {
		return fmt.Errorf("%w: %s revision %d after %d", ErrGap, f.ID, f.Revision, seen)
	}
	switch d.Transition {
	case Opened:
		delete(s.Resolved, f.ID)
		s.Open = slices.Insert(s.Open, at, f)
	case Changed:
		s.Open[at] = f
	case Resolved:
		s.Open = slices.Delete(s.Open, at, at+1)
		if s.Resolved == nil {
			s.Resolved = map[string]uint64{}
		}
		s.Resolved[f.ID] = f.Revision
	default:
		return fmt.Errorf("finding: unknown transition %q", d.Transition)
	}
	s.Image, s.Database, s.Updated = d.Image, d.Database, d.At
	return nil
}

// Told is the finding without what follows in silence: what a subscriber that folds deltas knows as
// well as the state does.
func (f Finding) Told() Finding {
	f.Aliases, f.Versions, f.Title, f.URL, f.Layer, f.CreatedBy = nil, nil, "", "", "", ""
	f.PodSecurity.Version, f.PodSecurity.Fields = "", nil
	return f
}
