package e2e

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pratique-sec/pratique/pkg/image"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
	foreignType  = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
)

// shelf is a registry that hands out whatever was put there, under whatever name, and whose repositories
// share nothing: what a decent registry would not take, and what a lenient one would hide.
type shelf struct {
	host string

	mu    sync.Mutex
	items map[string]item // by path below /v2/
	other []string        // paths that were asked for and lie outside /v2/
}

type item struct {
	body   []byte
	digest image.Digest // that it is said to have
	kind   string       // media type
}

func newShelf(t testing.TB) *shelf {
	s := &shelf{items: map[string]item{}}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.host = strings.TrimPrefix(srv.URL, "http://")
	return s
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if path == "" {
		return
	}
	s.mu.Lock()
	if !ok {
		s.other = append(s.other, path)
	}
	it, ok := s.items[path]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", it.kind)
	w.Header().Set("Docker-Content-Digest", string(it.digest))
	http.ServeContent(w, r, "", clock, bytes.NewReader(it.body))
}

func (s *shelf) put(path string, it item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items[path] = it
}

func (s *shelf) drop(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.items, path)
}

// strayed are the paths that were asked for and are no registry's.
func (s *shelf) strayed() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.other)
}

// tag names the repository's latest.
func (s *shelf) tag(repository, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items[repository+"/manifests/"+name] = s.items[repository+"/manifests/latest"]
}

// entry is how a manifest names a blob, or an index a manifest.
type entry struct {
	MediaType string            `json:"mediaType"`
	Digest    image.Digest      `json:"digest"`
	Size      int               `json:"size"`
	URLs      []string          `json:"urls,omitempty"`
	Platform  map[string]string `json:"platform,omitempty"`
}

// blob stores bytes under a digest, their own when it is "".
func (s *shelf) blob(repository string, body []byte, as image.Digest) image.Digest {
	d := cmp.Or(as, image.DigestOf(body))
	s.put(repository+"/blobs/"+string(d), item{body, d, "application/octet-stream"})
	return d
}

// layer stores a layer and returns how a manifest names it.
func (s *shelf) layer(repository string, body []byte) entry {
	return entry{MediaType: layerType, Digest: s.blob(repository, body, ""), Size: len(body)}
}

// manifest stores one as the repository's latest, under a digest, its own when it is "".
func (s *shelf) manifest(repository, kind string, body []byte, as image.Digest) {
	d := cmp.Or(as, image.DigestOf(body))
	s.put(repository+"/manifests/"+string(d), item{body, d, kind})
	s.put(repository+"/manifests/latest", item{body, d, kind})
}

// image stores one of the layers, with a config that claims diffIDs.
func (s *shelf) image(t testing.TB, repository string, layers []entry, diffIDs ...image.Digest) {
	t.Helper()
	config := encode(t, map[string]any{
		"os": "linux", "architecture": "amd64", "created": clock,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	s.manifest(repository, manifestType, encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "layers": layers,
		"config": entry{MediaType: configType, Digest: s.blob(repository, config, ""), Size: len(config)},
	}), "")
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// archive is a tar of pairs of name and content, and the digest of it.
func archive(t testing.TB, files ...string) (plain []byte, diffID image.Digest) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), image.DigestOf(b.Bytes())
}

func zip(t testing.TB, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bullseye is the system that the corpus's images have too: its only package is openssl 1.1.1k-1.
var bullseye = []string{
	"etc/debian_version", "11.11\n",
	"etc/os-release", "ID=debian\nVERSION_ID=\"11\"\nPRETTY_NAME=\"Debian GNU/Linux 11 (bullseye)\"\n",
	"var/lib/dpkg/status", status("openssl", "1.1.1k-1"),
}

func status(name, version string) string {
	return "Package: " + name + "\nStatus: install ok installed\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.com>\nVersion: " + version + "\n\n"
}

// bullseyeAdvisories are rows for the database, and bullseyeFound what they find in bullseye.
var (
	bullseyeAdvisories = []string{
		`{"b":"debian 11","p":"openssl","i":"CVE-2021-3711","f":"1.1.1k-1+deb11u1"}`,
		`{"b":"debian 11","p":"openssl","i":"CVE-2022-0778","f":"1.1.1k-1+deb11u2"}`,
		`{"b":"debian 11","p":"openssl","i":"CVE-2020-1971","f":"1.1.1i-1"}`, // fixed before
		`{"b":"debian 11","p":"secret","i":"CVE-2026-0001","f":"2.0-1"}`,
	}
	bullseyeFound = []string{"openssl CVE-2021-3711", "openssl CVE-2022-0778"}
)

func bullseyeDatabase(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := buildDatabase(t.Context(), dir, func(string) bool { return true }, bullseyeAdvisories...); err != nil {
		t.Fatal(err)
	}
	return dir
}

// handmade are the images that the corpus's program makes too, and what must become of them, as
// repository hostile/NAME; hostile/plain is the honest one that they aim at.
func handmade(t testing.TB) (*shelf, map[string]suspect) {
	t.Helper()
	s := newShelf(t)
	in := func(name string) string { return "hostile/" + name }
	plain, diffID := archive(t, bullseye...)
	packed := zip(t, plain)
	other := image.DigestOf([]byte("something else"))

	var good entry
	for _, name := range []string{"plain", "diffid-mismatch", "wrong-size", "foreign-layer"} {
		good = s.layer(in(name), packed)
	}
	s.image(t, in("plain"), []entry{good}, diffID)
	s.image(t, in("diffid-mismatch"), []entry{good}, other)

	small := good
	small.Size = 7
	s.image(t, in("wrong-size"), []entry{small}, diffID)

	empty, _ := archive(t, "etc/debian_version", "11.11\n", "var/lib/dpkg/status", "\n")
	s.image(t, in("cache-poison"), []entry{s.layer(in("cache-poison"), zip(t, empty))}, diffID)

	wrong := good
	wrong.Digest = s.blob(in("wrong-digest"), packed, image.DigestOf([]byte("wrong digest")))
	s.image(t, in("wrong-digest"), []entry{wrong}, diffID)

	s.image(t, in("truncated-gzip"), []entry{s.layer(in("truncated-gzip"), packed[:len(packed)/2])}, diffID)
	short := plain[:512+3] // half of the first file, behind its header
	s.image(t, in("truncated-tar"), []entry{s.layer(in("truncated-tar"), zip(t, short))}, image.DigestOf(short))
	noise := bytes.Repeat([]byte{0xde, 0xad, 0xbe, 0xef}, 4096)
	s.image(t, in("not-a-tar"), []entry{s.layer(in("not-a-tar"), noise)}, image.DigestOf(noise))
	s.image(t, in("missing-blob"), []entry{{MediaType: layerType, Digest: other, Size: 1000}}, other)

	foreign := entry{MediaType: foreignType, Digest: image.DigestOf([]byte("foreign")), Size: 100, URLs: []string{"http://" + s.host + "/secret", "file:///etc/passwd"}}
	s.image(t, in("foreign-layer"), []entry{good, foreign}, diffID, other)

	a, b := image.DigestOf([]byte("a")), image.DigestOf([]byte("b"))
	leadsTo := func(d image.Digest) []byte {
		e := entry{MediaType: indexType, Digest: d, Size: 300, Platform: map[string]string{"os": "linux", "architecture": "amd64"}}
		return encode(t, map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": []entry{e}})
	}
	s.manifest(in("index-cycle"), indexType, leadsTo(a), b)
	s.manifest(in("index-cycle"), indexType, leadsTo(b), a)
	s.manifest(in("huge-manifest"), manifestType, encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "annotations": map[string]string{"x": strings.Repeat("A", 8<<20)},
	}), "")

	table := map[string]suspect{}
	for _, name := range []string{
		"plain", "cache-poison", "diffid-mismatch", "wrong-digest", "wrong-size", "truncated-gzip", "truncated-tar",
		"not-a-tar", "missing-blob", "foreign-layer", "index-cycle", "huge-manifest",
	} {
		table[name] = corpus[name]
	}
	return s, table
}
