package match

import (
	"slices"
	"strings"
	"time"

	dbtypes "github.com/aquasecurity/trivy-db/pkg/types"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/scan/utils"
	"github.com/aquasecurity/trivy/pkg/types"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
)

// writer turns Trivy's results into ours.
type writer struct {
	createdBy map[image.Digest]string
}

func newWriter(img image.Image) writer {
	w := writer{createdBy: map[image.Digest]string{}}
	for _, l := range img.Layers {
		if _, seen := w.createdBy[l.DiffID]; !seen { // of equal layers the lowest is the origin
			w.createdBy[l.DiffID] = l.CreatedBy
		}
	}
	return w
}

func (w writer) result(r types.Result) report.Result {
	out := report.Result{Class: string(r.Class), Type: string(r.Type), Target: r.Target}
	if r.Class == types.ClassOSPkg {
		out.Target = "" // Trivy's holds the artifact's name
	}
	for _, p := range r.Packages {
		out.Packages = append(out.Packages, w.pkg(p))
	}
	for _, v := range r.Vulnerabilities {
		out.Vulnerabilities = append(out.Vulnerabilities, w.vulnerability(v))
	}
	return out
}

func (w writer) pkg(p ftypes.Package) report.Package {
	diffID := image.Digest(p.Layer.DiffID)
	out := report.Package{
		ID: p.ID, Name: p.Name, Version: utils.FormatVersion(p),
		Source: p.SrcName, SourceVersion: utils.FormatSrcVersion(p),
		Arch: p.Arch, Path: p.FilePath, PURL: purl(p.Identifier), Licenses: p.Licenses,
		Layer: diffID, CreatedBy: w.createdBy[diffID], Indirect: p.Indirect,
		UID: p.Identifier.UID, Maintainer: p.Maintainer, Modularity: p.Modularitylabel,
		Origin: string(p.Repository.Class), DependsOn: p.DependsOn, AnalyzedBy: string(p.AnalyzedBy),
	}
	if p.Relationship != ftypes.RelationshipUnknown {
		out.Relationship = p.Relationship.String()
	}
	return out
}

func (w writer) vulnerability(v types.DetectedVulnerability) report.Vulnerability {
	diffID := image.Digest(v.Layer.DiffID)
	out := report.Vulnerability{
		ID: v.VulnerabilityID, VendorIDs: v.VendorIDs, Aliases: aliases(v.VulnerabilityID, v.VendorIDs),
		PkgID: v.PkgID, Package: v.PkgName, Version: v.InstalledVersion, Path: v.PkgPath,
		PURL: purl(v.PkgIdentifier), UID: v.PkgIdentifier.UID,
		Fixed: v.FixedVersion, Status: v.Status.String(),
		Severity: severity(v.Severity), SeveritySource: string(v.SeveritySource),
		Title: v.Title, Description: v.Description, URL: v.PrimaryURL, References: v.References, CWEs: v.CweIDs,
		Published: timeOf(v.PublishedDate), Modified: timeOf(v.LastModifiedDate),
		Layer: diffID, CreatedBy: w.createdBy[diffID],
	}
	if s := v.DataSource; s != nil {
		out.Source, out.SourceBase, out.SourceName, out.SourceURL = string(s.ID), string(s.BaseID), s.Name, s.URL
	}
	for id, s := range v.VendorSeverity {
		if out.VendorSeverities == nil {
			out.VendorSeverities = map[string]report.Severity{}
		}
		out.VendorSeverities[string(id)] = report.Severity(s)
	}
	for id, c := range v.CVSS {
		if out.CVSS == nil {
			out.CVSS = map[string]report.CVSS{}
		}
		out.CVSS[string(id)] = report.CVSS{
			V2Vector: c.V2Vector, V3Vector: c.V3Vector, V40Vector: c.V40Vector,
			V2Score: c.V2Score, V3Score: c.V3Score, V40Score: c.V40Score,
		}
	}
	return out
}

func purl(id ftypes.PkgIdentifier) string {
	if id.PURL == nil {
		return ""
	}
	return id.PURL.String()
}

// severity relies on our numbers being Trivy's; anything else is unknown.
func severity(s string) report.Severity {
	n, err := dbtypes.NewSeverity(strings.ToUpper(s))
	if err != nil {
		return report.Unknown
	}
	return report.Severity(n)
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// aliases are the other ids of a vulnerability among what the database lists beside it. Vendors' advisories
// are not: one covers several vulnerabilities.
func aliases(id string, others []string) []string {
	var out []string
	for _, o := range others {
		if o != id && finding.IsAlias(o) {
			out = append(out, o)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
