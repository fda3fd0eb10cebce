package wire

import (
	"github.com/pratique-sec/pratique/pkg/image"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

func (e *encoder) platform(p image.Platform) *pb.Platform {
	return &pb.Platform{Os: text(p.OS), Architecture: text(p.Architecture), Variant: text(p.Variant)}
}

func (d *decoder) platform(m *pb.Platform) image.Platform {
	return image.Platform{OS: m.GetOs(), Architecture: m.GetArchitecture(), Variant: m.GetVariant()}
}

func (e *encoder) reference(r image.Reference) *pb.Reference {
	return &pb.Reference{
		Host:       text(r.Host),
		Repository: text(r.Repository),
		Tag:        text(r.Tag),
		Digest:     e.digest("digest", r.Digest),
	}
}

func (d *decoder) reference(m *pb.Reference) image.Reference {
	return image.Reference{
		Host:       m.GetHost(),
		Repository: m.GetRepository(),
		Tag:        m.GetTag(),
		Digest:     d.digest("digest", m.GetDigest()),
	}
}

// located refuses a reference that does not say where.
func (c *cursor) located(r image.Reference) {
	c.enter("reference", -1)
	defer c.leave()
	c.required("host", r.Host)
	c.required("repository", r.Repository)
}

func (e *encoder) layer(l image.Layer) *pb.Layer {
	return &pb.Layer{
		Blob:      e.digest("blob", l.Blob),
		DiffId:    e.digest("diff_id", l.DiffID),
		Size:      l.Size,
		MediaType: text(l.MediaType),
		CreatedBy: text(l.CreatedBy),
	}
}

func (d *decoder) layer(m *pb.Layer) image.Layer {
	return image.Layer{
		Blob:      d.digest("blob", m.GetBlob()),
		DiffID:    d.digest("diff_id", m.GetDiffId()),
		Size:      m.GetSize(),
		MediaType: m.GetMediaType(),
		CreatedBy: m.GetCreatedBy(),
	}
}

func (e *encoder) image(i image.Image) *pb.Image {
	return &pb.Image{
		Reference: the(&e.cursor, "reference", i.Reference, e.reference),
		Index:     e.digest("index", i.Index),
		Config:    e.digest("config", i.Config),
		Platform:  e.platform(i.Platform),
		Created:   stamp(i.Created),
		Layers:    each(&e.cursor, "layers", i.Layers, e.layer),
	}
}

func (d *decoder) image(m *pb.Image) image.Image {
	return image.Image{
		Reference: the(&d.cursor, "reference", m.GetReference(), d.reference),
		Index:     d.digest("index", m.GetIndex()),
		Config:    d.digest("config", m.GetConfig()),
		Platform:  d.platform(m.GetPlatform()),
		Created:   d.time("created", m.GetCreated()),
		Layers:    each(&d.cursor, "layers", m.GetLayers(), d.layer),
	}
}
