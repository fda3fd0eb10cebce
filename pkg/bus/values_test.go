package bus_test

import (
	"time"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/track"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Small valid values of each kind, for tests to change.

var (
	amd64 = image.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = image.Platform{OS: "linux", Architecture: "arm64"}
	noon  = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
)

func someImage(name string) image.Image {
	return image.Image{
		Reference: image.Reference{Host: "registry.example", Repository: "team/app", Tag: "1", Digest: digest(name)},
		Config:    digest("config " + name), Platform: amd64, Created: noon,
		Layers: []image.Layer{{Blob: digest("blob"), DiffID: digest("diff"), Size: 1, MediaType: "application/vnd.oci.image.layer.v1.tar+gzip"}},
	}
}

func someReport(name string) *report.Report {
	return &report.Report{
		Image: someImage(name), Outcome: report.Clean, Created: noon,
		Database: report.Database{Digest: string(digest("db")), UpdatedAt: noon, Sequence: 5},
		Engine:   report.Engine{Version: "0.1.0", Trivy: "0.74.0", Analysis: "a1"},
	}
}

func someAsset(track string) finding.Asset {
	return finding.Asset{Host: "registry.example:5000", Repository: "team/app", Track: track, Platform: amd64}
}

func someFinding(id string, revision uint64) finding.Finding {
	return finding.Finding{
		ID: id, Revision: revision, Class: finding.ClassVuln, Vulnerability: "CVE-2026-1", Type: "debian", Package: "openssl",
		Versions: []string{"1.0"}, Severity: report.High, Layer: digest("diff"), FirstSeen: noon, Changed: noon,
	}
}

func someState(track string) finding.State {
	return finding.State{
		Asset: someAsset(track), Image: digest("image"), Generation: 3, Outcome: report.Findings, Updated: noon,
		Open: []finding.Finding{someFinding("f1", 1)}, Resolved: map[string]uint64{"f0": 2},
	}
}

func someDelta(id string, revision uint64) finding.Delta {
	return finding.Delta{
		EventID: finding.EventID(id, revision), Asset: someAsset("1.2"), Transition: finding.Opened, Finding: someFinding(id, revision),
		Cause: event.CausePush, Image: digest("image"), At: noon,
	}
}

func someScan(id string) finding.Scan {
	a := someAsset("1.2")
	return finding.Scan{
		ID: id, Reference: someImage("image").Reference, Asset: &a, Platform: amd64, Outcome: report.Clean,
		Cause: event.CausePush, Received: noon, Finished: noon,
	}
}

func someNotice(id string) system.Notice {
	return system.Notice{ID: id, Kind: system.DatabaseStale, Subject: "vulndb", Message: "load a new one", At: noon}
}

func someTrack(repository, name string) track.Record {
	return track.Record{Host: "registry.example", Repository: repository, Track: name, Tag: name, Digest: digest(name), Generation: 1, Sequence: 1, Updated: noon}
}

func someMatch(track string, generation uint64) work.MatchJob {
	a := someAsset(track)
	return work.MatchJob{Image: someImage("image"), Analysis: "a1", Asset: &a, Generation: generation, Lane: work.Push, Origin: origin()}
}

func somePointer(name string) vulndb.Pointer {
	return vulndb.Pointer{Kind: vulndb.Vulnerabilities, Digest: string(digest(name)), Size: 1, UpdatedAt: noon, NextUpdate: noon, LoadedAt: noon}
}

func planning(f *fate.Fate) {
	f.Request, f.Reference, f.Stage, f.Received = "1-0123456789abcdef", someImage("image").Reference, fate.Planning, noon
}

func failedReport(name string) *report.Report {
	r := someReport(name)
	r.Outcome, r.Reason, r.Detail, r.Database = report.Failed, reason.Truncated, "at byte 7", report.Database{}
	return r
}
