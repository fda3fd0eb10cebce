package wire

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"

	"google.golang.org/protobuf/proto"
)

// The same messages of the other kind: manifests are posted and judged.
var (
	workload   = finding.Asset{Workload: finding.Workload{Cluster: "prod", Namespace: "team-a", Kind: "Deployment", Name: "api"}}
	privileged = finding.Finding{
		ID:       "1212121212121212121212121212121212121212121212121212121212121212",
		Revision: 1,
		Class:    finding.ClassPSA,
		Severity: report.High,
		Title:    "privileged",
		URL:      "https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline",
		PodSecurity: finding.PodSecurity{
			Level: "baseline", Check: "privileged", Version: "latest",
			Message: `privileged (container "api" must not set securityContext.privileged=true)`,
			Fields:  []string{"spec.template.spec.containers[0].securityContext.privileged"},
		},
		FirstSeen: judged,
		Changed:   judged,
	}
	privilegedOpened = finding.Delta{
		EventID:    "3434343434343434343434343434343434343434343434343434343434343434",
		Asset:      workload,
		Transition: finding.Opened,
		Finding:    privileged,
		Cause:      event.CauseRequest,
		Engine:     report.Engine{Version: "0.1.0"},
		At:         judged,
	}
)

func TestGoldenOfManifests(t *testing.T) {
	for file, c := range map[string]struct {
		form string
		v    any
	}{
		"Event-manifest": {"Event", event.Event{
			ID: origin.EventID, Kind: event.KindManifest, Source: "api", Action: event.Request, Cause: event.CauseRequest,
			Received:  received,
			Manifests: event.Manifests{Cluster: "prod", Namespace: "default", Body: []byte("kind: Pod\n")},
		}},
		"Delta-psa": {"Delta", privilegedOpened},
		"State-psa": {"State", finding.State{
			Asset: workload, Generation: 41, Open: []finding.Finding{privileged}, Pending: []finding.Delta{privilegedOpened},
			Outcome: report.Findings, Updated: judged,
		}},
		"Scan-psa": {"Scan", finding.Scan{
			ID: "5656565656565656565656565656565656565656565656565656565656565656", Asset: &workload,
			Outcome: report.Findings, Counts: report.Counts{High: 1}, Opened: 1, Generation: 41,
			Cause: event.CauseRequest, Request: "41-7777777777777777", Engine: report.Engine{Version: "0.1.0"},
			Received: received, Finished: judged,
		}},
	} {
		f := formNamed(t, c.form)
		b, err := f.encode(c.v)
		if err != nil {
			t.Fatal(err)
		}
		line, err := f.json(c.v)
		if err != nil {
			t.Fatal(err)
		}
		line = append(line, '\n')
		if *update {
			write(t, file+".binpb", b)
			write(t, file+".json", line)
		}
		if want := golden(t, file, ".binpb"); !bytes.Equal(b, want) {
			t.Errorf("%s: encoded is\n%x\nwant\n%x", file, b, want)
		}
		if diff := cmp.Diff(string(golden(t, file, ".json")), string(line)); diff != "" {
			t.Errorf("%s: JSON differs (-want +got):\n%s", file, diff)
		}
		if got, err := f.decode(b); err != nil || cmp.Diff(c.v, got) != "" {
			t.Errorf("%s: decoded differs, err %v (-want +got):\n%s", file, err, cmp.Diff(c.v, got))
		}
	}
}

func TestManifestsNameTheirCluster(t *testing.T) {
	for want, m := range map[string]proto.Message{
		"decode Event: manifests.cluster: is required": &pb.Event{Id: "x", Kind: pb.EventKind_EVENT_KIND_MANIFEST},
		"decode Delta: asset.workload.name: is required": &pb.Delta{
			EventId: "x", Transition: 1, Finding: &pb.Finding{Id: "f"},
			Asset: &pb.Asset{Workload: &pb.Workload{Cluster: "c", Kind: "Pod"}},
		},
		"decode Delta: finding.pod_security.check: is required": &pb.Delta{
			EventId: "x", Transition: 1, Finding: &pb.Finding{Id: "f", PodSecurity: &pb.PodSecurity{Level: "baseline"}},
			Asset: &pb.Asset{Workload: &pb.Workload{Cluster: "c", Kind: "Pod", Name: "p"}},
		},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		v, err := formNamed(t, name(m)).decode(b)
		if err == nil {
			t.Fatalf("decoded %+v", v)
		}
		wantRefusal(t, err, reason.Malformed, want)
	}
}
