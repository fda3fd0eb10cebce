package build_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/pratique-sec/pratique/services/scanner/advisory/build"
)

func TestBuild(t *testing.T) {
	advisories := `# comment

{"b":"debian 12","p":"tar","i":"CVE-1","f":"2","d":"2026-01-01"}
{"b":"debian 12","p":"tar","i":"CVE-1","f":"3","a":["DSA-1"],"d":"2025-01-01"}
{"b":"debian 12","p":"tar","i":"CVE-1","f":"4","d":"2026-02-02"}
{"b":"debian 12","p":"tar","i":"CVE-2","f":"1","d":"2026-01-01"}
{"b":"debian 12","p":"tar","i":"CVE-2","f":"2","d":"2026-02-01"}
{"b":"npm::GitHub Security Advisory npm","p":"lodash","i":"CVE-3","v":["<1"],"pa":["1"],"a":["GHSA-1"]}
{"b":"npm::GitHub Security Advisory npm","p":"lodash","i":"CVE-3","v":["<1",">=2, <3"],"pa":["3"]}
`
	vulnerabilities := `{"i":"CVE-1","s":"ghsa","t":"second","sev":"LOW","r":["b"],"p":"2026-01-01T00:00:00Z"}
{"i":"CVE-1","s":"cve","t":"first","n3":9.8,"c3":"CVSS:3.1/AV:N","r":["c","a"],"p":"no time"}
{"i":"CVE-9","s":"cve","t":"of nothing"}
`
	dir := t.TempDir()
	meta := build.Meta{UpdatedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for range 2 { // the second time replaces the first
		if err := build.Build(t.Context(), dir, strings.NewReader(advisories), strings.NewReader(vulnerabilities), meta); err != nil {
			t.Fatal(err)
		}
	}
	got := dump(t, filepath.Join(dir, "trivy.db"))
	want := map[string]string{
		"debian 12/tar/CVE-1":                            `{"FixedVersion":"3","VendorIDs":["DSA-1"]}`,
		"debian 12/tar/CVE-2":                            `{"FixedVersion":"2"}`,
		"npm::GitHub Security Advisory npm/lodash/CVE-3": `{"PatchedVersions":["1","3"],"VendorIDs":["GHSA-1"],"VulnerableVersions":["<1",">=2, <3"]}`,
		"data-source/debian 12":                          `{"ID":"debian","Name":"Debian Security Tracker","URL":"https://salsa.debian.org/security-tracker-team/security-tracker"}`,
		"data-source/npm::GitHub Security Advisory npm":  `{"ID":"ghsa","Name":"GitHub Security Advisory npm","URL":"https://github.com/advisories?query=type%3Areviewed+ecosystem%3Anpm"}`,
		"vulnerability/CVE-1":                            `{"CVSS":{"cve":{"V3Score":9.8,"V3Vector":"CVSS:3.1/AV:N"}},"PublishedDate":"2026-01-01T00:00:00Z","References":["a","b","c"],"Severity":"CRITICAL","Title":"first","VendorSeverity":{"cve":4,"ghsa":1}}`,
		"vulnerability/CVE-2":                            `{"Severity":"UNKNOWN"}`,
		"vulnerability/CVE-3":                            `{"Severity":"UNKNOWN"}`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	b, err := os.ReadFile(filepath.Join(dir, "metadata.json"))
	if err != nil || !strings.Contains(string(b), `"Version":2`) || !strings.Contains(string(b), `"UpdatedAt":"2026-01-01T00:00:00Z"`) {
		t.Errorf("%s, %v", b, err)
	}
}

// dump lists every value by its path, with the fields of each in order.
func dump(t *testing.T, file string) map[string]string {
	t.Helper()
	db, err := bolt.Open(file, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	out := map[string]string{}
	var walk func(prefix string, b *bolt.Bucket) error
	walk = func(prefix string, b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			path := strings.TrimPrefix(prefix+"/"+string(k), "/")
			if v == nil {
				return walk(path, b.Bucket(k))
			}
			var value any
			if err := json.Unmarshal(v, &value); err != nil {
				return err
			}
			ordered, err := json.Marshal(value)
			if err != nil {
				return err
			}
			out[path] = strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(ordered))
			return nil
		})
	}
	if err := db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error { return walk(string(name), b) })
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBuildRefuses(t *testing.T) {
	for name, test := range map[string]struct{ advisories, vulnerabilities, want string }{
		"no JSON":        {"{", "", "advisories, line 1"},
		"no package":     {"\n" + `{"b":"debian 12","i":"CVE-1"}`, "", "advisories, line 2"},
		"unknown bucket": {`{"b":"beos 5","p":"tar","i":"CVE-1"}`, "", `"beos 5"`},
		"vulnerability":  {"", "nonsense", "vulnerabilities, line 1"},
		"long line":      {`{"b":"` + strings.Repeat("x", 1<<20) + `"}`, "", "token too long"},
	} {
		err := build.Build(t.Context(), t.TempDir(), strings.NewReader(test.advisories), strings.NewReader(test.vulnerabilities), build.Meta{})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, wanted %q", name, err, test.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	row := `{"b":"debian 12","p":"tar","i":"CVE-1"}`
	if err := build.Build(ctx, t.TempDir(), strings.NewReader(row), strings.NewReader(""), build.Meta{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
