package oracletest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/aquasecurity/trivy/pkg/scan/utils"
	"github.com/aquasecurity/trivy/pkg/types"

	"github.com/pratique-sec/pratique/pkg/report"
)

// Record is a vulnerability of a package, or a package (then Vulnerability, Fixed, Status and Severity are
// empty), as both Trivy and we report it.
type Record struct {
	Class, Type, Package, Version, Path    string
	Vulnerability, Fixed, Status, Severity string
	Layer                                  string // diffID
}

// OfTrivy lists the packages and vulnerabilities of Trivy's report, sorted.
func OfTrivy(r types.Report) []Record {
	var out []Record
	for _, res := range r.Results {
		for _, p := range res.Packages {
			version := p.Version
			if res.Class == types.ClassOSPkg {
				version = utils.FormatVersion(p)
			}
			out = append(out, Record{
				Class: string(res.Class), Type: string(res.Type), Package: p.Name, Version: version,
				Path: place(string(res.Class), p.FilePath, res.Target), Layer: p.Layer.DiffID,
			})
		}
		for _, v := range res.Vulnerabilities {
			out = append(out, Record{
				Class: string(res.Class), Type: string(res.Type), Package: v.PkgName, Version: v.InstalledVersion,
				Path: place(string(res.Class), v.PkgPath, res.Target), Layer: v.Layer.DiffID,
				Vulnerability: v.VulnerabilityID, Fixed: v.FixedVersion, Status: v.Status.String(), Severity: v.Severity,
			})
		}
	}
	return sorted(out)
}

// OfReport lists the packages and vulnerabilities of our report, sorted.
func OfReport(r *report.Report) []Record {
	var out []Record
	for _, res := range r.Results {
		for _, p := range res.Packages {
			out = append(out, Record{
				Class: res.Class, Type: res.Type, Package: p.Name, Version: p.Version,
				Path: place(res.Class, p.Path, res.Target), Layer: string(p.Layer),
			})
		}
		for _, v := range res.Vulnerabilities {
			out = append(out, Record{
				Class: res.Class, Type: res.Type, Package: v.Package, Version: v.Version,
				Path: place(res.Class, v.Path, res.Target), Layer: string(v.Layer),
				Vulnerability: v.ID, Fixed: v.Fixed, Status: v.Status, Severity: strings.ToUpper(v.Severity.String()),
			})
		}
	}
	return sorted(out)
}

// place is the package's own file or that which lists it. Trivy's target of a system's packages is left out:
// it holds the artifact's name.
func place(class, path, target string) string {
	if path == "" && class != string(types.ClassOSPkg) {
		return target
	}
	return path
}

func sorted(rs []Record) []Record {
	slices.SortFunc(rs, func(a, b Record) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return rs
}
