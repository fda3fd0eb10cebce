package wire

import (
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/pratique-sec/pratique/pkg/reason"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// ScanRequest is the body of POST /v1/scans. Its words are the caller's: whoever gets it parses them.
type ScanRequest struct {
	Reference string
	Platforms []string // "os/architecture[/variant]"; none: the configured ones
}

// ScanAccepted is the answer to a ScanRequest that was stored.
type ScanAccepted struct {
	ID        string
	StatusURL string // path of its fate on the same server: /v1/scans/{id}
}

// EventsAccepted is the answer to a notification whose events were all stored.
type EventsAccepted struct {
	Accepted int
	Dropped  map[string]int // by why: "pull", "blob", …
}

// Problem is the answer of any API call that failed.
type Problem struct {
	Code    reason.Code
	Message string // for people: names the field or bound and the way out
	TraceID string // "" when the call was not traced
}

var (
	scanRequestCodec    = codec[ScanRequest, *pb.ScanRequest]{(*encoder).scanRequest, (*decoder).scanRequest}
	scanAcceptedCodec   = codec[ScanAccepted, *pb.ScanAccepted]{(*encoder).scanAccepted, (*decoder).scanAccepted}
	eventsAcceptedCodec = codec[EventsAccepted, *pb.EventsAccepted]{(*encoder).eventsAccepted, (*decoder).eventsAccepted}
	problemCodec        = codec[Problem, *pb.Problem]{(*encoder).problem, (*decoder).problem}
)

// ScanRequestJSON writes a scan request as protobuf JSON on one line, without a newline.
func ScanRequestJSON(r ScanRequest) ([]byte, error) { return scanRequestCodec.json(r) }

// ScanRequestFromJSON reads a scan request. Unlike everything else it refuses unknown fields: in a
// request they are typing errors, and would be ignored in silence. Its errors are reason.BadRequest.
func ScanRequestFromJSON(b []byte) (ScanRequest, error) {
	m := &pb.ScanRequest{}
	if err := protojson.Unmarshal(b, m); err != nil {
		return ScanRequest{}, reason.Refusef(reason.BadRequest, "scan request: %s", plain(err))
	}
	if m.GetReference() == "" {
		return ScanRequest{}, reason.Refusef(reason.BadRequest, "scan request: reference: is required")
	}
	return scanRequestCodec.value(m)
}

// ScanAcceptedJSON writes the answer to a scan request as protobuf JSON on one line.
func ScanAcceptedJSON(a ScanAccepted) ([]byte, error) { return scanAcceptedCodec.json(a) }

// ScanAcceptedFromJSON reads what ScanAcceptedJSON wrote, here or in a newer version.
func ScanAcceptedFromJSON(b []byte) (ScanAccepted, error) { return scanAcceptedCodec.fromJSON(b) }

// EventsAcceptedJSON writes the answer to a notification as protobuf JSON on one line.
func EventsAcceptedJSON(a EventsAccepted) ([]byte, error) { return eventsAcceptedCodec.json(a) }

// ProblemJSON writes a problem as protobuf JSON on one line, without a newline.
func ProblemJSON(p Problem) ([]byte, error) { return problemCodec.json(p) }

// ProblemFromJSON reads what ProblemJSON wrote, here or in a newer version.
func ProblemFromJSON(b []byte) (Problem, error) { return problemCodec.fromJSON(b) }

func (e *encoder) scanRequest(r ScanRequest) *pb.ScanRequest {
	e.required("reference", r.Reference)
	return &pb.ScanRequest{Reference: text(r.Reference), Platforms: texts(r.Platforms)}
}

func (d *decoder) scanRequest(m *pb.ScanRequest) ScanRequest {
	d.required("reference", m.GetReference())
	return ScanRequest{Reference: m.GetReference(), Platforms: m.GetPlatforms()}
}

func (e *encoder) scanAccepted(a ScanAccepted) *pb.ScanAccepted {
	return &pb.ScanAccepted{Id: text(a.ID), StatusUrl: text(a.StatusURL)}
}

func (d *decoder) scanAccepted(m *pb.ScanAccepted) ScanAccepted {
	return ScanAccepted{ID: m.GetId(), StatusURL: m.GetStatusUrl()}
}

func (e *encoder) eventsAccepted(a EventsAccepted) *pb.EventsAccepted {
	return &pb.EventsAccepted{Accepted: count(a.Accepted), Dropped: entries(a.Dropped, count)}
}

func (d *decoder) eventsAccepted(m *pb.EventsAccepted) EventsAccepted {
	return EventsAccepted{
		Accepted: int(m.GetAccepted()),
		Dropped:  entries(m.GetDropped(), func(n int32) int { return int(n) }),
	}
}

func (e *encoder) problem(p Problem) *pb.Problem {
	return &pb.Problem{Code: text(p.Code), Message: text(p.Message), TraceId: text(p.TraceID)}
}

func (d *decoder) problem(m *pb.Problem) Problem {
	return Problem{Code: reason.Code(m.GetCode()), Message: m.GetMessage(), TraceID: m.GetTraceId()}
}
