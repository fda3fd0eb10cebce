package alertrouter

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/system"
)

// Bounds of what an alert says, in bytes. Values come from hostile images and manifests.
const (
	maxLabel      = 256
	maxAnnotation = 1024
)

// classSystem is the class of Pratique's own troubles.
const classSystem = "system"

// Names of alerts: one for each class.
const (
	nameVulnerability = "Vulnerability"
	namePodSecurity   = "PodSecurity"
	nameTrouble       = "PratiqueTrouble"
)

// ofDelta makes an alert of a transition. Its labels say what is wrong with whom, its annotations what
// people want to know beside that. The label "cause" is added when it is known whether the alert fires.
func ofDelta(d finding.Delta) alert.Alert {
	f := d.Finding
	labels := map[string]string{
		"class":    string(f.Class),
		"severity": f.Severity.String(),
		"finding":  f.ID,
	}
	annotations := map[string]string{
		"description": f.Title,
		"url":         f.URL,
		"change":      change(d),
		"resolution":  string(d.Resolution),
		"first_seen":  when(f.FirstSeen),
	}
	if f.Class == finding.ClassPSA {
		ofWorkload(d, labels, annotations)
	} else {
		ofImage(d, labels, annotations)
	}
	return alert.Alert{ID: f.ID, Revision: f.Revision, Labels: bounded(labels, maxLabel), Annotations: bounded(annotations, maxAnnotation)}
}

func ofImage(d finding.Delta, labels, annotations map[string]string) {
	f, a := d.Finding, d.Asset
	asset := a.Host + "/" + a.Repository + ":" + a.Track
	maps.Copy(labels, map[string]string{
		"alertname":     nameVulnerability,
		"asset":         asset,
		"registry":      a.Host,
		"repository":    a.Repository,
		"track":         a.Track,
		"platform":      a.Platform.String(),
		"vulnerability": f.Vulnerability,
		"package":       f.Package,
		"type":          f.Type,
		"status":        f.Status,
		"fixable":       yesNo(f.Fixed != ""),
	})
	installed := strings.Join(f.Versions, ", ")
	maps.Copy(annotations, map[string]string{
		"summary":   fmt.Sprintf("%s in %s %s (%s) of %s", f.Vulnerability, f.Package, installed, f.Severity, asset),
		"fix":       f.Fixed,
		"installed": installed,
		"path":      f.Path,
		"image":     string(d.Image),
		"layer":     f.CreatedBy,
	})
}

func ofWorkload(d finding.Delta, labels, annotations map[string]string) {
	f, w := d.Finding, d.Asset.Workload
	asset := w.Cluster + "/" + w.Namespace + "/" + w.Kind + "/" + w.Name
	maps.Copy(labels, map[string]string{
		"alertname": namePodSecurity,
		"asset":     asset,
		"cluster":   w.Cluster,
		"namespace": w.Namespace,
		"kind":      w.Kind,
		"name":      w.Name,
		"level":     f.PodSecurity.Level,
		"check":     f.PodSecurity.Check,
	})
	maps.Copy(annotations, map[string]string{
		"summary": fmt.Sprintf("%s fails %s (%s)", asset, f.PodSecurity.Check, f.PodSecurity.Level),
		"fields":  strings.Join(f.PodSecurity.Fields, ", "),
		"version": f.PodSecurity.Version,
	})
	if annotations["description"] == "" {
		annotations["description"] = f.PodSecurity.Message
	}
}

// change says what is different, for who has seen the alert before.
func change(d finding.Delta) string {
	if d.Old == nil {
		return ""
	}
	var parts []string
	add := func(what, was, is string) {
		if was != is {
			parts = append(parts, fmt.Sprintf("%s: %s, was %s", what, orNone(is), orNone(was)))
		}
	}
	add("vulnerability", d.Old.Vulnerability, d.Finding.Vulnerability)
	add("severity", d.Old.Severity.String(), d.Finding.Severity.String())
	add("fix", d.Old.Fixed, d.Finding.Fixed)
	add("status", d.Old.Status, d.Finding.Status)
	return strings.Join(parts, "; ")
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// troubles are the severities of notices; kinds that are no trouble are left out, and unknown ones medium.
var troubles = map[system.Kind]string{
	system.DatabaseStale:         "medium",
	system.DeadLettered:          "high",
	system.StreamFull:            "critical",
	system.ConsumerMisconfigured: "high",
	system.RegistryPaused:        "medium",
}

// ofNotice makes an alert of a notice that somebody may have to act on. It is told once: nothing says when
// a trouble is over.
func ofNotice(n system.Notice) (alert.Alert, bool) {
	if n.Kind == system.DatabaseLoaded || n.Kind == system.RegistryResumed {
		return alert.Alert{}, false
	}
	severity, ok := troubles[n.Kind]
	if !ok {
		severity = "medium"
	}
	return alert.Alert{
		ID: n.ID, Revision: 1, Once: true,
		Labels: bounded(map[string]string{
			"alertname": nameTrouble, "class": classSystem, "severity": severity, "notice": string(n.Kind), "subject": n.Subject,
		}, maxLabel),
		Annotations: bounded(map[string]string{"summary": string(n.Kind) + ": " + n.Subject, "description": n.Message}, maxAnnotation),
	}, true
}

// bounded leaves out what is empty, as Prometheus does, and cuts what is long.
func bounded(m map[string]string, most int) map[string]string {
	for k, v := range m {
		v = strings.ToValidUTF8(v, "\uFFFD")
		if len(v) > most {
			v = strings.ToValidUTF8(v[:most-len("…")], "") + "…"
		}
		if v == "" {
			delete(m, k)
			continue
		}
		m[k] = v
	}
	return m
}
