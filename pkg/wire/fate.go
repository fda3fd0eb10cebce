package wire

import (
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// TypeFate is the message type of a fate.Fate.
const TypeFate = "pratique.v1.Fate"

var fateCodec = codec[fate.Fate, *pb.Fate]{(*encoder).fate, (*decoder).fate}

// EncodeFate writes a fate as a pratique.v1.Fate.
func EncodeFate(f fate.Fate) ([]byte, error) { return fateCodec.encode(f) }

// DecodeFate reads what EncodeFate wrote.
func DecodeFate(b []byte) (fate.Fate, error) { return fateCodec.decode(b) }

// FateJSON writes a fate as protobuf JSON on one line, without a newline.
func FateJSON(f fate.Fate) ([]byte, error) { return fateCodec.json(f) }

// FateFromJSON reads what FateJSON wrote, here or in a newer version.
func FateFromJSON(b []byte) (fate.Fate, error) { return fateCodec.fromJSON(b) }

var stages = newEnum(map[fate.Stage]pb.Stage{
	fate.Accepted: pb.Stage_STAGE_ACCEPTED,
	fate.Planning: pb.Stage_STAGE_PLANNING,
	fate.Waiting:  pb.Stage_STAGE_WAITING,
	fate.Matching: pb.Stage_STAGE_MATCHING,
	fate.Decided:  pb.Stage_STAGE_DECIDED,
})

func (e *encoder) fate(f fate.Fate) *pb.Fate {
	return &pb.Fate{
		Request:   text(f.Request),
		Reference: the(&e.cursor, "reference", f.Reference, e.reference),
		Stage:     stages.encode(e, "stage", f.Stage),
		Images:    each(&e.cursor, "images", f.Images, e.imageFate),
		Reason:    text(f.Reason),
		Detail:    text(f.Detail),
		Attempts:  count(f.Attempts),
		LastError: text(f.LastError),
		TraceId:   text(f.TraceID),
		Received:  stamp(f.Received),
		Updated:   stamp(f.Updated),
	}
}

func (d *decoder) fate(m *pb.Fate) fate.Fate {
	return fate.Fate{
		Request:   m.GetRequest(),
		Reference: the(&d.cursor, "reference", m.GetReference(), d.reference),
		Stage:     stages.decode(m.GetStage()),
		Images:    each(&d.cursor, "images", m.GetImages(), d.imageFate),
		Reason:    reason.Code(m.GetReason()),
		Detail:    m.GetDetail(),
		Attempts:  int(m.GetAttempts()),
		LastError: m.GetLastError(),
		TraceID:   m.GetTraceId(),
		Received:  d.time("received", m.GetReceived()),
		Updated:   d.time("updated", m.GetUpdated()),
	}
}

func (e *encoder) imageFate(i fate.Image) *pb.ImageFate {
	return &pb.ImageFate{
		Digest:   e.digest("digest", i.Digest),
		Platform: e.platform(i.Platform),
		Stage:    stages.encode(e, "stage", i.Stage),
		Missing: each(&e.cursor, "missing", i.Missing, func(v image.Digest) string {
			return e.digest("digest", v)
		}),
		Outcome: outcomes.encode(e, "outcome", i.Outcome),
		Reason:  text(i.Reason),
		Detail:  text(i.Detail),
	}
}

func (d *decoder) imageFate(m *pb.ImageFate) fate.Image {
	return fate.Image{
		Digest:   d.digest("digest", m.GetDigest()),
		Platform: d.platform(m.GetPlatform()),
		Stage:    stages.decode(m.GetStage()),
		Missing: each(&d.cursor, "missing", m.GetMissing(), func(s string) image.Digest {
			return d.digest("digest", s)
		}),
		Outcome: outcomes.decode(m.GetOutcome()),
		Reason:  reason.Code(m.GetReason()),
		Detail:  m.GetDetail(),
	}
}
