package finding_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/key/keytest"
	"github.com/pratique-sec/pratique/pkg/report"
)

var api = finding.Workload{Cluster: "prod", Namespace: "team-a", Kind: "Deployment", Name: "api"}

func TestGoldenOfWorkloads(t *testing.T) {
	g := keytest.Load(t)
	scan := finding.Scan{Asset: &finding.Asset{Workload: api}, Generation: 41, Outcome: report.Findings, Request: "41-7777777777777777"}
	for name, got := range map[string]string{
		"finding/pod security":        finding.WorkloadID(api, "baseline", "privileged"),
		"finding/pod security, level": finding.WorkloadID(api, "restricted", "runAsNonRoot"),
		"scan/workload":               finding.ScanID(scan),
	} {
		if want := g.Want(t, name); got != want {
			t.Errorf("%s: %s, frozen as %s", name, got, want)
		}
	}
}

// failing makes a finding of a check that fails.
func failing(check, version, message string) finding.Finding {
	return finding.Finding{
		ID: finding.WorkloadID(api, "baseline", check), Class: finding.ClassPSA, Severity: report.High,
		PodSecurity: finding.PodSecurity{Level: "baseline", Check: check, Version: version, Message: message, Fields: []string{message}},
	}
}

func stepWorkload(s finding.State, version string, next ...finding.Finding) finding.State {
	s.Pending = nil
	j := finding.Judgement{
		Asset: finding.Asset{Workload: api}, Generation: s.Generation + 1, Cause: event.CauseRequest,
		At: noon.Add(time.Duration(s.Generation) * time.Hour),
	}
	return finding.DiffWorkload(s, next, version, j)
}

func toldOfWorkload(s finding.State) (out []string) {
	for _, d := range s.Pending {
		out = append(out, string(d.Transition)+" "+d.Finding.PodSecurity.Check+" "+string(d.Resolution))
	}
	return out
}

func TestLifeOfAWorkload(t *testing.T) {
	var s, folded finding.State
	for i, step := range []struct {
		version string
		next    []finding.Finding
		want    []string
		outcome report.Outcome
	}{
		{"v1.34", nil, nil, report.Clean},
		{"v1.34", []finding.Finding{failing("hostPorts", "v1.34", "80")}, []string{"opened hostPorts "}, report.Findings},
		{"v1.34", []finding.Finding{failing("hostPorts", "v1.34", "80")}, nil, report.Findings},
		{"v1.34", []finding.Finding{failing("hostPorts", "v1.34", "80, 81")}, []string{"changed hostPorts "}, report.Findings},
		{"latest", []finding.Finding{failing("hostPorts", "latest", "80, 81")}, nil, report.Findings},
		{"v1.34", nil, []string{"resolved hostPorts withdrawn"}, report.Clean},
		{"v1.34", []finding.Finding{failing("hostPorts", "v1.34", "80")}, []string{"opened hostPorts "}, report.Findings},
		{"v1.34", nil, []string{"resolved hostPorts fixed"}, report.Clean},
	} {
		s = stepWorkload(s, step.version, step.next...)
		if diff := cmp.Diff(step.want, toldOfWorkload(s)); diff != "" || s.Outcome != step.outcome {
			t.Errorf("step %d: outcome %s; transitions differ (-want +got):\n%s", i, s.Outcome, diff)
		}
		for _, d := range s.Pending {
			if err := finding.Fold(&folded, d); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
			if d.EventID != finding.EventID(d.Finding.ID, d.Finding.Revision) {
				t.Errorf("step %d: event id %s", i, d.EventID)
			}
		}
		if diff := cmp.Diff(toldOf(s.Open), toldOf(folded.Open)); diff != "" {
			t.Errorf("step %d: folding the deltas gives other findings (-state +folded):\n%s", i, diff)
		}
	}
	if last := s.Resolved[finding.WorkloadID(api, "baseline", "hostPorts")]; last != 5 {
		t.Errorf("last revision is %d, want 5", last)
	}
}

func toldOf(open []finding.Finding) (out []finding.Finding) {
	for _, f := range open {
		out = append(out, f.Told())
	}
	return out
}
