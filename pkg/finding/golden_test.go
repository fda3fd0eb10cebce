package finding_test

import (
	"strings"
	"testing"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/key/keytest"
	"github.com/pratique-sec/pratique/pkg/report"
)

var (
	amd64  = image.Platform{OS: "linux", Architecture: "amd64"}
	asset  = finding.Asset{Host: "registry.example:5000", Repository: "team-a/api", Track: "main-*", Platform: amd64}
	imageA = image.Digest("sha256:" + strings.Repeat("a", 64))
	dbD    = report.Database{Digest: "sha256:" + strings.Repeat("d", 64), Sequence: 1}
)

func TestGolden(t *testing.T) {
	g := keytest.Load(t)
	arm := finding.Asset{Host: asset.Host, Repository: asset.Repository, Track: "v1", Platform: image.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}
	osPackage := finding.ID(asset, finding.ClassVuln, "CVE-2024-3094", "debian", "liblzma5", "")
	judged := finding.Scan{
		Reference: image.Reference{Host: asset.Host, Repository: asset.Repository, Tag: "main-1a2b3c4", Digest: imageA},
		Asset:     &asset, Platform: amd64, Generation: 7, Database: dbD, Outcome: report.Findings,
	}
	failed := finding.Scan{
		Reference: image.Reference{Host: asset.Host, Repository: asset.Repository, Tag: "main"},
		Outcome:   report.Failed, Request: "42-0123456789abcdef",
	}
	for name, got := range map[string]string{
		"finding/os package": osPackage,
		"finding/path": finding.ID(arm, finding.ClassVuln, "GHSA-jfh8-c2jp-5v3q", "jar", "org.apache.logging.log4j:log4j-core",
			finding.StablePath("app/lib/log4j-core-2.14.1.jar", "2.14.1")),
		"delta/first":    finding.EventID(osPackage, 1),
		"delta/twelfth":  finding.EventID(osPackage, 12),
		"scan/asset":     finding.ScanID(judged),
		"scan/reference": finding.ScanID(failed),
	} {
		if want := g.Want(t, name); got != want {
			t.Errorf("%s: %s, frozen as %s", name, got, want)
		}
	}
	for _, v := range g.Canonical {
		for range 2 { // the order of the ids does not count
			got, others := finding.Canonical(v.IDs)
			if got != v.Want || len(others) != len(v.IDs)-1 {
				t.Errorf("canonical of %v: %s and %v, frozen as %s", v.IDs, got, others, v.Want)
			}
			for i, j := 0, len(v.IDs)-1; i < j; i, j = i+1, j-1 {
				v.IDs[i], v.IDs[j] = v.IDs[j], v.IDs[i]
			}
		}
	}
	for _, v := range g.Paths {
		if got := finding.StablePath(v.Path, v.Version); got != v.Want {
			t.Errorf("stable path of %s, version %s: %s, frozen as %s", v.Path, v.Version, got, v.Want)
		}
	}
}

func TestCanonicalOfRepeatedAndEmpty(t *testing.T) {
	id, others := finding.Canonical([]string{"", "GHSA-1", "CVE-2020-0001", "GHSA-1", "CVE-2020-0001"})
	if id != "CVE-2020-0001" || len(others) != 1 || others[0] != "GHSA-1" {
		t.Errorf("%s and %v", id, others)
	}
	if id, others := finding.Canonical(nil); id != "" || others != nil {
		t.Errorf("of nothing: %q and %v", id, others)
	}
}
