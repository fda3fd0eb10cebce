package wire

import (
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/work"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// Message types of the jobs in WORK, and of the notice that ends a layer's.
const (
	TypeImageJob    = "pratique.v1.ImageJob"
	TypeLayerJob    = "pratique.v1.LayerJob"
	TypeMatchJob    = "pratique.v1.MatchJob"
	TypeLayerNotice = "pratique.v1.LayerNotice"
)

var (
	imageJobCodec    = codec[work.ImageJob, *pb.ImageJob]{(*encoder).imageJob, (*decoder).imageJob}
	layerJobCodec    = codec[work.LayerJob, *pb.LayerJob]{(*encoder).layerJob, (*decoder).layerJob}
	matchJobCodec    = codec[work.MatchJob, *pb.MatchJob]{(*encoder).matchJob, (*decoder).matchJob}
	layerNoticeCodec = codec[work.Notice, *pb.LayerNotice]{(*encoder).layerNotice, (*decoder).layerNotice}
)

// EncodeImageJob writes an image job as a pratique.v1.ImageJob.
func EncodeImageJob(j work.ImageJob) ([]byte, error) { return imageJobCodec.encode(j) }

// DecodeImageJob reads what EncodeImageJob wrote.
func DecodeImageJob(b []byte) (work.ImageJob, error) { return imageJobCodec.decode(b) }

// EncodeLayerJob writes a layer job as a pratique.v1.LayerJob.
func EncodeLayerJob(j work.LayerJob) ([]byte, error) { return layerJobCodec.encode(j) }

// DecodeLayerJob reads what EncodeLayerJob wrote.
func DecodeLayerJob(b []byte) (work.LayerJob, error) { return layerJobCodec.decode(b) }

// EncodeMatchJob writes a match job as a pratique.v1.MatchJob.
func EncodeMatchJob(j work.MatchJob) ([]byte, error) { return matchJobCodec.encode(j) }

// DecodeMatchJob reads what EncodeMatchJob wrote.
func DecodeMatchJob(b []byte) (work.MatchJob, error) { return matchJobCodec.decode(b) }

// EncodeLayerNotice writes a layer notice as a pratique.v1.LayerNotice.
func EncodeLayerNotice(n work.Notice) ([]byte, error) { return layerNoticeCodec.encode(n) }

// DecodeLayerNotice reads what EncodeLayerNotice wrote.
func DecodeLayerNotice(b []byte) (work.Notice, error) { return layerNoticeCodec.decode(b) }

var (
	lanes = newEnum(map[work.Lane]pb.Lane{
		work.Interactive: pb.Lane_LANE_INTERACTIVE,
		work.Push:        pb.Lane_LANE_PUSH,
		work.Backfill:    pb.Lane_LANE_BACKFILL,
		work.Speculative: pb.Lane_LANE_SPECULATIVE,
	})
	costClasses = newEnum(map[work.Class]pb.CostClass{
		work.XS: pb.CostClass_COST_CLASS_XS,
		work.S:  pb.CostClass_COST_CLASS_S,
		work.M:  pb.CostClass_COST_CLASS_M,
		work.L:  pb.CostClass_COST_CLASS_L,
	})
)

func (e *encoder) origin(o work.Origin) *pb.Origin {
	return &pb.Origin{
		Cause:    causes.encode(e, "cause", o.Cause),
		EventId:  text(o.EventID),
		Request:  text(o.Request),
		Sequence: o.Sequence,
		Received: stamp(o.Received),
	}
}

func (d *decoder) origin(m *pb.Origin) work.Origin {
	return work.Origin{
		Cause:    causes.decode(m.GetCause()),
		EventID:  m.GetEventId(),
		Request:  m.GetRequest(),
		Sequence: m.GetSequence(),
		Received: d.time("received", m.GetReceived()),
	}
}

func (c *cursor) checkImageJob(j work.ImageJob) {
	c.located(j.Reference)
	c.required("lane", string(j.Lane))
}

func (e *encoder) imageJob(j work.ImageJob) *pb.ImageJob {
	e.checkImageJob(j)
	return &pb.ImageJob{
		Reference: the(&e.cursor, "reference", j.Reference, e.reference),
		Action:    actions.encode(e, "action", j.Action),
		Platform: one(&e.cursor, "platform", j.Platform, func(p *image.Platform) *pb.Platform {
			return e.platform(*p)
		}),
		Platforms:  each(&e.cursor, "platforms", j.Platforms, e.platform),
		Index:      e.digest("index", j.Index),
		Asset:      one(&e.cursor, "asset", j.Asset, e.asset),
		Generation: j.Generation,
		Lane:       lanes.encode(e, "lane", j.Lane),
		Origin:     the(&e.cursor, "origin", j.Origin, e.origin),
	}
}

func (d *decoder) imageJob(m *pb.ImageJob) work.ImageJob {
	j := work.ImageJob{
		Reference: the(&d.cursor, "reference", m.GetReference(), d.reference),
		Action:    actions.decode(m.GetAction()),
		Platform: one(&d.cursor, "platform", m.GetPlatform(), func(m *pb.Platform) *image.Platform {
			p := d.platform(m)
			return &p
		}),
		Platforms:  each(&d.cursor, "platforms", m.GetPlatforms(), d.platform),
		Index:      d.digest("index", m.GetIndex()),
		Asset:      one(&d.cursor, "asset", m.GetAsset(), d.asset),
		Generation: m.GetGeneration(),
		Lane:       lanes.decode(m.GetLane()),
		Origin:     the(&d.cursor, "origin", m.GetOrigin(), d.origin),
	}
	d.checkImageJob(j)
	return j
}

func (c *cursor) checkLayerJob(j work.LayerJob) {
	c.required("key", j.Key)
	c.required("host", j.Host)
	c.required("repository", j.Repository)
	c.required("lane", string(j.Lane))
	c.required("layer.blob", string(j.Layer.Blob))
}

func (e *encoder) layerJob(j work.LayerJob) *pb.LayerJob {
	e.checkLayerJob(j)
	return &pb.LayerJob{
		Key:        text(j.Key),
		Analysis:   text(j.Analysis),
		Host:       text(j.Host),
		Repository: text(j.Repository),
		Layer:      the(&e.cursor, "layer", j.Layer, e.layer),
		Pool:       text(j.Pool),
		CostClass:  costClasses.encode(e, "cost_class", j.Class),
		Lane:       lanes.encode(e, "lane", j.Lane),
		Origin:     the(&e.cursor, "origin", j.Origin, e.origin),
	}
}

func (d *decoder) layerJob(m *pb.LayerJob) work.LayerJob {
	j := work.LayerJob{
		Key:        m.GetKey(),
		Analysis:   m.GetAnalysis(),
		Host:       m.GetHost(),
		Repository: m.GetRepository(),
		Layer:      the(&d.cursor, "layer", m.GetLayer(), d.layer),
		Pool:       m.GetPool(),
		Class:      costClasses.decode(m.GetCostClass()),
		Lane:       lanes.decode(m.GetLane()),
		Origin:     the(&d.cursor, "origin", m.GetOrigin(), d.origin),
	}
	d.checkLayerJob(j)
	return j
}

func (c *cursor) checkMatchJob(j work.MatchJob) {
	c.required("lane", string(j.Lane))
	c.enter("image", -1)
	defer c.leave()
	c.located(j.Image.Reference)
	if j.Close == "" {
		c.required("reference.digest", string(j.Image.Digest))
	}
}

func (e *encoder) matchJob(j work.MatchJob) *pb.MatchJob {
	e.checkMatchJob(j)
	return &pb.MatchJob{
		Image:      the(&e.cursor, "image", j.Image, e.image),
		Analysis:   text(j.Analysis),
		Asset:      one(&e.cursor, "asset", j.Asset, e.asset),
		Generation: j.Generation,
		Close:      text(j.Close),
		Database:   text(j.Database),
		Lane:       lanes.encode(e, "lane", j.Lane),
		Origin:     the(&e.cursor, "origin", j.Origin, e.origin),
		Layers:     e.layerCounts(j.Layers),
	}
}

func (d *decoder) matchJob(m *pb.MatchJob) work.MatchJob {
	j := work.MatchJob{
		Image:      the(&d.cursor, "image", m.GetImage(), d.image),
		Analysis:   m.GetAnalysis(),
		Asset:      one(&d.cursor, "asset", m.GetAsset(), d.asset),
		Generation: m.GetGeneration(),
		Close:      m.GetClose(),
		Database:   m.GetDatabase(),
		Lane:       lanes.decode(m.GetLane()),
		Origin:     the(&d.cursor, "origin", m.GetOrigin(), d.origin),
		Layers:     d.layerCounts(m.GetLayers()),
	}
	d.checkMatchJob(j)
	return j
}

func (e *encoder) layerNotice(n work.Notice) *pb.LayerNotice {
	e.required("key", n.Key)
	return &pb.LayerNotice{Key: text(n.Key), Failed: n.Failed}
}

func (d *decoder) layerNotice(m *pb.LayerNotice) work.Notice {
	d.required("key", m.GetKey())
	return work.Notice{Key: m.GetKey(), Failed: m.GetFailed()}
}
