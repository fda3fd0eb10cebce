package wire

import (
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// TypeScan is the message type of a finding.Scan.
const TypeScan = "pratique.v1.Scan"

var scanCodec = codec[finding.Scan, *pb.Scan]{(*encoder).scan, (*decoder).scan}

// EncodeScan writes a scan as a pratique.v1.Scan.
func EncodeScan(s finding.Scan) ([]byte, error) { return scanCodec.encode(s) }

// DecodeScan reads what EncodeScan wrote.
func DecodeScan(b []byte) (finding.Scan, error) { return scanCodec.decode(b) }

// ScanJSON writes a scan as protobuf JSON on one line, without a newline.
func ScanJSON(s finding.Scan) ([]byte, error) { return scanCodec.json(s) }

func (e *encoder) scan(s finding.Scan) *pb.Scan {
	e.required("id", s.ID)
	return &pb.Scan{
		Id:         text(s.ID),
		Reference:  the(&e.cursor, "reference", s.Reference, e.reference),
		Asset:      one(&e.cursor, "asset", s.Asset, e.asset),
		Platform:   e.platform(s.Platform),
		Outcome:    outcomes.encode(e, "outcome", s.Outcome),
		Reason:     text(s.Reason),
		Detail:     text(s.Detail),
		Counts:     e.counts(s.Counts),
		Opened:     count(s.Opened),
		Changed:    count(s.Changed),
		Resolved:   count(s.Resolved),
		Generation: s.Generation,
		Cause:      causes.encode(e, "cause", s.Cause),
		Request:    text(s.Request),
		Database:   e.database(s.Database),
		Engine:     e.engine(s.Engine),
		Layers:     e.layerCounts(s.Layers),
		Received:   stamp(s.Received),
		Finished:   stamp(s.Finished),
	}
}

func (d *decoder) scan(m *pb.Scan) finding.Scan {
	d.required("id", m.GetId())
	return finding.Scan{
		ID:         m.GetId(),
		Reference:  the(&d.cursor, "reference", m.GetReference(), d.reference),
		Asset:      one(&d.cursor, "asset", m.GetAsset(), d.asset),
		Platform:   d.platform(m.GetPlatform()),
		Outcome:    outcomes.decode(m.GetOutcome()),
		Reason:     reason.Code(m.GetReason()),
		Detail:     m.GetDetail(),
		Counts:     d.counts(m.GetCounts()),
		Opened:     int(m.GetOpened()),
		Changed:    int(m.GetChanged()),
		Resolved:   int(m.GetResolved()),
		Generation: m.GetGeneration(),
		Cause:      causes.decode(m.GetCause()),
		Request:    m.GetRequest(),
		Database:   the(&d.cursor, "database", m.GetDatabase(), d.database),
		Engine:     d.engine(m.GetEngine()),
		Layers:     d.layerCounts(m.GetLayers()),
		Received:   d.time("received", m.GetReceived()),
		Finished:   d.time("finished", m.GetFinished()),
	}
}

func (e *encoder) counts(c report.Counts) *pb.Counts {
	return &pb.Counts{
		Critical: count(c.Critical),
		High:     count(c.High),
		Medium:   count(c.Medium),
		Low:      count(c.Low),
		Unknown:  count(c.Unknown),
	}
}

func (d *decoder) counts(m *pb.Counts) report.Counts {
	return report.Counts{
		Critical: int(m.GetCritical()),
		High:     int(m.GetHigh()),
		Medium:   int(m.GetMedium()),
		Low:      int(m.GetLow()),
		Unknown:  int(m.GetUnknown()),
	}
}

func (e *encoder) layerCounts(c finding.LayerCounts) *pb.LayerCounts {
	return &pb.LayerCounts{
		Seen:     count(c.Seen),
		Known:    count(c.Known),
		Waited:   count(c.Waited),
		Analysed: count(c.Analysed),
	}
}

func (d *decoder) layerCounts(m *pb.LayerCounts) finding.LayerCounts {
	return finding.LayerCounts{
		Seen:     int(m.GetSeen()),
		Known:    int(m.GetKnown()),
		Waited:   int(m.GetWaited()),
		Analysed: int(m.GetAnalysed()),
	}
}
