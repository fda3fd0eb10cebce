package wire

import (
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// What only manifests and the findings about them have is a message of its own: absent elsewhere.

func (e *encoder) workload(w finding.Workload) *pb.Workload {
	if w == (finding.Workload{}) {
		return nil
	}
	e.checkWorkload(w)
	return &pb.Workload{Cluster: text(w.Cluster), Namespace: text(w.Namespace), Kind: text(w.Kind), Name: text(w.Name)}
}

func (d *decoder) workload(m *pb.Workload) finding.Workload {
	if m == nil {
		return finding.Workload{}
	}
	w := finding.Workload{Cluster: m.GetCluster(), Namespace: m.GetNamespace(), Kind: m.GetKind(), Name: m.GetName()}
	d.checkWorkload(w)
	return w
}

func (c *cursor) checkWorkload(w finding.Workload) {
	c.required("cluster", w.Cluster)
	c.required("kind", w.Kind)
	c.required("name", w.Name)
}

func (e *encoder) podSecurity(p finding.PodSecurity) *pb.PodSecurity {
	if p.Check == "" {
		return nil
	}
	return &pb.PodSecurity{
		Level: text(p.Level), Check: text(p.Check), Message: text(p.Message), Version: text(p.Version), Fields: texts(p.Fields),
	}
}

func (d *decoder) podSecurity(m *pb.PodSecurity) finding.PodSecurity {
	if m == nil {
		return finding.PodSecurity{}
	}
	d.required("check", m.GetCheck())
	return finding.PodSecurity{
		Level: m.GetLevel(), Check: m.GetCheck(), Message: m.GetMessage(), Version: m.GetVersion(), Fields: m.GetFields(),
	}
}

func (e *encoder) manifests(v event.Manifests) *pb.Manifests {
	if v.Cluster == "" {
		return nil
	}
	return &pb.Manifests{Cluster: text(v.Cluster), Namespace: text(v.Namespace), Body: v.Body}
}

func (d *decoder) manifests(m *pb.Manifests) event.Manifests {
	return event.Manifests{Cluster: m.GetCluster(), Namespace: m.GetNamespace(), Body: m.GetBody()}
}

// ManifestsAccepted is the answer to manifests that were posted.
type ManifestsAccepted struct {
	ID        string
	Documents int
}

var manifestsAcceptedCodec = codec[ManifestsAccepted, *pb.ManifestsAccepted]{
	func(_ *encoder, v ManifestsAccepted) *pb.ManifestsAccepted {
		return &pb.ManifestsAccepted{Id: text(v.ID), Documents: count(v.Documents)}
	},
	func(_ *decoder, m *pb.ManifestsAccepted) ManifestsAccepted {
		return ManifestsAccepted{ID: m.GetId(), Documents: int(m.GetDocuments())}
	},
}

// ManifestsAcceptedJSON writes the answer as protobuf JSON on one line, without a newline.
func ManifestsAcceptedJSON(v ManifestsAccepted) ([]byte, error) {
	return manifestsAcceptedCodec.json(v)
}
