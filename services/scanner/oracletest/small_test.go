package oracletest_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/pratique-sec/pratique/services/scanner/advisory/build"
	"github.com/pratique-sec/pratique/services/scanner/oracletest"
)

// files is a layer: name → content. Names that end with "!" are executable.
type files map[string]string

var (
	debianSystem = files{
		"etc/os-release":       "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
		"etc/debian_version":   "12.5\n",
		"var/lib/dpkg/status":  debianStatus("openssl", "3.0.11-1~deb12u2", "libssl3", "3.0.11-1~deb12u2", "tar", "1:1.34+dfsg-1.2"),
		"usr/bin/tool!":        "#!/bin/sh\nexit 0\n",
		"srv/app/package.json": `{"name":"lodash","version":"4.17.20","license":"MIT"}`,
		"opt/venv/lib/python3.11/site-packages/Jinja2-2.11.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: Jinja2\nVersion: 2.11.2\n\n",
	}
	alpineSystem = files{
		"etc/alpine-release":   "3.18.4\n",
		"etc/apk/repositories": "https://dl-cdn.alpinelinux.org/alpine/v3.18/main\n",
		"lib/apk/db/installed": "C:Q1abc=\nP:zlib\nV:1.2.13-r1\nA:x86_64\no:zlib\nm:Some One <one@example.org>\nL:Zlib\n\nP:musl\nV:1.2.4-r1\nA:x86_64\no:musl\nL:MIT\n\n",
	}
)

func debianStatus(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		source := pairs[i]
		if source == "libssl3" {
			source = "openssl"
		}
		fmt.Fprintf(&b, "Package: %s\nStatus: install ok installed\nMaintainer: Debian <d@example.org>\nArchitecture: amd64\nSource: %s\nVersion: %s\n\n", pairs[i], source, pairs[i+1])
	}
	return b.String()
}

const smallAdvisories = `{"b":"debian 12","p":"openssl","i":"CVE-2023-5678","f":"3.0.13-1~deb12u1"}
{"b":"debian 12","p":"tar","i":"CVE-2022-48303","f":"1:1.34+dfsg-1.2+deb12u1"}
{"b":"debian 12","p":"openssl","i":"CVE-2024-0727","a":["DSA-5764-1"],"f":"3.0.13-1~deb12u2"}
{"b":"alpine 3.18","p":"zlib","i":"CVE-2023-45853","f":"1.2.13-r2"}
{"b":"npm::GitHub Security Advisory npm","p":"lodash","i":"CVE-2021-23337","a":["GHSA-35jh-r3h4-6jhm"],"v":["<4.17.21"],"pa":["4.17.21"]}
{"b":"npm::Node.js Ecosystem Security Working Group","p":"lodash","i":"CVE-2021-23337","v":["<4.17.21"],"pa":["4.17.21"]}
{"b":"go::The Go Vulnerability Database","p":"stdlib","i":"CVE-9999-0001","a":["GO-9999-0001"],"v":["<99.0.0"],"pa":["99.0.0"]}
{"b":"pip::Python Packaging Advisory Database","p":"jinja2","i":"CVE-2020-28493","a":["GHSA-g3rq-g295-4j3m","PYSEC-2021-66"],"v":["<2.11.3"],"pa":["2.11.3"]}
`

const smallVulnerabilities = `{"i":"CVE-2023-5678","s":"cve","t":"Excessive time spent","n3":5.3,"c3":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:L","p":"2023-11-06T15:47:30Z"}
{"i":"CVE-2021-23337","s":"ghsa","t":"Command Injection in lodash","sev":"HIGH","w":["CWE-77"],"r":["https://github.com/advisories/GHSA-35jh-r3h4-6jhm"]}
{"i":"CVE-2023-45853","s":"cve","t":"MiniZip overflow","sev":"CRITICAL"}
`

// The same as on the corpus, on images that are made here: always, and of cases that the corpus has not.
func TestSameAsTrivyOnSmallImages(t *testing.T) {
	oracle := oracletest.Build(t)
	d := newDirect(t)
	source := filepath.Join(t.TempDir(), "database")
	when := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := build.Build(t.Context(), source, strings.NewReader(smallAdvisories), strings.NewReader(smallVulnerabilities),
		build.Meta{UpdatedAt: when, NextUpdate: when.AddDate(20, 0, 0)}); err != nil {
		t.Fatal(err)
	}
	database := d.load(t, source)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "http://")

	program := files{"usr/local/bin/program!": goBinary(t)}
	for name, test := range map[string]struct {
		layers []v1.Layer
		least  int // vulnerabilities that must be found, so that the comparison compares something
	}{
		"debian":             {[]v1.Layer{gzipLayer(t, debianSystem)}, 5},
		"zstd":               {[]v1.Layer{zstdLayer(t, debianSystem)}, 5},
		"alpine":             {[]v1.Layer{gzipLayer(t, alpineSystem)}, 1},
		"no-system":          {[]v1.Layer{gzipLayer(t, files{"srv/app/package.json": debianSystem["srv/app/package.json"]})}, 1},
		"go":                 {[]v1.Layer{gzipLayer(t, program)}, 1},
		"same-layer-twice":   {[]v1.Layer{gzipLayer(t, debianSystem), gzipLayer(t, files{"a": "b"}), gzipLayer(t, debianSystem)}, 5},
		"fixed-above":        {[]v1.Layer{gzipLayer(t, debianSystem), gzipLayer(t, files{"var/lib/dpkg/status": debianStatus("openssl", "3.0.13-1~deb12u2", "tar", "1:1.34+dfsg-1.2")})}, 3},
		"whiteout":           {[]v1.Layer{gzipLayer(t, debianSystem), gzipLayer(t, files{"srv/app/.wh.package.json": "", "opt/.wh..wh..opq": ""})}, 3},
		"packages-no-system": {[]v1.Layer{gzipLayer(t, files{"var/lib/dpkg/status": debianSystem["var/lib/dpkg/status"]})}, 0},
		"nothing":            {[]v1.Layer{gzipLayer(t, files{"a": "b"})}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			reference := address + "/small/" + name + ":v1"
			push(t, reference, test.layers)
			got, err := d.scan(t.Context(), reference)
			if err != nil {
				t.Fatal(err)
			}
			same(t, oracle.Scan(t.Context(), t, database, reference), got)
			if n := got.Count().Total(); n < test.least {
				t.Errorf("%d vulnerabilities, wanted at least %d", n, test.least)
			}
			if len(got.NotRead) != 0 {
				t.Errorf("not read: %+v", got.NotRead)
			}
		})
	}
}

func push(t *testing.T, reference string, layers []v1.Layer) {
	t.Helper()
	var add []mutate.Addendum
	for i, l := range layers {
		add = append(add, mutate.Addendum{Layer: l, History: v1.History{CreatedBy: fmt.Sprintf("layer %d", i)}})
	}
	img, err := mutate.Append(empty.Image, add...)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func gzipLayer(t *testing.T, fs files) v1.Layer {
	t.Helper()
	b := tarOf(t, fs)
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func zstdLayer(t *testing.T, fs files) v1.Layer {
	t.Helper()
	plain := tarOf(t, fs)
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return zstdBlob{static.NewLayer(w.EncodeAll(plain, nil), types.OCILayerZStd), plain}
}

// zstdBlob knows the diffID that a static layer takes to be its digest.
type zstdBlob struct {
	v1.Layer
	plain []byte
}

func (z zstdBlob) DiffID() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(z.plain))
	return h, err
}

func tarOf(t *testing.T, fs files) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range fs {
		mode := int64(0o644)
		if short, ok := strings.CutSuffix(name, "!"); ok {
			name, mode = short, 0o755
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// goBinary is a program with build information that is there wherever tests run: Go's own gofmt.
func goBinary(t *testing.T) string {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "bin", "gofmt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
