package match_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
	"github.com/pratique-sec/pratique/services/scanner/advisory"
	"github.com/pratique-sec/pratique/services/scanner/advisory/build"
	"github.com/pratique-sec/pratique/services/scanner/match"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const rows = `{"b":"debian 12","p":"tar","i":"CVE-2026-0001","f":"1.35"}
{"b":"alpine 3.18","p":"zlib","i":"CVE-2026-0002","f":"1.3-r0"}
{"b":"npm::GitHub Security Advisory npm","p":"lodash","i":"CVE-2026-0003","a":["GHSA-bbbb","GHSA-aaaa","DSA-1"],"v":["<5"],"pa":["5"]}
`

const described = `{"i":"CVE-2026-0001","s":"cve","t":"Tar","sev":"HIGH"}
`

type scanner struct {
	*match.Matcher
	holder *advisory.Holder
	folder string
	clock  *time.Time
}

func newScanner(t *testing.T, advisories string) scanner {
	t.Helper()
	dir := t.TempDir()
	meta := build.Meta{UpdatedAt: now, NextUpdate: now.AddDate(1, 0, 0)}
	if err := build.Build(t.Context(), dir, strings.NewReader(advisories), strings.NewReader(described), meta); err != nil {
		t.Fatal(err)
	}
	p, err := advisory.Pack(t.Context(), vulndb.Vulnerabilities, dir, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	folder, err := advisory.Unpack(t.Context(), p.Pointer, p, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := scanner{holder: &advisory.Holder{}, folder: folder, clock: new(time.Time)}
	*s.clock = now
	p.Pointer.Sequence = 7
	if err := s.holder.Swap(p.Pointer, folder); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.holder.Close(); err != nil {
			t.Error(err)
		}
	})
	s.Matcher = match.New(match.Config{
		Databases: s.holder, Version: "1.2.3", Now: func() time.Time { return *s.clock }, Logger: slog.New(slog.DiscardHandler),
	})
	return s
}

// stack makes a job and facts of blobs, one for each layer. Equal blobs are equal layers.
func stack(t *testing.T, blobs ...ftypes.BlobInfo) (work.MatchJob, []facts.Layer) {
	t.Helper()
	job := work.MatchJob{Analysis: "analysis"}
	job.Image.Reference = image.Reference{Host: "registry.example", Repository: "team/app", Tag: "v1", Digest: digest("image")}
	job.Image.Config = digest("config")
	var layers []facts.Layer
	for i, b := range blobs {
		b.SchemaVersion = ftypes.BlobJSONSchemaVersion
		enc, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		id := digest(string(enc))
		layers = append(layers, facts.Layer{DiffID: id, Blob: enc})
		job.Image.Layers = append(job.Image.Layers, image.Layer{DiffID: id, Blob: digest(fmt.Sprint("blob", i)), CreatedBy: fmt.Sprint("step ", i)})
	}
	return job, layers
}

func digest(s string) image.Digest { return image.DigestOf([]byte(s)) }

func debian(packages ...ftypes.Package) ftypes.BlobInfo {
	return ftypes.BlobInfo{OS: ftypes.OS{Family: "debian", Name: "12.5"}, PackageInfos: []ftypes.PackageInfo{{FilePath: "var/lib/dpkg/status", Packages: packages}}}
}

func tar(version string) ftypes.Package {
	return ftypes.Package{ID: "tar@" + version, Name: "tar", Version: version, SrcName: "tar", SrcVersion: version}
}

func lodash(dev bool) ftypes.Application {
	return ftypes.Application{Type: ftypes.NodePkg, FilePath: "srv/package.json", Packages: []ftypes.Package{
		{ID: "lodash@4.17.20", Name: "lodash", Version: "4.17.20", FilePath: "srv/package.json", Dev: dev},
	}}
}

func (s scanner) match(t *testing.T, blobs ...ftypes.BlobInfo) *report.Report {
	t.Helper()
	job, layers := stack(t, blobs...)
	r, err := s.Match(t.Context(), job, layers)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func found(r *report.Report) []string {
	var out []string
	for _, res := range r.Results {
		for _, v := range res.Vulnerabilities {
			out = append(out, v.ID+" "+v.Package)
		}
	}
	return out
}

func TestMatch(t *testing.T) {
	s := newScanner(t, rows)
	r := s.match(t, debian(tar("1.34")), ftypes.BlobInfo{Applications: []ftypes.Application{lodash(false)}})
	if r.Outcome != report.Findings || r.OS.Family != "debian" || r.OS.Name != "12.5" || r.OS.EndOfLife {
		t.Errorf("outcome %s, OS %+v", r.Outcome, r.OS)
	}
	if r.Database.Sequence != 7 || r.Database.UpdatedAt != now || r.Database.Digest == "" || r.Created != now {
		t.Errorf("database %+v, created %s", r.Database, r.Created)
	}
	if want := (report.Engine{Version: "1.2.3", Trivy: r.Engine.Trivy, Analysis: "analysis"}); r.Engine != want || r.Engine.Trivy == "" {
		t.Errorf("engine %+v", r.Engine)
	}
	if len(r.Results) != 2 || len(r.Results[0].Vulnerabilities) != 1 || len(r.Results[1].Vulnerabilities) != 1 {
		t.Fatalf("results %+v", r.Results)
	}
	system, language := r.Results[0].Vulnerabilities[0], r.Results[1].Vulnerabilities[0]
	if r.Results[0].Class != "os-pkgs" || r.Results[0].Target != "" || system.Severity != report.High || system.Status != "fixed" ||
		system.Fixed != "1.35" || system.Layer != r.Image.Layers[0].DiffID || system.CreatedBy != "step 0" {
		t.Errorf("system: %+v", r.Results[0])
	}
	if language.Layer != r.Image.Layers[1].DiffID || language.CreatedBy != "step 1" || language.Path != "srv/package.json" {
		t.Errorf("language: %+v", language)
	}
	if d := cmp.Diff([]string{"GHSA-aaaa", "GHSA-bbbb"}, language.Aliases); d != "" {
		t.Error("aliases:", d)
	}
	if d := cmp.Diff([]string{"GHSA-bbbb", "GHSA-aaaa", "DSA-1"}, language.VendorIDs); d != "" {
		t.Error("vendor ids:", d)
	}
}

func TestOutcome(t *testing.T) {
	s := newScanner(t, rows)
	if r := s.match(t, debian(tar("1.35"))); r.Outcome != report.Clean {
		t.Errorf("fixed: %s", r.Outcome)
	}
	if r := s.match(t); r.Outcome != report.Clean {
		t.Errorf("no layers: %s", r.Outcome)
	}
	if r := s.match(t, ftypes.BlobInfo{Applications: []ftypes.Application{lodash(true)}}); r.Outcome != report.Clean || len(r.Results) != 0 {
		t.Errorf("only needed to develop: %s, %v", r.Outcome, found(r))
	}
	if r := s.match(t, ftypes.BlobInfo{OS: ftypes.OS{Family: "beos", Name: "5"}, Applications: []ftypes.Application{lodash(false)}}); r.Outcome != report.Findings {
		t.Errorf("unknown system: %s", r.Outcome)
	}
}

// What layers share must not carry anything from one image to the next.
func TestFactsServeManyImages(t *testing.T) {
	s := newScanner(t, rows)
	job, layers := stack(t, debian(tar("1.34")), ftypes.BlobInfo{Applications: []ftypes.Application{lodash(false)}})
	first, err := s.Match(t.Context(), job, layers)
	if err != nil {
		t.Fatal(err)
	}
	other := job
	other.Image.Layers = []image.Layer{
		{DiffID: layers[1].DiffID, Blob: digest("x"), CreatedBy: "other 0"}, {DiffID: layers[0].DiffID, Blob: digest("y"), CreatedBy: "other 1"},
	}
	r, err := s.Match(t.Context(), other, []facts.Layer{layers[1], layers[0]})
	if err != nil {
		t.Fatal(err)
	}
	if v := r.Results[0].Vulnerabilities[0]; v.CreatedBy != "other 1" {
		t.Errorf("%+v", v)
	}
	again, err := s.Match(t.Context(), job, layers)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(first, again); d != "" {
		t.Error(d)
	}
}

func TestEndOfLifeByTheClock(t *testing.T) {
	s := newScanner(t, rows)
	for when, want := range map[time.Time]bool{now: false, now.AddDate(30, 0, 0): true} {
		*s.clock = when
		if r := s.match(t, debian(tar("1.35"))); r.OS.EndOfLife != want {
			t.Errorf("in %d: %v", when.Year(), r.OS.EndOfLife)
		}
	}
}

// Without a system, an image is judged as what its packages come from.
func TestRepositoryInPlaceOfSystem(t *testing.T) {
	s := newScanner(t, rows)
	zlib := ftypes.BlobInfo{
		Repository:   &ftypes.Repository{Family: "alpine", Release: "3.18"},
		PackageInfos: []ftypes.PackageInfo{{FilePath: "lib/apk/db/installed", Packages: []ftypes.Package{{Name: "zlib", Version: "1.2-r0", SrcName: "zlib", SrcVersion: "1.2-r0"}}}},
	}
	r := s.match(t, zlib)
	if d := cmp.Diff([]string{"CVE-2026-0002 zlib"}, found(r)); d != "" {
		t.Error(d)
	}
	if r.OS.Family != "alpine" || r.OS.Name != "3.18" || r.OS.Repository != "" {
		t.Errorf("%+v", r.OS)
	}
	zlib.OS = ftypes.OS{Family: "alpine", Name: "3.17.2"}
	if r := s.match(t, zlib); r.OS.Repository != "alpine 3.18" {
		t.Errorf("%+v", r.OS)
	}
}

func TestNotReadMakesPartial(t *testing.T) {
	s := newScanner(t, rows)
	lost := facts.NotRead{Path: "var/lib/dpkg/status", Code: reason.AnalysisFailed, Packages: true}
	for name, test := range map[string]struct {
		above []ftypes.BlobInfo
		lost  facts.NotRead
		want  report.Outcome
	}{
		"alone":          {nil, lost, report.Partial},
		"no database":    {nil, facts.NotRead{Path: "srv/package.json", Code: reason.AnalysisFailed}, report.Clean},
		"replaced":       {[]ftypes.BlobInfo{debian(tar("1.35"))}, lost, report.Clean},
		"removed":        {[]ftypes.BlobInfo{{WhiteoutFiles: []string{"var/lib/dpkg/status"}}}, lost, report.Clean},
		"folder removed": {[]ftypes.BlobInfo{{WhiteoutFiles: []string{"var/lib"}}}, lost, report.Clean},
		"folder hidden":  {[]ftypes.BlobInfo{{OpaqueDirs: []string{"var/"}}}, lost, report.Clean},
		"other removed":  {[]ftypes.BlobInfo{{WhiteoutFiles: []string{"var/li"}}}, lost, report.Partial},
	} {
		t.Run(name, func(t *testing.T) {
			job, layers := stack(t, append([]ftypes.BlobInfo{{}}, test.above...)...)
			layers[0].NotRead = []facts.NotRead{test.lost}
			r, err := s.Match(t.Context(), job, layers)
			if err != nil {
				t.Fatal(err)
			}
			if r.Outcome != test.want {
				t.Errorf("outcome %s, wanted %s", r.Outcome, test.want)
			}
			if len(r.NotRead) != 1 || r.NotRead[0].Path != test.lost.Path || r.NotRead[0].DiffID != layers[0].DiffID {
				t.Errorf("not read: %+v", r.NotRead)
			}
		})
	}
}

func TestMatchNeedsItsFacts(t *testing.T) {
	s := newScanner(t, rows)
	job, layers := stack(t, debian(tar("1.34")), ftypes.BlobInfo{Applications: []ftypes.Application{lodash(false)}})
	damaged, schema := layers[0], layers[0]
	damaged.Blob = damaged.Blob[:20]
	schema.Blob = []byte(`{"SchemaVersion":1}`)
	for name, given := range map[string][]facts.Layer{
		"too few": layers[:1], "other order": {layers[1], layers[0]}, "damaged": {damaged, layers[1]}, "schema": {schema, layers[1]},
	} {
		_, err := s.Match(t.Context(), job, given)
		if got := reason.Of(err); err == nil || got.Kind != reason.Retry || got.Code != reason.FactsMissing {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.holder.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Match(t.Context(), job, layers); reason.Of(err).Code != reason.NoDatabase {
		t.Errorf("without a database: %v", err)
	}
}

// A database whose file is cut short under us costs the match, not the process, and can be swapped away.
func TestDamagedDatabase(t *testing.T) {
	var many strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&many, `{"b":"debian 12","p":"tar","i":"CVE-2026-%04d","f":"1.35"}`+"\n", i)
	}
	s := newScanner(t, many.String())
	job, layers := stack(t, debian(tar("1.34")))
	if err := os.Truncate(filepath.Join(s.folder, "db", "trivy.db"), 4*int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	_, err := s.Match(t.Context(), job, layers)
	if err == nil || reason.Of(err).Kind != reason.Retry {
		t.Errorf("%v", err)
	}
	if err := s.holder.Close(); err != nil {
		t.Error(err)
	}
	if r := newScanner(t, rows).match(t, debian(tar("1.34"))); r.Outcome != report.Findings {
		t.Errorf("on the next database: %s", r.Outcome)
	}
}

func TestTrivyReport(t *testing.T) {
	s := newScanner(t, rows)
	r := s.match(t, debian(ftypes.Package{
		ID: "tar@1:1.3-4-5", Name: "tar", Epoch: 1, Version: "1.3-4", Release: "5", SrcName: "tar", SrcEpoch: 1, SrcVersion: "1.3-4", SrcRelease: "5",
	}))
	got, err := match.TrivyReport(r)
	if err != nil {
		t.Fatal(err)
	}
	if got.ArtifactName != "registry.example/team/app:v1" || got.Results[0].Target != "registry.example/team/app:v1 (debian 12.5)" {
		t.Errorf("%s, %s", got.ArtifactName, got.Results[0].Target)
	}
	p := got.Results[0].Packages[0]
	if p.Epoch != 1 || p.Version != "1.3-4" || p.Release != "5" || p.SrcEpoch != 1 || p.SrcVersion != "1.3-4" || p.SrcRelease != "5" {
		t.Errorf("%+v", p)
	}
	if p.Layer.DiffID != string(r.Image.Layers[0].DiffID) || p.Layer.Digest != string(r.Image.Layers[0].Blob) {
		t.Errorf("%+v", p.Layer)
	}
	broken := *r
	broken.Results = []report.Result{{Packages: []report.Package{{PURL: "no package URL"}}}}
	if _, err := match.TrivyReport(&broken); err == nil {
		t.Errorf("%v", err)
	}
}
