package wire

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/facts"
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

var update = flag.Bool("update", false, "write the golden files anew: only for a message that is new or has gained a field")

// Golden files are in the proto module: they are the schema's examples for whoever reads it elsewhere.
func golden(t testing.TB, name, suffix string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "proto", "golden", name+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What was stored by this version must mean the same to every later one.
func TestGolden(t *testing.T) {
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			v, ok := examples[f.name]
			if !ok {
				t.Fatalf("examples has no %s", f.name)
			}
			b, err := f.encode(v)
			if err != nil {
				t.Fatal(err)
			}
			line, err := f.json(v)
			if err != nil {
				t.Fatal(err)
			}
			line = append(line, '\n')
			if *update {
				write(t, f.name+".binpb", b)
				write(t, f.name+".json", line)
			}
			wantBytes, wantLine := golden(t, f.name, ".binpb"), golden(t, f.name, ".json")
			if !bytes.Equal(b, wantBytes) {
				t.Errorf("encoded is\n%x\nwant\n%x", b, wantBytes)
			}
			if diff := cmp.Diff(string(wantLine), string(line)); diff != "" {
				t.Errorf("JSON differs (-want +got):\n%s", diff)
			}
			if got, err := f.decode(wantBytes); err != nil || cmp.Diff(v, got) != "" {
				t.Errorf("decoded differs, err %v (-want +got):\n%s", err, cmp.Diff(v, got))
			}
			if got, err := f.fromJSON(wantLine); err != nil || cmp.Diff(v, got) != "" {
				t.Errorf("from JSON differs, err %v (-want +got):\n%s", err, cmp.Diff(v, got))
			}
		})
	}
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join("..", "..", "proto", "golden", name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// The examples tell one story: an image is pushed, analysed, and judged.
var (
	manifest = image.Digest("sha256:" + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	index    = image.Digest("sha256:" + "1111111111111111111111111111111111111111111111111111111111111111")
	config   = image.Digest("sha256:" + "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc")
	blob     = image.Digest("sha256:" + "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
	diffID   = image.Digest("sha256:" + "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd")
	analysis = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
	layerKey = "6666666666666666666666666666666666666666666666666666666666666666"

	pushed   = time.Date(2026, time.March, 29, 12, 0, 0, 0, time.UTC)
	received = pushed.Add(time.Second)
	judged   = pushed.Add(9 * time.Second)

	amd64 = image.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = image.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}

	tagged = image.Reference{Host: "registry.example:5000", Repository: "team-a/api", Tag: "main-4f2c1e0", Digest: index}
	layer  = image.Layer{
		Blob:      blob,
		DiffID:    diffID,
		Size:      3_145_728,
		MediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
		CreatedBy: "RUN apt-get install -y xz-utils",
	}
	oneImage = image.Image{
		Reference: image.Reference{
			Host: tagged.Host, Repository: tagged.Repository, Tag: tagged.Tag, Digest: manifest,
		},
		Index:    index,
		Config:   config,
		Platform: amd64,
		Created:  pushed.Add(-time.Minute),
		Layers:   []image.Layer{layer},
	}
	asset = finding.Asset{
		Host: tagged.Host, Repository: tagged.Repository, Track: "main-*", Platform: amd64,
	}
	origin = work.Origin{
		Cause:    event.CausePush,
		EventID:  "7777777777777777777777777777777777777777777777777777777777777777",
		Sequence: 41,
		Received: received,
	}
	database = report.Database{
		Digest:    "sha256:" + "9999999999999999999999999999999999999999999999999999999999999999",
		UpdatedAt: pushed.Add(-6 * time.Hour),
		Sequence:  3,
	}
	engine  = report.Engine{Version: "0.1.0", Trivy: "0.74.0", Analysis: analysis}
	liblzma = finding.Finding{
		ID:            "8c380d735bb682f260d094fb84ab111204bc2eca99cd2a45f1ba0d0e701a70f8",
		Revision:      2,
		Class:         finding.ClassVuln,
		Vulnerability: "CVE-2024-3094",
		Aliases:       []string{"GHSA-rxwq-x6h5-x525"},
		Type:          "debian",
		Package:       "liblzma5",
		Versions:      []string{"5.6.0-0.2"},
		Fixed:         "5.6.1+really5.4.5-1",
		Status:        "fixed",
		Severity:      report.Critical,
		Title:         "xz: malicious code in distributed source",
		URL:           "https://avd.aquasec.com/nvd/cve-2024-3094",
		Layer:         diffID,
		CreatedBy:     layer.CreatedBy,
		FirstSeen:     judged.Add(-24 * time.Hour),
		Changed:       judged,
	}
	delta = finding.Delta{
		EventID:    "5555555555555555555555555555555555555555555555555555555555555555",
		Asset:      asset,
		Transition: finding.Changed,
		Finding:    liblzma,
		Old: &finding.Finding{
			ID:            liblzma.ID,
			Revision:      1,
			Class:         finding.ClassVuln,
			Vulnerability: "CVE-2024-3094",
			Type:          "debian",
			Package:       "liblzma5",
			Versions:      []string{"5.6.0-0.2"},
			Status:        "affected",
			Severity:      report.High,
			FirstSeen:     liblzma.FirstSeen,
			Changed:       liblzma.FirstSeen,
		},
		Cause:    event.CauseRematch,
		Image:    manifest,
		Database: database,
		Engine:   engine,
		At:       judged,
	}
	unreadable = facts.NotRead{
		Path:     "var/lib/rpm/rpmdb.sqlite",
		Code:     reason.Malformed,
		Detail:   "file is not a database",
		Packages: true,
	}
)

// An alert in its group, as the alert router keeps them.
var (
	backdoor = alert.Alert{
		ID:          liblzma.ID,
		Revision:    2,
		Labels:      map[string]string{"alertname": "Vulnerability", "severity": "critical"},
		Annotations: map[string]string{"summary": "CVE-2024-3094 in liblzma5"},
		Starts:      pushed,
		Ends:        judged,
		Once:        true,
		Trace:       "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	alertGroup = alert.Group{
		ID:          "8888888888888888888888888888888888888888888888888888888888888888",
		Receiver:    "team-a",
		Integration: "webhook/0",
		Labels:      map[string]string{"repository": "team-a/api"},
		RouteLabels: map[string]string{"owner": "team-a"},
		Timing:      alert.Timing{Wait: 30 * time.Second, Interval: 5 * time.Minute, Repeat: 4 * time.Hour},
		Mute:        []string{"weekend"},
		Active:      []string{"office hours"},
		Due:         judged,
		Flushed:     pushed,
		Mark:        40,
		Untold:      true,
		Firing:      1,
		Sending:     "9999999999999999999999999999999999999999999999999999999999999999",
	}
)

var examples = map[string]any{
	"Event": event.Event{
		ID:        origin.EventID,
		Kind:      event.KindImage,
		Source:    "distribution",
		Action:    event.Push,
		Cause:     event.CausePush,
		Reference: tagged,
		MediaType: "application/vnd.oci.image.index.v1+json",
		Platforms: []image.Platform{amd64, arm64},
		Actor:     "ci",
		Claimed:   pushed,
		Received:  received,
		Unusable:  []string{"request.addr: not an address"},
	},
	"ImageJob": work.ImageJob{
		Reference:  oneImage.Reference,
		Action:     event.Push,
		Platform:   &amd64,
		Platforms:  []image.Platform{amd64},
		Index:      index,
		Asset:      &asset,
		Generation: 7,
		Lane:       work.Push,
		Origin:     origin,
	},
	"LayerJob": work.LayerJob{
		Key:        layerKey,
		Analysis:   analysis,
		Host:       tagged.Host,
		Repository: tagged.Repository,
		Layer:      layer,
		Pool:       work.DefaultPool,
		Class:      work.S,
		Lane:       work.Push,
		Origin:     origin,
	},
	"MatchJob": work.MatchJob{
		Image:      oneImage,
		Analysis:   analysis,
		Asset:      &asset,
		Generation: 7,
		Close:      string(finding.Deleted),
		Database:   database.Digest,
		Layers:     finding.LayerCounts{Seen: 4, Known: 2, Waited: 1, Analysed: 1},
		Lane:       work.Backfill,
		Origin:     origin,
	},
	"LayerNotice": work.Notice{Key: layerKey, Failed: true},
	"Facts": facts.Layer{
		DiffID:   diffID,
		Analysis: analysis,
		Blob:     []byte(`{"SchemaVersion":2}`),
		NotRead:  []facts.NotRead{unreadable},
		Size:     10_485_760,
		Entries:  321,
	},
	"Record":  facts.Record{Blob: blob, DiffID: diffID, Size: layer.Size},
	"Verdict": facts.Verdict{Key: layerKey, Code: reason.Truncated, Detail: "ends after 12 bytes", At: judged},
	"Report": &report.Report{
		Image:   oneImage,
		Outcome: report.Partial,
		OS:      report.OS{Family: "debian", Name: "13", Extended: true, Repository: "debian 12"},
		Results: []report.Result{{
			Class: "os-pkgs",
			Type:  "debian",
			Packages: []report.Package{{
				ID:            "liblzma5@5.6.0-0.2",
				Name:          "liblzma5",
				Version:       "5.6.0-0.2",
				Source:        "xz-utils",
				SourceVersion: "5.6.0-0.2",
				Arch:          "amd64",
				PURL:          "pkg:deb/debian/liblzma5@5.6.0-0.2?arch=amd64&distro=debian-13",
				Licenses:      []string{"PD"},
				Layer:         diffID,
				CreatedBy:     layer.CreatedBy,
				UID:           "1f2e3d4c5b6a7988",
				Maintainer:    "Sebastian Andrzej Siewior <sebastian@breakpoint.cc>",
				DependsOn:     []string{"libc6@2.37-15"},
				AnalyzedBy:    "dpkg",
			}},
			Vulnerabilities: []report.Vulnerability{{
				ID:             "CVE-2024-3094",
				Aliases:        []string{"GHSA-rxwq-x6h5-x525"},
				VendorIDs:      []string{"DSA-5649-1"},
				PkgID:          "liblzma5@5.6.0-0.2",
				Package:        "liblzma5",
				Version:        "5.6.0-0.2",
				PURL:           "pkg:deb/debian/liblzma5@5.6.0-0.2?arch=amd64&distro=debian-13",
				Fixed:          liblzma.Fixed,
				Status:         "fixed",
				Severity:       report.Critical,
				SeveritySource: "nvd",
				Title:          liblzma.Title,
				Description:    "Malicious code was discovered in the upstream tarballs of xz.",
				URL:            liblzma.URL,
				References:     []string{"https://www.openwall.com/lists/oss-security/2024/03/29/4"},
				CWEs:           []string{"CWE-506"},
				CVSS: map[string]report.CVSS{
					"nvd":    {V3Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", V3Score: 10},
					"redhat": {V3Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", V3Score: 10},
				},
				Published:        time.Date(2024, time.March, 29, 17, 15, 21, 150_000_000, time.UTC),
				Modified:         time.Date(2025, time.February, 6, 9, 15, 10, 0, time.UTC),
				Source:           "debian",
				SourceName:       "Debian Security Tracker",
				SourceURL:        "https://salsa.debian.org/security-tracker-team/security-tracker",
				VendorSeverities: map[string]report.Severity{"debian": report.Unknown, "nvd": report.Critical},
				UID:              "1f2e3d4c5b6a7988",
				Layer:            diffID,
				CreatedBy:        layer.CreatedBy,
			}},
		}},
		NotRead:  []report.NotRead{{NotRead: unreadable, DiffID: diffID}},
		Database: database,
		Engine:   engine,
		Created:  judged,
	},
	"State": finding.State{
		Asset:      asset,
		Image:      manifest,
		Generation: 7,
		Database:   database,
		Open:       []finding.Finding{liblzma},
		Resolved:   map[string]uint64{"0a": 4, "0b": 2},
		Forgotten:  2,
		Pending:    []finding.Delta{delta},
		Outcome:    report.Findings,
		Updated:    judged,
	},
	"Delta": delta,
	"Scan": finding.Scan{
		ID:         "4444444444444444444444444444444444444444444444444444444444444444",
		Reference:  oneImage.Reference,
		Asset:      &asset,
		Platform:   amd64,
		Outcome:    report.Partial,
		Reason:     reason.Malformed,
		Detail:     "1 package database was not read",
		Counts:     report.Counts{Critical: 1, High: 2, Medium: 3, Low: 4, Unknown: 5},
		Opened:     3,
		Changed:    2,
		Resolved:   1,
		Generation: 7,
		Cause:      event.CauseRequest,
		Request:    "41-7777777777777777",
		Database:   database,
		Engine:     engine,
		Layers:     finding.LayerCounts{Seen: 4, Known: 2, Waited: 1, Analysed: 1},
		Received:   received,
		Finished:   judged,
	},
	"Fate": fate.Fate{
		Request:   "41-7777777777777777",
		Reference: tagged,
		Stage:     fate.Waiting,
		Images: []fate.Image{
			{Digest: manifest, Platform: amd64, Stage: fate.Waiting, Missing: []image.Digest{blob}},
			{Platform: arm64, Stage: fate.Decided, Outcome: report.Failed, Reason: reason.BlobMissing, Detail: "404"},
		},
		Attempts:  2,
		LastError: "rate-limited: registry.example:5000 answered 429",
		TraceID:   "0af7651916cd43dd8448eb211c80319c",
		Received:  received,
		Updated:   judged,
	},
	"Track": track.Record{
		Host:       tagged.Host,
		Repository: tagged.Repository,
		Track:      "main-*",
		Tag:        tagged.Tag,
		Digest:     index,
		Generation: 7,
		Sequence:   41,
		Updated:    received,
		Platforms:  []image.Platform{amd64, arm64},
	},
	"Breaker": breaker.State{
		Host:       tagged.Host,
		Failing:    []string{"tag registry.example:5000/team-a/api:1.2"},
		Failed:     pushed,
		Error:      "unreachable: registry answered 503",
		Since:      received,
		Until:      judged,
		Pauses:     2,
		Closed:     pushed,
		Told:       true,
		Probe:      "P7",
		ProbeUntil: judged,
	},
	"Pointer": vulndb.Pointer{
		Kind:       vulndb.Vulnerabilities,
		Digest:     database.Digest,
		Size:       1 << 20,
		UpdatedAt:  database.UpdatedAt,
		NextUpdate: database.UpdatedAt.Add(24 * time.Hour),
		LoadedAt:   pushed,
		Sequence:   3,
	},
	"Notice": system.Notice{
		ID:      "2222222222222222222222222222222222222222222222222222222222222222",
		Kind:    system.DatabaseStale,
		Subject: database.Digest,
		Message: "the database is 9 days old; load a newer one: pratique db load DIR",
		At:      judged,
	},
	"DeadLetter": system.DeadLetter{
		ID:       "3333333333333333333333333333333333333333333333333333333333333333",
		Service:  "scanner",
		Reason:   reason.DigestMismatch,
		Detail:   "the bytes have another digest",
		Subject:  "pratique.work.push.layer.default.s." + layerKey,
		Headers:  map[string][]string{"Content-Type": {"application/protobuf; messageType=pratique.v1.LayerJob"}},
		Data:     []byte{0x0a, 0x00, 0xff},
		Verdicts: []string{layerKey},
		Attempts: 1,
		TraceID:  "0af7651916cd43dd8448eb211c80319c",
		At:       judged,
	},
	"AlertPlace":  alert.Place{ID: liblzma.ID, Revision: 2, Cause: "push", Starts: judged, Groups: []string{alertGroup.ID}},
	"AlertGroup":  alertGroup,
	"AlertMember": alert.Member{Alert: backdoor, Told: true},
	"AlertDue":    alert.Due{Group: alertGroup.ID},
	"AlertNotification": alert.Notification{
		ID: alertGroup.Sending, Group: alertGroup.ID, Receiver: alertGroup.Receiver, Integration: alertGroup.Integration,
		Labels: alertGroup.Labels, RouteLabels: alertGroup.RouteLabels, Reason: alert.ReasonNew,
		Alerts: []alert.Told{{Alert: backdoor, Sequence: 41}}, Truncated: 3, Created: judged,
	},
	"AlertAttempt":      alert.Attempt{ID: alertGroup.Sending, Tries: 2, Open: true, Error: "undelivered: webhook/0 of \"team-a\": answered 503", At: judged},
	"ScanRequest":       ScanRequest{Reference: "registry.example:5000/team-a/api:main", Platforms: []string{"linux/amd64"}},
	"ScanAccepted":      ScanAccepted{ID: "41-7777777777777777", StatusURL: "/v1/scans/41-7777777777777777"},
	"EventsAccepted":    EventsAccepted{Accepted: 2, Dropped: map[string]int{"blob": 3, "pull": 1}},
	"ManifestsAccepted": ManifestsAccepted{ID: "42-8888888888888888", Documents: 3},
	"Problem": Problem{
		Code:    reason.BadRequest,
		Message: "reference: has no repository",
		TraceID: "0af7651916cd43dd8448eb211c80319c",
	},
}
