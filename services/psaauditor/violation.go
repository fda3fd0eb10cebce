package psaauditor

import (
	"slices"
	"strings"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/psaauditor/manifest"
	"github.com/pratique-sec/pratique/services/psaauditor/verdict"
)

const (
	maxMessage = 4 << 10 // bytes; a thousand containers make a long one
	maxFields  = 100
)

// violation is a check that a workload fails, by what its objects say of it: usually one.
type violation struct {
	level    verdict.Level
	title    string
	messages []string
	fields   []string
}

func (v *violation) add(bad verdict.Violation, o manifest.Object, version verdict.Version) {
	v.title = bad.Reason
	if !slices.Contains(v.messages, bad.Message) {
		v.messages = append(v.messages, bad.Message)
	}
	for _, f := range verdict.Fields(bad, version, o.Metadata, o.Spec) {
		if f = o.Field(f); !slices.Contains(v.fields, f) && len(v.fields) < maxFields {
			v.fields = append(v.fields, f)
		}
	}
}

// severity of what a level forbids: baseline is known ways out of the container, restricted is hardening.
func severity(l verdict.Level) report.Severity {
	if l == verdict.Baseline {
		return report.High
	}
	return report.Medium
}

func (v *violation) finding(w finding.Workload, check string, version verdict.Version) finding.Finding {
	slices.Sort(v.messages)
	message := strings.Join(v.messages, "; ")
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	return finding.Finding{
		ID: finding.WorkloadID(w, string(v.level), check), Class: finding.ClassPSA, Severity: severity(v.level),
		Title: v.title, URL: standards + string(v.level),
		PodSecurity: finding.PodSecurity{
			Level: string(v.level), Check: check, Message: message, Version: version.String(), Fields: v.fields,
		},
	}
}
