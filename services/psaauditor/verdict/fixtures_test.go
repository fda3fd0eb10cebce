package verdict_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/services/psaauditor/manifest"
	"github.com/pratique-sec/pratique/services/psaauditor/verdict"
)

// fixtureCount is how many pods k8s.io/pod-security-admission v0.37.2 has in test/testdata.
const fixtureCount = 4537

// fixture is one of them, with what its folder says of it.
type fixture struct {
	path    string
	level   verdict.Level
	version verdict.Version
	allowed bool
	body    []byte
}

// fixtures reads the module's own test data: they are in its zip, wherever the module cache is.
func fixtures(t *testing.T) []fixture {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/pod-security-admission").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "test", "testdata")
	var all []fixture
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		parts := strings.Split(filepath.ToSlash(rel), "/") // restricted/v1.34/fail/runasuser0.yaml
		f := fixture{path: rel, allowed: parts[2] == "pass"}
		if f.level, err = verdict.ParseLevel(parts[0]); err != nil {
			return err
		}
		if f.version, err = verdict.ParseVersion(parts[1]); err != nil {
			return err
		}
		if f.body, err = os.ReadFile(path); err != nil {
			return err
		}
		all = append(all, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != fixtureCount {
		t.Fatalf("%d fixtures in %s, want %d", len(all), root, fixtureCount)
	}
	return all
}

func (f fixture) pod(t *testing.T) manifest.Object {
	t.Helper()
	set, err := manifest.Parse(f.body)
	if err != nil || len(set.Problems) > 0 || len(set.Objects) != 1 {
		t.Fatalf("%s: %v, %v, %d objects", f.path, err, set.Problems, len(set.Objects))
	}
	return set.Objects[0]
}

// Every fixture is judged as its folder says, and one that fails by the check that its name says.
func TestFixturesAgree(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures(t) {
		o := f.pod(t)
		bad := verdict.Evaluate(f.level, f.version, o.Metadata, o.Spec)
		if (len(bad) == 0) != f.allowed {
			t.Errorf("%s: violations %v", f.path, bad)
		}
		if f.allowed {
			continue
		}
		want := strings.TrimRight(strings.TrimSuffix(filepath.Base(f.path), ".yaml"), "0123456789")
		if !contains(bad, want) && !contains(bad, overriddenBy[want]) {
			t.Errorf("%s: fails %v, not %s", f.path, bad, want)
		}
	}
}

// overriddenBy says which check of restricted stands in for one of baseline, by fixtures' names.
var overriddenBy = map[string]string{
	"capabilities_baseline":   "capabilities_restricted",
	"hostpathvolumes":         "restrictedVolumes",
	"procmount":               "procMount_restricted",
	"seccompprofile_baseline": "seccompProfile_restricted",
}

func contains(all []verdict.Violation, check string) bool {
	for _, v := range all {
		if strings.EqualFold(v.Check, check) {
			return true
		}
	}
	return false
}

// The same pods by the plugin's own evaluator, at both levels and wherever a version changes something: the
// same words in the same order.
func TestAsThePluginSays(t *testing.T) {
	t.Parallel()
	plugin, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	versions := []verdict.Version{api.LatestVersion(), api.MajorMinorVersion(1, 99)}
	for _, c := range policy.DefaultChecks() {
		for _, form := range c.Versions { // where something changes, and just before
			for _, minor := range []int{form.MinimumVersion.Minor() - 1, form.MinimumVersion.Minor()} {
				if v := api.MajorMinorVersion(1, minor); minor >= 0 && !slices.Contains(versions, v) {
					versions = append(versions, v)
				}
			}
		}
	}
	seen := map[string]bool{}
	for _, f := range fixtures(t) {
		if seen[string(f.body)] {
			continue
		}
		seen[string(f.body)] = true
		o := f.pod(t)
		for _, l := range []verdict.Level{verdict.Baseline, verdict.Restricted} {
			for _, v := range versions {
				compare(t, f.path, plugin, l, v, o.Metadata, o.Spec)
			}
		}
	}
	if len(seen) < 300 {
		t.Errorf("only %d different pods", len(seen))
	}
}

func compare(t *testing.T, name string, plugin policy.Evaluator, l verdict.Level, v verdict.Version, meta *metav1.ObjectMeta, spec *corev1.PodSpec) {
	t.Helper()
	all := policy.AggregateCheckResults(plugin.EvaluatePod(api.LevelVersion{Level: l, Version: v}, meta, spec))
	want := all.ForbiddenDetail()
	var words []string
	for _, bad := range verdict.Evaluate(l, v, meta, spec) {
		words = append(words, bad.Message)
	}
	if diff := cmp.Diff(want, strings.Join(words, ", ")); diff != "" {
		t.Errorf("%s at %s %s (-plugin +ours):\n%s", name, l, v.String(), diff)
	}
}
