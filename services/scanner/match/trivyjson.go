package match

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	dbtypes "github.com/aquasecurity/trivy-db/pkg/types"
	"github.com/aquasecurity/trivy/pkg/fanal/image/name"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/fingerprint"
	"github.com/aquasecurity/trivy/pkg/types"
	ggcrname "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/package-url/packageurl-go"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
)

// TrivyReport writes a report as Trivy's own, for those who read that: json.Marshal gives Trivy's JSON. Each
// package and each vulnerability is the record that Trivy writes, but for what a report does not keep:
// InstalledFiles, Digest and, on Red Hat, BuildInfo. Of the image's configuration there is what scanning needed, and
// there is no ReportID.
func TrivyReport(r *report.Report) (types.Report, error) {
	out := types.Report{
		SchemaVersion: 2,
		Trivy:         types.TrivyInfo{Version: r.Engine.Trivy},
		CreatedAt:     r.Created,
		ArtifactName:  artifactName(r.Image),
		ArtifactType:  ftypes.TypeContainerImage,
	}
	var err error
	if out.Metadata, err = trivyMetadata(r); err != nil {
		return types.Report{}, err
	}
	out.ArtifactID = fmt.Sprintf("sha256:%x", sha256.Sum256(fmt.Appendf(nil, "%s:%s", r.Image.Config, out.Metadata.Reference.Context())))
	blobs := map[image.Digest]string{}
	for _, l := range slices.Backward(r.Image.Layers) { // of equal layers the lowest is the origin
		blobs[l.DiffID] = string(l.Blob)
	}
	for _, res := range r.Results {
		t, err := trivyResult(r, res, blobs)
		if err != nil {
			return types.Report{}, err
		}
		out.Results = append(out.Results, t)
	}
	fingerprint.Fill(&out)
	return out, nil
}

// artifactName is the reference as a person would write it: the digest only where there is no tag.
func artifactName(img image.Image) string {
	ref := img.Reference
	if ref.Tag != "" {
		ref.Digest = ""
	}
	return ref.String()
}

func trivyMetadata(r *report.Report) (types.Metadata, error) {
	img := r.Image
	ref, err := ggcrname.ParseReference(artifactName(img))
	if err != nil {
		return types.Metadata{}, fmt.Errorf("write report as Trivy's: %w", err)
	}
	m := types.Metadata{
		ImageID:     string(img.Config),
		RepoDigests: []string{ref.Context().Name() + "@" + string(cmp.Or(img.Index, img.Digest))}, // what the tag points at
		Reference:   name.Reference{Reference: ref},
		ImageConfig: v1.ConfigFile{
			Architecture: img.Platform.Architecture, OS: img.Platform.OS, Variant: img.Platform.Variant,
			Created: v1.Time{Time: img.Created},
			RootFS:  v1.RootFS{Type: "layers"},
		},
	}
	if img.Tag != "" {
		m.RepoTags = []string{ref.Context().Name() + ":" + img.Tag}
	}
	if r.OS.Family != "" {
		m.OS = &ftypes.OS{Family: ftypes.OSType(r.OS.Family), Name: r.OS.Name, Eosl: r.OS.EndOfLife, Extended: r.OS.Extended}
	}
	for _, l := range img.Layers {
		diffID, err := v1.NewHash(string(l.DiffID))
		if err != nil {
			return types.Metadata{}, fmt.Errorf("write report as Trivy's: diffID of a layer: %w", err)
		}
		m.DiffIDs = append(m.DiffIDs, string(l.DiffID))
		m.Layers = append(m.Layers, ftypes.Layer{Digest: string(l.Blob), DiffID: string(l.DiffID)})
		m.ImageConfig.RootFS.DiffIDs = append(m.ImageConfig.RootFS.DiffIDs, diffID)
		m.ImageConfig.History = append(m.ImageConfig.History, v1.History{CreatedBy: l.CreatedBy})
	}
	return m, nil
}

func trivyResult(r *report.Report, res report.Result, blobs map[image.Digest]string) (types.Result, error) {
	out := types.Result{Target: res.Target, Class: types.ResultClass(res.Class), Type: ftypes.TargetType(res.Type)}
	if out.Class == types.ClassOSPkg {
		release := r.OS.Name
		if r.OS.Extended {
			release += "-ESM"
		}
		out.Target = fmt.Sprintf("%s (%s %s)", artifactName(r.Image), r.OS.Family, release)
	}
	layer := func(d image.Digest) ftypes.Layer { return ftypes.Layer{Digest: blobs[d], DiffID: string(d)} }
	for _, p := range res.Packages {
		t, err := trivyPackage(p, out.Class, ftypes.OSType(r.OS.Family))
		if err != nil {
			return types.Result{}, err
		}
		t.Layer = layer(p.Layer)
		out.Packages = append(out.Packages, t)
	}
	for _, v := range res.Vulnerabilities {
		t, err := trivyVulnerability(v)
		if err != nil {
			return types.Result{}, err
		}
		t.Layer = layer(v.Layer)
		out.Vulnerabilities = append(out.Vulnerabilities, t)
	}
	return out, nil
}

func trivyPackage(p report.Package, class types.ResultClass, family ftypes.OSType) (ftypes.Package, error) {
	id, err := trivyIdentifier(p.UID, p.PURL)
	if err != nil {
		return ftypes.Package{}, err
	}
	out := ftypes.Package{
		ID: p.ID, Name: p.Name, Identifier: id, Version: p.Version, Arch: p.Arch,
		SrcName: p.Source, SrcVersion: p.SourceVersion, Licenses: p.Licenses, Maintainer: p.Maintainer,
		Modularitylabel: p.Modularity, Repository: ftypes.PackageRepository{Class: ftypes.RepositoryClass(p.Origin)},
		Indirect: p.Indirect, DependsOn: p.DependsOn, FilePath: p.Path, AnalyzedBy: ftypes.AnalyzerType(p.AnalyzedBy),
	}
	if p.Relationship != "" {
		if out.Relationship, err = ftypes.NewRelationship(p.Relationship); err != nil {
			return ftypes.Package{}, fmt.Errorf("write package %s as Trivy's: %w", p.ID, err)
		}
	}
	if class == types.ClassOSPkg && splitsVersions(family) {
		out.Epoch, out.Version, out.Release = splitVersion(p.Version)
		out.SrcEpoch, out.SrcVersion, out.SrcRelease = splitVersion(p.SourceVersion)
	}
	return out, nil
}

// splitsVersions tells whether a family's versions have epoch and release: dpkg's and rpm's do, apk's do not.
func splitsVersions(family ftypes.OSType) bool {
	switch family {
	case ftypes.Alpine, ftypes.Wolfi, ftypes.Chainguard, ftypes.MinimOS:
		return false
	}
	return true
}

func splitVersion(s string) (epoch int, version, release string) {
	if before, after, ok := strings.Cut(s, ":"); ok {
		if n, err := strconv.Atoi(before); err == nil {
			epoch, s = n, after
		}
	}
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		return epoch, s[:i], s[i+1:]
	}
	return epoch, s, ""
}

func trivyIdentifier(uid, purl string) (ftypes.PkgIdentifier, error) {
	id := ftypes.PkgIdentifier{UID: uid}
	if purl == "" {
		return id, nil
	}
	p, err := packageurl.FromString(purl)
	if err != nil {
		return ftypes.PkgIdentifier{}, fmt.Errorf("write package URL %q as Trivy's: %w", purl, err)
	}
	id.PURL = &p
	return id, nil
}

func trivyVulnerability(v report.Vulnerability) (types.DetectedVulnerability, error) {
	id, err := trivyIdentifier(v.UID, v.PURL)
	if err != nil {
		return types.DetectedVulnerability{}, err
	}
	out := types.DetectedVulnerability{
		VulnerabilityID: v.ID, VendorIDs: v.VendorIDs, PkgID: v.PkgID, PkgName: v.Package, PkgPath: v.Path,
		PkgIdentifier: id, InstalledVersion: v.Version, FixedVersion: v.Fixed, Status: dbtypes.NewStatus(v.Status),
		SeveritySource: dbtypes.SourceID(v.SeveritySource), PrimaryURL: v.URL,
		Vulnerability: dbtypes.Vulnerability{
			Title: v.Title, Description: v.Description, Severity: strings.ToUpper(v.Severity.String()),
			CweIDs: v.CWEs, References: v.References,
			PublishedDate: timeIn(v.Published), LastModifiedDate: timeIn(v.Modified),
		},
	}
	if v.Source != "" || v.SourceName != "" {
		out.DataSource = &dbtypes.DataSource{
			ID: dbtypes.SourceID(v.Source), Name: v.SourceName, URL: v.SourceURL, BaseID: dbtypes.SourceID(v.SourceBase),
		}
	}
	for s, sev := range v.VendorSeverities {
		if out.VendorSeverity == nil {
			out.VendorSeverity = dbtypes.VendorSeverity{}
		}
		out.VendorSeverity[dbtypes.SourceID(s)] = dbtypes.Severity(sev)
	}
	for s, c := range v.CVSS {
		if out.CVSS == nil {
			out.CVSS = dbtypes.VendorCVSS{}
		}
		out.CVSS[dbtypes.SourceID(s)] = dbtypes.CVSS{
			V2Vector: c.V2Vector, V3Vector: c.V3Vector, V40Vector: c.V40Vector,
			V2Score: c.V2Score, V3Score: c.V3Score, V40Score: c.V40Score,
		}
	}
	return out, nil
}

func timeIn(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
