package advisory_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/db"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/services/scanner/advisory"
	"github.com/pratique-sec/pratique/services/scanner/advisory/build"
)

var updated = time.Date(2026, 8, 22, 0, 0, 0, 0, time.UTC)

// database builds one whose only advisory is about pkg.
func database(t *testing.T, pkg string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "database")
	rows := `{"b":"debian 12","p":"` + pkg + `","i":"CVE-2026-0001","f":"2"}`
	err := build.Build(t.Context(), dir, strings.NewReader(rows), strings.NewReader(""), build.Meta{UpdatedAt: updated, NextUpdate: updated.AddDate(1, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func pack(t *testing.T, kind vulndb.Kind, path string) *advisory.Packed {
	t.Helper()
	p, err := advisory.Pack(t.Context(), kind, path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil && !errors.Is(err, fs.ErrClosed) && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	return p
}

// archive makes a tar.gz of a folder with every name behind prefix, as Trivy's artifact is.
func archive(t *testing.T, dir, prefix string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "database.tar.gz")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	zw := gzip.NewWriter(f)
	tw := tar.NewWriter(zw)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := tw.WriteHeader(&tar.Header{Name: prefix + e.Name(), Mode: 0o600, Size: int64(len(b)), ModTime: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

func copyTo(t *testing.T, dir, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
}

// One database has one digest however it comes.
func TestPackIsOneDigest(t *testing.T) {
	dir := database(t, "tar")
	cache := t.TempDir()
	copyTo(t, dir, filepath.Join(cache, "db"))
	// Trivy notes when it downloaded; that is not the database's content.
	meta, err := os.ReadFile(filepath.Join(cache, "db", "metadata.json"))
	if err != nil {
		t.Fatal(err)
	}
	meta = bytes.Replace(meta, []byte(`"DownloadedAt":"0001-`), []byte(`"DownloadedAt":"2026-`), 1)
	if err := os.WriteFile(filepath.Join(cache, "db", "metadata.json"), meta, 0o600); err != nil {
		t.Fatal(err)
	}
	want := pack(t, vulndb.Vulnerabilities, dir).Pointer
	if want.UpdatedAt != updated || want.Size == 0 || want.Kind != vulndb.Vulnerabilities || !strings.HasPrefix(want.Digest, "sha256:") {
		t.Errorf("pointer %+v", want)
	}
	packed, err := os.Create(filepath.Join(t.TempDir(), "packed"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(packed, pack(t, vulndb.Vulnerabilities, dir)); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"cache": cache, "archive": archive(t, dir, ""), "archive, dot": archive(t, dir, "./"),
		"archive, folder": archive(t, dir, "db/"), "our own packing": packed.Name(),
	} {
		if got := pack(t, vulndb.Vulnerabilities, path).Pointer; got != want {
			t.Errorf("%s: %+v, wanted %+v", name, got, want)
		}
	}
	if other := pack(t, vulndb.Vulnerabilities, database(t, "curl")).Pointer; other.Digest == want.Digest {
		t.Error("another content, the same digest")
	}
	if again := pack(t, vulndb.Vulnerabilities, database(t, "tar")).Pointer; again.Digest != want.Digest {
		t.Error("the same rows, another digest")
	}
}

func TestPackRefuses(t *testing.T) {
	good := database(t, "tar")
	cut := t.TempDir()
	copyTo(t, good, cut)
	if err := os.Truncate(filepath.Join(cut, "trivy.db"), 5000); err != nil {
		t.Fatal(err)
	}
	schema := t.TempDir()
	copyTo(t, good, schema)
	if err := os.WriteFile(filepath.Join(schema, "metadata.json"), []byte(`{"Version":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	noMeta := t.TempDir()
	copyTo(t, good, noMeta)
	if err := os.Remove(filepath.Join(noMeta, "metadata.json")); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, bytes.Repeat([]byte("no archive "), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		kind vulndb.Kind
		path string
		want reason.Code
	}{
		"nothing there":   {vulndb.Vulnerabilities, filepath.Join(good, "none"), reason.BadRequest},
		"empty folder":    {vulndb.Vulnerabilities, t.TempDir(), reason.BadRequest},
		"other kind":      {vulndb.Java, good, reason.BadRequest},
		"no such kind":    {"rpmdb", good, reason.BadRequest},
		"no archive":      {vulndb.Vulnerabilities, text, reason.Malformed},
		"cut short":       {vulndb.Vulnerabilities, cut, reason.Malformed},
		"other schema":    {vulndb.Vulnerabilities, schema, reason.Malformed},
		"without its own": {vulndb.Vulnerabilities, noMeta, reason.BadRequest},
	} {
		_, err := advisory.Pack(t.Context(), test.kind, test.path, t.TempDir())
		if got := reason.Of(err); err == nil || got.Code != test.want || got.Kind != reason.Refuse {
			t.Errorf("%s: %v, wanted %s", name, err, test.want)
		}
	}
}

// Who named an archive knows it by that name, not by the folder that it was unpacked into.
func TestPackNamesTheArchive(t *testing.T) {
	packed, err := advisory.Pack(t.Context(), vulndb.Vulnerabilities, database(t, "tar"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	archive := filepath.Join(t.TempDir(), "db.tar.zst")
	b, err := io.ReadAll(packed)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(archive, b, 0o600); err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	_, err = advisory.Pack(t.Context(), vulndb.Java, archive, tmp)
	if err == nil || !strings.Contains(err.Error(), archive) || strings.Contains(err.Error(), tmp) {
		t.Errorf("a database of the other kind: %v", err)
	}
}

func TestUnpack(t *testing.T) {
	p := pack(t, vulndb.Vulnerabilities, database(t, "tar"))
	b, err := io.ReadAll(p)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	damaged := bytes.Clone(b)
	damaged[len(damaged)/2] ^= 0xff
	other := p.Pointer
	other.Digest = "sha256:" + strings.Repeat("0", 64)
	bad := p.Pointer
	bad.Digest = "sha256:../../etc"
	for name, test := range map[string]struct {
		pointer vulndb.Pointer
		bytes   []byte
	}{
		"cut short": {p.Pointer, b[:len(b)/2]}, "nothing": {p.Pointer, nil}, "damaged": {p.Pointer, damaged},
		"other digest": {other, b}, "no digest": {bad, b}, "text": {p.Pointer, []byte("no archive")},
	} {
		if _, err := advisory.Unpack(t.Context(), test.pointer, bytes.NewReader(test.bytes), dir); err == nil || reason.Of(err).Kind != reason.Refuse {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	folder, err := advisory.Unpack(t.Context(), p.Pointer, bytes.NewReader(b), dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := advisory.Unpack(t.Context(), p.Pointer, strings.NewReader("not read"), dir); err != nil || again != folder {
		t.Errorf("again: %s, %v", again, err)
	}
	if got := pack(t, vulndb.Vulnerabilities, folder).Pointer; got != p.Pointer {
		t.Errorf("packed again: %+v, wanted %+v", got, p.Pointer)
	}
}

func TestJavaIndex(t *testing.T) {
	cache := t.TempDir()
	if err := advisory.EmptyJavaIndex(cache); err != nil {
		t.Fatal(err)
	}
	p := pack(t, vulndb.Java, cache)
	folder, err := advisory.Unpack(t.Context(), p.Pointer, p, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(folder, "java-db", "trivy-java.db")); err != nil {
		t.Error(err)
	}
	if err := new(advisory.Holder).Swap(p.Pointer, folder); reason.Of(err).Code != reason.BadRequest {
		t.Errorf("a Java index to match against: %v", err)
	}
}

func unpacked(t *testing.T, pkg string) (vulndb.Pointer, string) {
	t.Helper()
	p := pack(t, vulndb.Vulnerabilities, database(t, pkg))
	folder, err := advisory.Unpack(t.Context(), p.Pointer, p, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return p.Pointer, folder
}

// known tells whether the database that is open in Trivy's library has an advisory about pkg.
func known(t *testing.T, pkg string) bool {
	t.Helper()
	found, err := db.Config{}.GetAdvisories("debian 12", pkg)
	if err != nil {
		t.Error(err)
	}
	return len(found) == 1
}

func TestHolder(t *testing.T) {
	var h advisory.Holder
	if err := h.View(func(vulndb.Pointer) error { return nil }); reason.Of(err).Code != reason.NoDatabase || reason.Of(err).Kind != reason.Retry {
		t.Errorf("without a database: %v", err)
	}
	if _, ok := h.Pointer(); ok {
		t.Error("a pointer to no database")
	}
	first, firstFolder := unpacked(t, "tar")
	second, secondFolder := unpacked(t, "curl")
	sees := func(h *advisory.Holder, p vulndb.Pointer, pkg string) {
		t.Helper()
		if err := h.View(func(got vulndb.Pointer) error {
			if got != p || !known(t, pkg) {
				t.Errorf("database %s; %s is known: %v", got.Digest, pkg, known(t, pkg))
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	if err := h.Swap(first, firstFolder); err != nil {
		t.Fatal(err)
	}
	sees(&h, first, "tar")
	if err := h.Swap(second, secondFolder); err != nil {
		t.Fatal(err)
	}
	sees(&h, second, "curl")
	if err := h.Swap(first, t.TempDir()); err == nil {
		t.Error("swapped to nothing")
	}
	sees(&h, second, "curl")

	// Another holder in this process has another database; neither disturbs the other.
	var other advisory.Holder
	if err := other.Swap(first, firstFolder); err != nil {
		t.Fatal(err)
	}
	sees(&h, second, "curl")
	sees(&other, first, "tar")
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	sees(&h, second, "curl")
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := h.View(func(vulndb.Pointer) error { return nil }); reason.Of(err).Code != reason.NoDatabase {
		t.Errorf("after Close: %v", err)
	}
}

// A view sees one database from its beginning to its end, however often it is swapped meanwhile.
func TestSwapUnderViews(t *testing.T) {
	var h advisory.Holder
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	first, firstFolder := unpacked(t, "tar")
	second, secondFolder := unpacked(t, "curl")
	if err := h.Swap(first, firstFolder); err != nil {
		t.Fatal(err)
	}
	var views sync.WaitGroup
	for range 4 {
		views.Go(func() {
			for range 200 {
				if err := h.View(func(p vulndb.Pointer) error {
					for range 5 {
						if known(t, "tar") != (p == first) || known(t, "curl") != (p == second) {
							return errors.New("another database than the pointer's")
						}
					}
					return nil
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 50 {
		if err := errors.Join(h.Swap(second, secondFolder), h.Swap(first, firstFolder)); err != nil {
			t.Error(err)
		}
	}
	views.Wait()
}
