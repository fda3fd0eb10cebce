package wire

import (
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/reason"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// Message types of the fact store's values.
const (
	TypeFacts   = "pratique.v1.Facts"
	TypeRecord  = "pratique.v1.Record"
	TypeVerdict = "pratique.v1.Verdict"
)

var (
	factsCodec   = codec[facts.Layer, *pb.Facts]{(*encoder).facts, (*decoder).facts}
	recordCodec  = codec[facts.Record, *pb.Record]{(*encoder).record, (*decoder).record}
	verdictCodec = codec[facts.Verdict, *pb.Verdict]{(*encoder).verdict, (*decoder).verdict}
)

// EncodeFacts writes a layer's facts as pratique.v1.Facts.
func EncodeFacts(l facts.Layer) ([]byte, error) { return factsCodec.encode(l) }

// DecodeFacts reads what EncodeFacts wrote. The value shares nothing with b.
func DecodeFacts(b []byte) (facts.Layer, error) { return factsCodec.decode(b) }

// EncodeRecord writes a blob's record as a pratique.v1.Record.
func EncodeRecord(r facts.Record) ([]byte, error) { return recordCodec.encode(r) }

// DecodeRecord reads what EncodeRecord wrote.
func DecodeRecord(b []byte) (facts.Record, error) { return recordCodec.decode(b) }

// EncodeVerdict writes a verdict as a pratique.v1.Verdict.
func EncodeVerdict(v facts.Verdict) ([]byte, error) { return verdictCodec.encode(v) }

// DecodeVerdict reads what EncodeVerdict wrote.
func DecodeVerdict(b []byte) (facts.Verdict, error) { return verdictCodec.decode(b) }

func (e *encoder) notRead(n facts.NotRead) *pb.NotRead {
	return &pb.NotRead{Path: text(n.Path), Code: text(n.Code), Detail: text(n.Detail), Packages: n.Packages}
}

func (d *decoder) notRead(m *pb.NotRead) facts.NotRead {
	return facts.NotRead{
		Path:     m.GetPath(),
		Code:     reason.Code(m.GetCode()),
		Detail:   m.GetDetail(),
		Packages: m.GetPackages(),
	}
}

func (e *encoder) facts(l facts.Layer) *pb.Facts {
	e.required("diff_id", string(l.DiffID))
	e.required("analysis", l.Analysis)
	return &pb.Facts{
		DiffId:   e.digest("diff_id", l.DiffID),
		Analysis: text(l.Analysis),
		Blob:     l.Blob,
		NotRead:  each(&e.cursor, "not_read", l.NotRead, e.notRead),
		Size:     l.Size,
		Entries:  l.Entries,
	}
}

func (d *decoder) facts(m *pb.Facts) facts.Layer {
	d.required("diff_id", m.GetDiffId())
	d.required("analysis", m.GetAnalysis())
	return facts.Layer{
		DiffID:   d.digest("diff_id", m.GetDiffId()),
		Analysis: m.GetAnalysis(),
		Blob:     m.GetBlob(),
		NotRead:  each(&d.cursor, "not_read", m.GetNotRead(), d.notRead),
		Size:     m.GetSize(),
		Entries:  m.GetEntries(),
	}
}

func (e *encoder) record(r facts.Record) *pb.Record {
	e.required("blob", string(r.Blob))
	e.required("diff_id", string(r.DiffID))
	return &pb.Record{
		Blob:   e.digest("blob", r.Blob),
		DiffId: e.digest("diff_id", r.DiffID),
		Size:   r.Size,
	}
}

func (d *decoder) record(m *pb.Record) facts.Record {
	d.required("blob", m.GetBlob())
	d.required("diff_id", m.GetDiffId())
	return facts.Record{
		Blob:   d.digest("blob", m.GetBlob()),
		DiffID: d.digest("diff_id", m.GetDiffId()),
		Size:   m.GetSize(),
	}
}

func (e *encoder) verdict(v facts.Verdict) *pb.Verdict {
	e.required("key", v.Key)
	e.required("code", string(v.Code))
	return &pb.Verdict{Key: text(v.Key), Code: text(v.Code), Detail: text(v.Detail), At: stamp(v.At)}
}

func (d *decoder) verdict(m *pb.Verdict) facts.Verdict {
	d.required("key", m.GetKey())
	d.required("code", m.GetCode())
	return facts.Verdict{
		Key:    m.GetKey(),
		Code:   reason.Code(m.GetCode()),
		Detail: m.GetDetail(),
		At:     d.time("at", m.GetAt()),
	}
}
