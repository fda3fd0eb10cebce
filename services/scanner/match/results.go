package match

import (
	"cmp"
	"slices"
	"sort"

	"github.com/aquasecurity/trivy-db/pkg/db"
	dbtypes "github.com/aquasecurity/trivy-db/pkg/types"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/types"
	"github.com/aquasecurity/trivy/pkg/vulnerability"
)

// withoutDevelopment drops what an application needs only to be developed, as Trivy does by default. It
// changes its argument.
func withoutDevelopment(apps []ftypes.Application) []ftypes.Application {
	for i := range apps {
		dropped := map[string]bool{}
		apps[i].Packages = slices.DeleteFunc(apps[i].Packages, func(p ftypes.Package) bool {
			if p.Dev {
				dropped[p.ID] = true
			}
			return p.Dev
		})
		for j, p := range apps[i].Packages {
			if p.Relationship == ftypes.RelationshipRoot || p.Relationship == ftypes.RelationshipWorkspace {
				apps[i].Packages[j].DependsOn = slices.DeleteFunc(p.DependsOn, func(id string) bool { return dropped[id] })
			}
		}
	}
	return apps
}

// describe adds to each vulnerability what the database says about it, drops duplicates, and sorts.
func describe(results types.Results) {
	client := vulnerability.NewClient(db.Config{})
	for i := range results {
		r := &results[i]
		client.FillInfo(r.Vulnerabilities, []dbtypes.SourceID{"auto"})
		r.Vulnerabilities = unique(r.Vulnerabilities)
		sort.Sort(types.BySeverity(r.Vulnerabilities))
	}
	slices.SortStableFunc(results, func(a, b types.Result) int {
		return cmp.Or(-cmp.Compare(a.Class, b.Class), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Type, b.Type))
	})
}

// unique keeps one record for each vulnerability of an installed package: that with the greatest fixed
// version as a string, which is Trivy's rule.
func unique(vulns []types.DetectedVulnerability) []types.DetectedVulnerability {
	type identity struct{ id, pkgID, name, version, path string }
	at := map[identity]int{}
	var out []types.DetectedVulnerability
	for _, v := range vulns {
		v.Severity = cmp.Or(v.Severity, dbtypes.SeverityUnknown.String())
		k := identity{v.VulnerabilityID, v.PkgID, v.PkgName, v.InstalledVersion, v.PkgPath}
		i, seen := at[k]
		switch {
		case !seen:
			at[k] = len(out)
			out = append(out, v)
		case out[i].FixedVersion < v.FixedVersion:
			out[i] = v
		}
	}
	return out
}
