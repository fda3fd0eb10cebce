package match

import (
	"testing"

	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/types"
	"github.com/google/go-cmp/cmp"
)

func TestUnique(t *testing.T) {
	v := func(id, pkg, path, fixed string) types.DetectedVulnerability {
		return types.DetectedVulnerability{VulnerabilityID: id, PkgName: pkg, PkgPath: path, FixedVersion: fixed}
	}
	var got [][4]string
	for _, u := range unique([]types.DetectedVulnerability{
		v("CVE-1", "a", "", "1"), v("CVE-1", "a", "", "3"), v("CVE-1", "a", "", "2"), // the greatest
		v("CVE-1", "b", "", "1"), v("CVE-2", "a", "", "1"), v("CVE-1", "a", "x", "1"), // other things
		v("CVE-3", "a", "", "10"), v("CVE-3", "a", "", "9"), // as strings
	}) {
		if u.Severity != "UNKNOWN" {
			t.Errorf("severity %q", u.Severity)
		}
		got = append(got, [4]string{u.VulnerabilityID, u.PkgName, u.PkgPath, u.FixedVersion})
	}
	if d := cmp.Diff([][4]string{{"CVE-1", "a", "", "3"}, {"CVE-1", "b", "", "1"}, {"CVE-2", "a", "", "1"}, {"CVE-1", "a", "x", "1"}, {"CVE-3", "a", "", "9"}}, got); d != "" {
		t.Error(d)
	}
}

func TestWithoutDevelopment(t *testing.T) {
	got := withoutDevelopment([]ftypes.Application{{Packages: []ftypes.Package{
		{ID: "root", Relationship: ftypes.RelationshipRoot, DependsOn: []string{"a", "test"}},
		{ID: "a", DependsOn: []string{"test"}}, {ID: "test", Dev: true},
	}}})
	want := []ftypes.Application{{Packages: []ftypes.Package{
		{ID: "root", Relationship: ftypes.RelationshipRoot, DependsOn: []string{"a"}}, {ID: "a", DependsOn: []string{"test"}},
	}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
