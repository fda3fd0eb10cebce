package finding

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
)

// Judgement is what a decision about an asset's findings carries beside what it rests on.
type Judgement struct {
	Asset      Asset
	Generation uint64
	Cause      event.Cause
	Resolution Resolution    // Close only; "" means Deleted
	Engine     report.Engine // Close only; Diff takes the report's
	At         time.Time
}

// maxResolved is how many last revisions of resolved findings a state keeps. Those with the lowest
// revisions are dropped first, and State.Forgotten remembers the highest of them.
const maxResolved = 10_000

// Diff judges an asset anew: it returns the state that follows prev (the zero State for an asset that
// has none), with the transitions between the two appended to Pending, in the order of finding ids.
// next is FromReport's. prev is not changed.
//
// OPENED is what was not open. CHANGED is what was, and differs in a fact that people act on: the name
// of the vulnerability, severity, fix or status. Installed versions, aliases, title, URL and layer
// follow in silence: the state always shows them as they are now, a delta as they were when it was
// made (see Finding.Told). RESOLVED is what was open and is not in next, unless the report is Partial
// or Failed: what was not read is not gone.
func Diff(prev State, r *report.Report, next []Finding, j Judgement) State {
	next = keepIdentities(prev.Open, next)
	s := following(prev, j)
	s.Image, s.Database, s.Outcome = r.Image.Digest, r.Database, r.Outcome
	d := differ{state: &s, judgement: j, image: r.Image.Digest, database: r.Database, engine: r.Engine}

	before := byID(prev.Open)
	whole := r.Outcome != report.Partial && r.Outcome != report.Failed
	after := byID(next)
	installed := installedVersions(r)
	for _, id := range sortedKeys(before, after) {
		old, was := before[id]
		now, is := after[id]
		switch {
		case is && !was:
			d.open(now)
		case is && was:
			d.keep(old, now)
		case whole:
			d.resolve(old, resolutionOf(old, installed))
		default:
			s.Open = append(s.Open, old)
		}
	}
	s.boundResolved()
	return s
}

// Close resolves everything that is open, since the image is gone.
func Close(prev State, j Judgement) State {
	s := following(prev, j)
	s.Image, s.Outcome = "", report.Closed
	resolution := j.Resolution
	if resolution == "" {
		resolution = Deleted
	}
	d := differ{state: &s, judgement: j, image: prev.Image, database: prev.Database, engine: j.Engine}
	for _, f := range slices.SortedFunc(slices.Values(prev.Open), compareFindings) {
		d.resolve(f, resolution)
	}
	s.boundResolved()
	return s
}

// following is prev without its open findings, ready to take the next ones.
func following(prev State, j Judgement) State {
	s := prev
	s.Asset, s.Generation, s.Updated = j.Asset, j.Generation, j.At
	s.Open = nil
	s.Pending = slices.Clone(prev.Pending)
	s.Resolved = maps.Clone(prev.Resolved)
	if s.Resolved == nil {
		s.Resolved = map[string]uint64{}
	}
	return s
}

// differ appends findings and deltas to the state that is being made.
type differ struct {
	state     *State
	judgement Judgement
	image     image.Digest
	database  report.Database
	engine    report.Engine
}

func (d *differ) open(f Finding) {
	last, known := d.state.Resolved[f.ID]
	if !known {
		last = d.state.Forgotten
	}
	delete(d.state.Resolved, f.ID)
	f.Revision = last + 1
	f.FirstSeen, f.Changed = d.judgement.At, d.judgement.At
	d.state.Open = append(d.state.Open, f)
	d.tell(Delta{Transition: Opened, Finding: f})
}

func (d *differ) keep(old, f Finding) {
	f.Revision, f.FirstSeen, f.Changed = old.Revision, old.FirstSeen, old.Changed
	if f.Vulnerability != old.Vulnerability || f.Severity != old.Severity || f.Fixed != old.Fixed || f.Status != old.Status ||
		f.PodSecurity.Message != old.PodSecurity.Message {
		f.Revision++
		f.Changed = d.judgement.At
		d.tell(Delta{Transition: Changed, Finding: f, Old: &old})
	}
	d.state.Open = append(d.state.Open, f)
}

func (d *differ) resolve(f Finding, why Resolution) {
	f.Revision++
	f.Changed = d.judgement.At
	d.state.Resolved[f.ID] = f.Revision
	d.tell(Delta{Transition: Resolved, Finding: f, Resolution: why})
}

func (d *differ) tell(t Delta) {
	t.EventID = EventID(t.Finding.ID, t.Finding.Revision)
	t.Asset, t.Cause, t.At = d.judgement.Asset, d.judgement.Cause, d.judgement.At
	t.Image, t.Database, t.Engine = d.image, d.database, d.engine
	d.state.Pending = append(d.state.Pending, t)
}

// boundResolved drops the lowest revisions above maxResolved: they cost the least, since everything
// that is not in the map has to continue after the highest that was dropped.
func (s *State) boundResolved() {
	excess := len(s.Resolved) - maxResolved
	if excess <= 0 {
		return
	}
	ids := slices.SortedFunc(maps.Keys(s.Resolved), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.Resolved[a], s.Resolved[b]), cmp.Compare(a, b))
	})
	for _, id := range ids[:excess] {
		s.Forgotten = max(s.Forgotten, s.Resolved[id])
		delete(s.Resolved, id)
	}
}

// keepIdentities returns next with the ids of open findings that it continues under another name: when
// a CVE is assigned to what was known by its GHSA, the finding goes on, and neither closes nor opens.
// It is the same finding when it is of the same package and place and shares an id with it. An old id
// goes to one finding only, in the order of ids.
func keepIdentities(open, next []Finding) []Finding {
	next = slices.SortedFunc(slices.Values(next), compareFindings)
	goesOn := byID(next)
	left := map[place][]Finding{} // open findings that nobody continues under their own id
	for _, f := range slices.SortedFunc(slices.Values(open), compareFindings) {
		if _, found := goesOn[f.ID]; !found {
			p := f.place()
			left[p] = append(left[p], f)
		}
	}
	known := byID(open)
	for i, f := range next {
		if _, found := known[f.ID]; found {
			continue
		}
		p := f.place()
		at := slices.IndexFunc(left[p], f.sharesName)
		if at < 0 {
			continue
		}
		next[i].ID = left[p][at].ID
		left[p] = slices.Delete(left[p], at, at+1)
	}
	return next
}

func (f Finding) place() place { return place{f.Type, f.Package, f.Path} }

func (f Finding) names(id string) bool {
	return f.Vulnerability == id || slices.Contains(f.Aliases, id)
}

func (f Finding) sharesName(o Finding) bool {
	return o.names(f.Vulnerability) || slices.ContainsFunc(f.Aliases, o.names)
}

// installedVersions lists what the report found at each place, for the reason of a resolution.
func installedVersions(r *report.Report) map[place][]string {
	out := map[place][]string{}
	for _, res := range r.Results {
		for _, p := range res.Packages {
			at := placeOf(res, p.Name, p.Version, p.Path)
			out[at] = append(out[at], p.Version)
		}
	}
	return out
}

func resolutionOf(f Finding, installed map[place][]string) Resolution {
	versions := installed[f.place()]
	switch {
	case len(versions) == 0:
		return Removed
	case slices.ContainsFunc(versions, func(v string) bool { return slices.Contains(f.Versions, v) }):
		return Withdrawn
	default:
		return Fixed
	}
}

func compareFindings(a, b Finding) int { return cmp.Compare(a.ID, b.ID) }

func byID(list []Finding) map[string]Finding {
	m := make(map[string]Finding, len(list))
	for _, f := range list {
		m[f.ID] = f
	}
	return m
}

func sortedKeys(a, b map[string]Finding) []string {
	ids := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(ids)
	return slices.Compact(ids)
}
