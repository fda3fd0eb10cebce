package wire

import (
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// TypePointer is the message type of a vulndb.Pointer.
const TypePointer = "pratique.v1.Pointer"

var pointerCodec = codec[vulndb.Pointer, *pb.Pointer]{(*encoder).pointer, (*decoder).pointer}

// EncodePointer writes a database pointer as a pratique.v1.Pointer.
func EncodePointer(p vulndb.Pointer) ([]byte, error) { return pointerCodec.encode(p) }

// DecodePointer reads what EncodePointer wrote.
func DecodePointer(b []byte) (vulndb.Pointer, error) { return pointerCodec.decode(b) }

var databaseKinds = newEnum(map[vulndb.Kind]pb.DatabaseKind{
	vulndb.Vulnerabilities: pb.DatabaseKind_DATABASE_KIND_VULNDB,
	vulndb.Java:            pb.DatabaseKind_DATABASE_KIND_JAVADB,
})

func (e *encoder) pointer(p vulndb.Pointer) *pb.Pointer {
	e.required("kind", string(p.Kind))
	e.required("digest", p.Digest)
	return &pb.Pointer{
		Kind:       databaseKinds.encode(e, "kind", p.Kind),
		Digest:     text(p.Digest),
		Size:       p.Size,
		UpdatedAt:  stamp(p.UpdatedAt),
		NextUpdate: stamp(p.NextUpdate),
		LoadedAt:   stamp(p.LoadedAt),
		Sequence:   p.Sequence,
	}
}

func (d *decoder) pointer(m *pb.Pointer) vulndb.Pointer {
	p := vulndb.Pointer{
		Kind:       databaseKinds.decode(m.GetKind()),
		Digest:     m.GetDigest(),
		Size:       m.GetSize(),
		UpdatedAt:  d.time("updated_at", m.GetUpdatedAt()),
		NextUpdate: d.time("next_update", m.GetNextUpdate()),
		LoadedAt:   d.time("loaded_at", m.GetLoadedAt()),
		Sequence:   m.GetSequence(),
	}
	d.required("kind", string(p.Kind))
	d.required("digest", p.Digest)
	return p
}

func (e *encoder) database(v report.Database) *pb.Database {
	return &pb.Database{Digest: text(v.Digest), UpdatedAt: stamp(v.UpdatedAt), Sequence: v.Sequence}
}

func (d *decoder) database(m *pb.Database) report.Database {
	return report.Database{
		Digest:    m.GetDigest(),
		UpdatedAt: d.time("updated_at", m.GetUpdatedAt()),
		Sequence:  m.GetSequence(),
	}
}

func (e *encoder) engine(v report.Engine) *pb.Engine {
	return &pb.Engine{
		Version:  text(v.Version),
		Trivy:    text(v.Trivy),
		Analysis: text(v.Analysis),
		JavaDb:   text(v.JavaDB),
	}
}

func (d *decoder) engine(m *pb.Engine) report.Engine {
	return report.Engine{
		Version:  m.GetVersion(),
		Trivy:    m.GetTrivy(),
		Analysis: m.GetAnalysis(),
		JavaDB:   m.GetJavaDb(),
	}
}
