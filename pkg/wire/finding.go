package wire

import (
	"github.com/pratique-sec/pratique/pkg/finding"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// Message types of what subscribers of findings read.
const (
	TypeState = "pratique.v1.State"
	TypeDelta = "pratique.v1.Delta"
)

var (
	stateCodec = codec[finding.State, *pb.State]{(*encoder).state, (*decoder).state}
	deltaCodec = codec[finding.Delta, *pb.Delta]{(*encoder).delta, (*decoder).delta}
)

// EncodeState writes an asset's state as a pratique.v1.State, not compressed.
func EncodeState(s finding.State) ([]byte, error) { return stateCodec.encode(s) }

// DecodeState reads what EncodeState wrote.
func DecodeState(b []byte) (finding.State, error) { return stateCodec.decode(b) }

// StateJSON writes an asset's state as protobuf JSON on one line, without a newline.
func StateJSON(s finding.State) ([]byte, error) { return stateCodec.json(s) }

// EncodeDelta writes a delta as a pratique.v1.Delta.
func EncodeDelta(d finding.Delta) ([]byte, error) { return deltaCodec.encode(d) }

// DecodeDelta reads what EncodeDelta wrote.
func DecodeDelta(b []byte) (finding.Delta, error) { return deltaCodec.decode(b) }

// DeltaJSON writes a delta as protobuf JSON on one line, without a newline.
func DeltaJSON(d finding.Delta) ([]byte, error) { return deltaCodec.json(d) }

var (
	findingClasses = newEnum(map[finding.Class]pb.FindingClass{
		finding.ClassVuln: pb.FindingClass_FINDING_CLASS_VULN,
		finding.ClassPSA:  pb.FindingClass_FINDING_CLASS_PSA,
	})
	transitions = newEnum(map[finding.Transition]pb.Transition{
		finding.Opened:   pb.Transition_TRANSITION_OPENED,
		finding.Changed:  pb.Transition_TRANSITION_CHANGED,
		finding.Resolved: pb.Transition_TRANSITION_RESOLVED,
	})
	resolutions = newEnum(map[finding.Resolution]pb.Resolution{
		finding.Fixed:     pb.Resolution_RESOLUTION_FIXED,
		finding.Removed:   pb.Resolution_RESOLUTION_REMOVED,
		finding.Withdrawn: pb.Resolution_RESOLUTION_WITHDRAWN,
		finding.Deleted:   pb.Resolution_RESOLUTION_DELETED,
	})
)

func (c *cursor) checkAsset(a *finding.Asset) {
	if a.Workload != (finding.Workload{}) {
		return // checked where it was converted
	}
	c.required("host", a.Host)
	c.required("repository", a.Repository)
	c.required("track", a.Track)
}

func (e *encoder) asset(a *finding.Asset) *pb.Asset {
	e.checkAsset(a)
	return &pb.Asset{
		Host:       text(a.Host),
		Repository: text(a.Repository),
		Track:      text(a.Track),
		Platform:   e.platform(a.Platform),
		Workload:   the(&e.cursor, "workload", a.Workload, e.workload),
	}
}

func (d *decoder) asset(m *pb.Asset) *finding.Asset {
	a := &finding.Asset{
		Host:       m.GetHost(),
		Repository: m.GetRepository(),
		Track:      m.GetTrack(),
		Platform:   d.platform(m.GetPlatform()),
		Workload:   the(&d.cursor, "workload", m.GetWorkload(), d.workload),
	}
	d.checkAsset(a)
	return a
}

func (e *encoder) finding(f *finding.Finding) *pb.Finding {
	e.required("id", f.ID)
	return &pb.Finding{
		Id:            text(f.ID),
		Revision:      f.Revision,
		Class:         findingClasses.encode(e, "class", f.Class),
		Vulnerability: text(f.Vulnerability),
		Aliases:       texts(f.Aliases),
		Type:          text(f.Type),
		Package:       text(f.Package),
		Versions:      texts(f.Versions),
		Path:          text(f.Path),
		Fixed:         text(f.Fixed),
		Status:        text(f.Status),
		Severity:      e.severity(f.Severity),
		Title:         text(f.Title),
		Url:           text(f.URL),
		Layer:         e.digest("layer", f.Layer),
		CreatedBy:     text(f.CreatedBy),
		FirstSeen:     stamp(f.FirstSeen),
		Changed:       stamp(f.Changed),
		PodSecurity:   the(&e.cursor, "pod_security", f.PodSecurity, e.podSecurity),
	}
}

func (d *decoder) finding(m *pb.Finding) *finding.Finding {
	d.required("id", m.GetId())
	return &finding.Finding{
		ID:            m.GetId(),
		Revision:      m.GetRevision(),
		Class:         findingClasses.decode(m.GetClass()),
		Vulnerability: m.GetVulnerability(),
		Aliases:       m.GetAliases(),
		Type:          m.GetType(),
		Package:       m.GetPackage(),
		Versions:      m.GetVersions(),
		Path:          m.GetPath(),
		Fixed:         m.GetFixed(),
		Status:        m.GetStatus(),
		Severity:      d.severity(m.GetSeverity()),
		Title:         m.GetTitle(),
		URL:           m.GetUrl(),
		Layer:         d.digest("layer", m.GetLayer()),
		CreatedBy:     m.GetCreatedBy(),
		FirstSeen:     d.time("first_seen", m.GetFirstSeen()),
		Changed:       d.time("changed", m.GetChanged()),
		PodSecurity:   the(&d.cursor, "pod_security", m.GetPodSecurity(), d.podSecurity),
	}
}

func (e *encoder) delta(v finding.Delta) *pb.Delta {
	e.required("event_id", v.EventID)
	e.required("transition", string(v.Transition))
	return &pb.Delta{
		EventId:    text(v.EventID),
		Asset:      the(&e.cursor, "asset", &v.Asset, e.asset),
		Transition: transitions.encode(e, "transition", v.Transition),
		Finding:    the(&e.cursor, "finding", &v.Finding, e.finding),
		Old:        one(&e.cursor, "old", v.Old, e.finding),
		Resolution: resolutions.encode(e, "resolution", v.Resolution),
		Cause:      causes.encode(e, "cause", v.Cause),
		Image:      e.digest("image", v.Image),
		Database:   e.database(v.Database),
		Engine:     e.engine(v.Engine),
		At:         stamp(v.At),
	}
}

func (d *decoder) delta(m *pb.Delta) finding.Delta {
	v := finding.Delta{
		EventID:    m.GetEventId(),
		Asset:      *the(&d.cursor, "asset", m.GetAsset(), d.asset),
		Transition: transitions.decode(m.GetTransition()),
		Finding:    *the(&d.cursor, "finding", m.GetFinding(), d.finding),
		Old:        one(&d.cursor, "old", m.GetOld(), d.finding),
		Resolution: resolutions.decode(m.GetResolution()),
		Cause:      causes.decode(m.GetCause()),
		Image:      d.digest("image", m.GetImage()),
		Database:   the(&d.cursor, "database", m.GetDatabase(), d.database),
		Engine:     d.engine(m.GetEngine()),
		At:         d.time("at", m.GetAt()),
	}
	d.required("event_id", v.EventID)
	d.required("transition", string(v.Transition))
	return v
}

func (e *encoder) state(s finding.State) *pb.State {
	return &pb.State{
		Asset:      the(&e.cursor, "asset", &s.Asset, e.asset),
		Image:      e.digest("image", s.Image),
		Generation: s.Generation,
		Database:   e.database(s.Database),
		Open: each(&e.cursor, "open", s.Open, func(f finding.Finding) *pb.Finding {
			return e.finding(&f)
		}),
		Resolved:  entries(s.Resolved, same[uint64]),
		Forgotten: s.Forgotten,
		Pending:   each(&e.cursor, "pending", s.Pending, e.delta),
		Outcome:   outcomes.encode(e, "outcome", s.Outcome),
		Updated:   stamp(s.Updated),
	}
}

func (d *decoder) state(m *pb.State) finding.State {
	return finding.State{
		Asset:      *the(&d.cursor, "asset", m.GetAsset(), d.asset),
		Image:      d.digest("image", m.GetImage()),
		Generation: m.GetGeneration(),
		Database:   the(&d.cursor, "database", m.GetDatabase(), d.database),
		Open: each(&d.cursor, "open", m.GetOpen(), func(m *pb.Finding) finding.Finding {
			return *d.finding(m)
		}),
		Resolved:  entries(m.GetResolved(), same[uint64]),
		Forgotten: m.GetForgotten(),
		Pending:   each(&d.cursor, "pending", m.GetPending(), d.delta),
		Outcome:   outcomes.decode(m.GetOutcome()),
		Updated:   d.time("updated", m.GetUpdated()),
	}
}

func same[T any](v T) T { return v }
