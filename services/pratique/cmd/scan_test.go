package cmd

import (
	"bytes"
	"cmp"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/go-containerregistry/pkg/registry"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/pratique/demo"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

var update = flag.Bool("update", false, "write the golden files anew")

// scene is a registry with the demo's images, and a database.
type scene struct{ host, db string }

func newScene(t *testing.T) scene {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	s := scene{host: strings.TrimPrefix(server.URL, "http://"), db: filepath.Join(t.TempDir(), "db")}
	images, err := demodata.Images()
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Push(t.Context(), s.host, images, nil); err != nil {
		t.Fatal(err)
	}
	if err := demo.BuildDatabase(t.Context(), s.db, demodata.Built); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s scene) scan(t *testing.T, args ...string) outcome {
	t.Helper()
	return runCommand(t, append([]string{"scan", "--insecure"}, args...)...)
}

// reports reads the lines of -o json.
func reports(t *testing.T, stdout string) []*report.Report {
	t.Helper()
	var all []*report.Report
	for line := range strings.Lines(stdout) {
		r, err := wire.ReportFromJSON([]byte(line))
		if err != nil {
			t.Fatalf("%v: %.200s", err, line)
		}
		all = append(all, r)
	}
	return all
}

// fingerprint is what a report finds, a line each.
func fingerprint(r *report.Report) []string {
	var lines []string
	for _, res := range r.Results {
		for _, v := range res.Vulnerabilities {
			lines = append(lines, strings.Join([]string{res.Type, v.Package, v.Version, v.Path, v.ID, v.Fixed, v.Severity.String()}, " "))
		}
	}
	slices.Sort(lines)
	return lines
}

func TestScanFindsWhatIsThere(t *testing.T) {
	s := newScene(t)
	names := []string{"shop/storefront:1.0", "shop/reports:1.0", "edge/api:1.0", "tools/toolbox:3.4", "tools/shell:3.10"}
	args := []string{"--db", s.db, "-o", "json"}
	for _, n := range names {
		args = append(args, s.host+"/"+n)
	}
	got := s.scan(t, args...)
	if got.code != ExitOK {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
	all := reports(t, got.stdout)
	if len(all) != len(names) {
		t.Fatalf("%d reports for %d images", len(all), len(names))
	}
	var text bytes.Buffer
	for i, r := range all {
		packages := 0
		for _, res := range r.Results {
			packages += len(res.Packages)
		}
		fmt.Fprintf(&text, "%s %s: %s, %s %s, %d packages\n", names[i], r.Image.Platform, r.Outcome, r.OS.Family, r.OS.Name, packages)
		for _, line := range fingerprint(r) {
			fmt.Fprintf(&text, "\t%s\n", line)
		}
	}
	golden := filepath.Join("testdata", "scan.txt")
	if *update {
		if err := os.WriteFile(golden, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func TestScanExitCodes(t *testing.T) {
	s := newScene(t)
	state := t.TempDir()
	load := s.scan(t, "--state", state, "--db", s.db, s.host+"/tools/shell:3.10", "--fail-on", "unknown")
	if load.code != ExitOK || !strings.Contains(load.stdout, "nothing known against it") {
		t.Fatalf("clean image: %+v", load)
	}
	for _, c := range []struct {
		name string
		args []string
		want int
		out  []string
	}{
		{"below the threshold", []string{s.host + "/tools/toolbox:3.4", "--fail-on", "low"}, ExitOK, []string{"CVE-2016-6301"}},
		{"at the threshold", []string{s.host + "/shop/storefront:1.0", "--fail-on", "critical"}, ExitThreshold, []string{"CVE-2019-10744"}},
		{"one is missing, the other is printed, 3 before 1", []string{s.host + "/shop/none:1", s.host + "/shop/storefront:1.0", "--fail-on", "low"}, ExitFailed, []string{"not-found", "CVE-2019-10744"}},
		{"a signature is no image", []string{s.host + "/shop/storefront:" + signatureTag(t)}, ExitFailed, []string{"not-an-image"}},
		{"another platform of an index", []string{s.host + "/edge/api:1.0", "--platform", "linux/arm64"}, ExitOK, []string{"linux/arm64", "golang.org/x/net"}},
	} {
		got := s.scan(t, append([]string{"--state", state}, c.args...)...)
		if got.code != c.want {
			t.Errorf("%s: exit code %d, want %d; %s", c.name, got.code, c.want, got.stderr)
		}
		for _, want := range c.out {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("%s: stdout lacks %q:\n%s", c.name, want, got.stdout)
			}
		}
	}
	got := s.scan(t, "--state", state, "-o", "json", s.host+"/shop/none:1", s.host+"/tools/shell:3.10")
	if all := reports(t, got.stdout); got.code != ExitFailed || len(all) != 2 || all[0].Reason != "not-found" || all[1].Outcome != report.Clean {
		t.Errorf("one that never resolved, as JSON: %+v", got)
	}
	if got := runCommand(t, "scan", "--state", state, s.host+"/tools/shell:3.10"); got.code != ExitFailed || !strings.Contains(got.stdout, "--insecure") {
		t.Errorf("plain HTTP without --insecure: %+v", got)
	}
}

func signatureTag(t *testing.T) string {
	t.Helper()
	images, err := demodata.Images()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(images, func(i demodata.Image) bool { return i.Artifact })
	return images[i].Tag
}

// What reads Trivy's reports reads ours.
func TestScanWritesTrivysReport(t *testing.T) {
	s := newScene(t)
	ref := s.host + "/shop/reports:1.0"
	ours := s.scan(t, "--db", s.db, "-o", "json", ref)
	theirs := s.scan(t, "--db", s.db, "-o", "trivy", ref)
	if ours.code != ExitOK || theirs.code != ExitOK {
		t.Fatalf("%s%s", ours.stderr, theirs.stderr)
	}
	type trivy struct {
		SchemaVersion int
		ArtifactName  string
		Results       []struct {
			Class, Type     string
			Vulnerabilities []struct{ VulnerabilityID, PkgName, InstalledVersion, FixedVersion, Severity, PkgPath string }
		}
	}
	var got trivy
	d := jsontext.NewDecoder(strings.NewReader(theirs.stdout))
	if err := json.UnmarshalDecode(d, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.UnmarshalDecode(d, &trivy{}); !errors.Is(err, io.EOF) {
		t.Errorf("more than one object: %v", err)
	}
	if got.SchemaVersion != 2 || got.ArtifactName != ref {
		t.Errorf("schema %d, artifact %q", got.SchemaVersion, got.ArtifactName)
	}
	var lines []string
	for _, res := range got.Results {
		for _, v := range res.Vulnerabilities {
			lines = append(lines, strings.Join([]string{res.Type, v.PkgName, v.InstalledVersion, v.PkgPath, v.VulnerabilityID, v.FixedVersion, strings.ToLower(v.Severity)}, " "))
		}
	}
	want := fingerprint(reports(t, ours.stdout)[0])
	if diff := gocmp.Diff(want, lines, cmpopts.SortSlices(cmp.Less[string])); diff != "" || len(want) < 100 {
		t.Errorf("%d findings (-ours +theirs):\n%s", len(want), diff)
	}
}
