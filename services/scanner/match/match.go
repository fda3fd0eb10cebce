// Package match judges an image: it merges the facts of its layers as the image stacks them, asks Trivy's
// detectors what is known against the packages, and writes the report. It reads the vulnerability database
// and nothing else; its results are those of `trivy image --scanners vuln` of the same version.
package match

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/aquasecurity/trivy/pkg/clock"
	ospkgdetector "github.com/aquasecurity/trivy/pkg/detector/ospkg"
	"github.com/aquasecurity/trivy/pkg/fanal/applier"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/scan/langpkg"
	"github.com/aquasecurity/trivy/pkg/scan/ospkg"
	"github.com/aquasecurity/trivy/pkg/types"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
	"github.com/pratique-sec/pratique/services/scanner/advisory"
	"github.com/pratique-sec/pratique/services/scanner/trivylib"
)

// Config is what a matcher needs; all of it is required but for JavaDB.
type Config struct {
	Databases *advisory.Holder
	Version   string // Pratique's
	JavaDB    string // content digest of the Java index that facts are made with; "" for none
	Now       func() time.Time
	Logger    *slog.Logger
}

// Matcher judges images. It is safe for concurrent use.
type Matcher struct{ config Config }

// New returns a matcher. It replaces slog's default logger: see trivylib.
func New(c Config) *Matcher {
	trivylib.Install(c.Logger)
	return &Matcher{config: c}
}

// sbomAnalyzer is the name of the analyzer that reads SBOMs; its own package links all of analysis.
const sbomAnalyzer = "sbom"

// scanOptions are those of `trivy image --scanners vuln`.
var scanOptions = types.ScanOptions{
	PkgTypes:         []string{types.PkgTypeOS, types.PkgTypeLibrary},
	PkgRelationships: ftypes.Relationships,
	Scanners:         types.Scanners{types.VulnerabilityScanner},
}

// Match judges the job's image on the current database. layers are the facts of job.Image.Layers, in their
// order. The outcome is clean, findings, or partial when a package database could not be read. Errors are
// of kind Retry: no database, facts that are damaged or of other layers, a damaged database.
func (m *Matcher) Match(ctx context.Context, job work.MatchJob, layers []facts.Layer) (*report.Report, error) {
	blobs, err := decode(job.Image, layers)
	if err != nil {
		return nil, fmt.Errorf("match %s: %w", job.Image.Digest, err)
	}
	now := m.config.Now()
	out := &report.Report{
		Image:   job.Image,
		NotRead: notRead(layers, blobs),
		Engine:  report.Engine{Version: m.config.Version, Trivy: trivylib.Version, Analysis: job.Analysis, JavaDB: m.config.JavaDB},
		Created: now,
	}
	err = m.config.Databases.View(func(p vulndb.Pointer) error {
		out.Database = report.Database{Digest: p.Digest, UpdatedAt: p.UpdatedAt, Sequence: p.Sequence}
		return judge(clock.With(ctx, now), blobs, out)
	})
	if err != nil {
		return nil, fmt.Errorf("match %s: %w", job.Image.Digest, err)
	}
	out.Outcome = outcome(out)
	return out, nil
}

func outcome(r *report.Report) report.Outcome {
	for _, n := range r.NotRead {
		if n.Packages {
			return report.Partial
		}
	}
	if r.Count().Total() > 0 {
		return report.Findings
	}
	return report.Clean
}

// decode makes Trivy's values out of facts: anew for every image, since the applier writes into them. What
// belongs to the image is added here: facts are of content, which many blobs and histories may share.
func decode(img image.Image, layers []facts.Layer) ([]ftypes.BlobInfo, error) {
	if len(layers) != len(img.Layers) {
		return nil, reason.Retryf(reason.FactsMissing, "facts of %d layers for an image of %d", len(layers), len(img.Layers))
	}
	blobs := make([]ftypes.BlobInfo, len(layers))
	for i, l := range layers {
		if l.DiffID != img.Layers[i].DiffID {
			return nil, reason.Retryf(reason.FactsMissing, "facts of %s for layer %d, which is %s", l.DiffID, i, img.Layers[i].DiffID)
		}
		if err := json.Unmarshal(l.Blob, &blobs[i]); err != nil {
			return nil, reason.Retryf(reason.FactsMissing, "facts of %s are damaged: %w", l.DiffID, err)
		}
		if v := blobs[i].SchemaVersion; v != ftypes.BlobJSONSchemaVersion {
			return nil, reason.Retryf(reason.FactsMissing, "facts of %s have schema %d", l.DiffID, v)
		}
		blobs[i].DiffID = string(l.DiffID)
		blobs[i].Digest, blobs[i].CreatedBy = string(img.Layers[i].Blob), img.Layers[i].CreatedBy
		dropChecksums(blobs[i].Applications)
	}
	return blobs, nil
}

// dropChecksums removes what analysis keeps for SBOMs: Trivy has no checksums of language packages in plain
// reports, and its hash of a package would be another. Those that an SBOM in the image states remain.
func dropChecksums(apps []ftypes.Application) {
	for _, app := range apps {
		for i, p := range app.Packages {
			if p.AnalyzedBy != sbomAnalyzer {
				app.Packages[i].Digest = ""
			}
		}
	}
}

// judge fills the report's OS and results. A database that is damaged faults when it is read, deep inside
// Trivy's library; this goroutine asks for that as a panic.
func judge(ctx context.Context, blobs []ftypes.BlobInfo, out *report.Report) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = reason.Retryf(reason.Internal, "matching panicked on database %s: %v", out.Database.Digest, p)
		}
	}()
	detail := applier.ApplyLayers(blobs)
	target := types.ScanTarget{
		OS:           systemOf(detail),
		Repository:   detail.Repository,
		Packages:     detail.Packages,
		Applications: withoutDevelopment(detail.Applications),
	}
	results, endOfLife, err := detect(ctx, target)
	if err != nil {
		return err
	}
	describe(results)
	w := newWriter(out.Image)
	out.OS = report.OS{
		Family: string(target.OS.Family), Name: target.OS.Name,
		EndOfLife: endOfLife, Extended: target.OS.Extended, Repository: foreignRepository(target),
	}
	for _, r := range results {
		out.Results = append(out.Results, w.result(r))
	}
	return ctx.Err()
}

// systemOf is the operating system that packages are judged as. An image without one may still say where
// its packages come from.
func systemOf(detail ftypes.ArtifactDetail) ftypes.OS {
	switch {
	case detail.OS.Detected():
		return detail.OS
	case detail.Repository != nil:
		return ftypes.OS{Family: detail.Repository.Family, Name: detail.Repository.Release}
	case len(detail.Packages) > 0: // independent of any system
		return ftypes.OS{Family: "none"}
	}
	return detail.OS
}

// foreignRepository names the family and release that the packages come from when it is another than the
// system's.
func foreignRepository(t types.ScanTarget) string {
	if t.Repository == nil || (t.Repository.Family == t.OS.Family && strings.HasPrefix(t.OS.Name, t.Repository.Release)) {
		return ""
	}
	return strings.TrimSpace(string(t.Repository.Family) + " " + t.Repository.Release)
}

func detect(ctx context.Context, target types.ScanTarget) (results types.Results, endOfLife bool, err error) {
	system, endOfLife, err := ospkg.NewScanner().Scan(ctx, target, scanOptions)
	switch {
	case errors.Is(err, ospkgdetector.ErrUnsupportedOS):
		endOfLife = false
	case err != nil:
		return nil, false, fmt.Errorf("detect in the system's packages: %w", err)
	case system.Target != "":
		results = append(results, system)
	}
	languages, err := langpkg.NewScanner().Scan(ctx, target, scanOptions)
	if err != nil {
		return nil, false, fmt.Errorf("detect in language packages: %w", err)
	}
	return append(results, languages...), endOfLife, nil
}
