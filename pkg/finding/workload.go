package finding

import (
	"strconv"

	"github.com/pratique-sec/pratique/pkg/key"
	"github.com/pratique-sec/pratique/pkg/report"
)

// Workload is an object of a cluster whose pods are judged: the controller that a person would name, not
// the pods that it makes.
type Workload struct {
	Cluster   string // as whoever posted its manifests calls it
	Namespace string
	Kind      string // "Deployment", "CronJob", …
	Name      string // ends in "-" where the server completes it (metadata.generateName)
}

// PodSecurity is a check of the Pod Security Standards that a workload's pods fail.
type PodSecurity struct {
	Level   string   // that the check belongs to: "baseline", "restricted"
	Check   string   // stable id, as in k8s.io/pod-security-admission: "privileged", "capabilities_restricted"
	Message string   // what the admission plugin would say: names the containers and values
	Version string   // of the standard that was judged by: "v1.34", "latest"
	Fields  []string // of the object that would have to change, all of them, "spec.template.spec.hostNetwork"
}

// WorkloadID is the identity of a finding of class psa: whose it is, and which check of which level fails.
func WorkloadID(w Workload, level, check string) string {
	return key.Of("finding.psa.v1", w.Cluster, w.Namespace, w.Kind, w.Name, level, check)
}

// workloadScanID names one evaluation of a workload: of whom, on which event, for whom, and how it ended.
func workloadScanID(s Scan, w Workload) string {
	return key.Of("scan.psa.v1", w.Cluster, w.Namespace, w.Kind, w.Name,
		strconv.FormatUint(s.Generation, 10), string(s.Outcome), s.Request)
}

// DiffWorkload judges a workload anew, as Diff does an image: it returns the state that follows prev, with
// the transitions between the two appended to Pending. next has neither revisions nor times; version is
// that of the standard, by which a finding that is gone counts as fixed when the same said that it is
// there, and as withdrawn otherwise. prev is not changed.
//
// CHANGED is another severity or message; version and fields follow in silence.
func DiffWorkload(prev State, next []Finding, version string, j Judgement) State {
	s := following(prev, j)
	s.Outcome = report.Clean
	if len(next) > 0 {
		s.Outcome = report.Findings
	}
	d := differ{state: &s, judgement: j, engine: j.Engine}
	before, after := byID(prev.Open), byID(next)
	for _, id := range sortedKeys(before, after) {
		old, was := before[id]
		now, is := after[id]
		switch {
		case is && !was:
			d.open(now)
		case is:
			d.keep(old, now)
		case old.PodSecurity.Version == version:
			d.resolve(old, Fixed)
		default:
			d.resolve(old, Withdrawn)
		}
	}
	s.boundResolved()
	return s
}
