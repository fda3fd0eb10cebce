package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := CleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func newAnalyzer(t testing.TB, b Bounds) *InProcess {
	t.Helper()
	a, err := New(Config{Bounds: b, TempDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

type entry struct {
	name, content string
	mode          int64
	typeflag      byte
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: max(e.mode, 0o644), Size: int64(len(e.content)), Typeflag: max(e.typeflag, tar.TypeReg)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		w := gzip.NewWriter(&b)
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func zstandard(t testing.TB, p []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(p, nil)
}

func digestOf(b []byte) image.Digest {
	sum := sha256.Sum256(b)
	return image.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

const status = "Package: tar\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.34\n\n"

func system() []entry {
	return []entry{
		{name: "etc/debian_version", content: "12.5\n"},
		{name: "var/lib/dpkg/status", content: status},
		{name: "./srv/app/package.json", content: `{"name":"lodash","version":"4.17.20"}`},
		{name: "gone/.wh..wh..opq"},
		{name: "etc/.wh.motd"},
	}
}

func blobOf(t testing.TB, l facts.Layer) types.BlobInfo {
	t.Helper()
	var b types.BlobInfo
	if err := json.Unmarshal(l.Blob, &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnalyzeReadsEveryPacking(t *testing.T) {
	plain := tarOf(t, system()...)
	padded := append(bytes.Clone(plain), make([]byte, 5000)...) // tar ends before: the diffID counts it all
	tests := map[string]struct{ blob, plain []byte }{
		"plain":            {plain, plain},
		"gzip":             {gzipped(t, plain), plain},
		"gzip members":     {gzipped(t, plain[:700], plain[700:1500], plain[1500:]), plain},
		"zstd":             {zstandard(t, plain), plain},
		"zstd frames":      {append(zstandard(t, plain[:1000]), zstandard(t, plain[1000:])...), plain},
		"skippable frame":  {append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'}, zstandard(t, plain)...), plain},
		"trailing bytes":   {gzipped(t, padded), padded},
		"plain, trailing":  {padded, padded},
		"nothing":          {gzipped(t, nil), nil},
		"no bytes at all":  {nil, nil},
		"empty tar":        {gzipped(t, make([]byte, 1024)), make([]byte, 1024)},
		"gzip, empty last": {gzipped(t, plain, nil), plain},
	}
	a := newAnalyzer(t, Bounds{})
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			src := bytes.NewReader(test.blob)
			got, err := a.Analyze(t.Context(), image.Layer{}, src)
			if err != nil {
				t.Fatal(err)
			}
			if src.Len() != 0 {
				t.Errorf("%d bytes of the blob were not read", src.Len())
			}
			if want := digestOf(test.plain); got.DiffID != want || got.Size != int64(len(test.plain)) {
				t.Errorf("diffID %s of %d bytes, wanted %s of %d", got.DiffID, got.Size, want, len(test.plain))
			}
			if got.Analysis != a.ID() {
				t.Errorf("analysis %q", got.Analysis)
			}
			if len(test.plain) < 2000 {
				return
			}
			b := blobOf(t, got)
			if len(b.PackageInfos) != 1 || len(b.PackageInfos[0].Packages) != 1 || len(b.Applications) != 1 || b.OS.Family != "debian" {
				t.Errorf("facts: %s", got.Blob)
			}
			if b.Digest != "" || b.CreatedBy != "" {
				t.Errorf("facts hold what belongs to an image: %s", got.Blob)
			}
			if d := cmp.Diff([]string{"gone/"}, b.OpaqueDirs); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff([]string{"etc/motd"}, b.WhiteoutFiles); d != "" {
				t.Error(d)
			}
			if got.Entries != 5 {
				t.Errorf("%d entries", got.Entries)
			}
		})
	}
}

// The same content has the same facts, whatever order a map has this time.
func TestAnalyzeIsDeterministic(t *testing.T) {
	a := newAnalyzer(t, Bounds{})
	entries := system()
	for i := range 40 {
		entries = append(entries,
			entry{name: fmt.Sprintf("srv/%d/package.json", i), content: fmt.Sprintf(`{"name":"m%d","version":"1.0.0"}`, i)},
			entry{name: fmt.Sprintf("lib/p%d.dist-info/METADATA", i), content: fmt.Sprintf("Name: p%d\nVersion: 2\n\n", i)})
	}
	blob := gzipped(t, tarOf(t, entries...))
	var first facts.Layer
	for i := range 5 {
		got, err := a.Analyze(t.Context(), image.Layer{}, bytes.NewReader(blob))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = got
			continue
		}
		if d := cmp.Diff(first, got); d != "" {
			t.Fatal(d)
		}
	}
}

func TestAnalyzeRefuses(t *testing.T) {
	plain := tarOf(t, system()...)
	packed := gzipped(t, plain)
	broken := bytes.Clone(packed)
	broken[len(broken)-6] ^= 0xff // the checksum
	zpacked := zstandard(t, plain)
	zeros := make([]byte, 80<<20)
	tests := map[string]struct {
		blob   []byte
		bounds Bounds
		want   reason.Code
	}{
		"not a tar":          {gzipped(t, bytes.Repeat([]byte("no tar "), 1000)), DefaultBounds, reason.Malformed},
		"not anything":       {bytes.Repeat([]byte("no tar "), 1000), DefaultBounds, reason.Malformed},
		"gzip ends early":    {packed[:len(packed)/2], DefaultBounds, reason.Truncated},
		"gzip lacks its end": {packed[:len(packed)-4], DefaultBounds, reason.Truncated},
		"gzip checksum":      {broken, DefaultBounds, reason.Malformed},
		"bytes after gzip":   {append(bytes.Clone(packed), "these are no gzip member"...), DefaultBounds, reason.Malformed},
		"zstd ends early":    {zpacked[:len(zpacked)/2], DefaultBounds, reason.Truncated},
		"tar ends early":     {gzipped(t, plain[:514]), DefaultBounds, reason.Truncated},
		"too many bytes":     {packed, with(func(b *Bounds) { b.Uncompressed = 4000 }), reason.OverBound},
		"too many entries":   {packed, with(func(b *Bounds) { b.Entries = 4 }), reason.OverBound},
		"name too long":      {packed, with(func(b *Bounds) { b.PathBytes = 10 }), reason.OverBound},
		"whiteouts too long": {packed, with(func(b *Bounds) { b.HiddenBytes = 10 }), reason.OverBound},
		"facts too large":    {packed, with(func(b *Bounds) { b.Facts = 100 }), reason.OverBound},
		"inflates too much":  {gzipped(t, zeros), DefaultBounds, reason.OverBound},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := newAnalyzer(t, test.bounds)
			src := bytes.NewReader(test.blob)
			_, err := a.Analyze(t.Context(), image.Layer{}, src)
			if err == nil {
				t.Fatal("accepted")
			}
			if got := reason.Of(err); got.Kind != reason.Refuse || got.Code != test.want {
				t.Errorf("%v %q: %v", got.Kind, got.Code, err)
			}
			if src.Len() != 0 {
				t.Errorf("%d bytes were not read: nobody can tell whether they were the right ones", src.Len())
			}
		})
	}
}

func with(change func(*Bounds)) Bounds {
	b := DefaultBounds
	change(&b)
	return b
}

// endsWith is a reader that says at its end that the bytes were wrong.
type endsWith struct {
	r   io.Reader
	err error
}

func (e endsWith) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	if errors.Is(err, io.EOF) {
		err = e.err
	}
	return n, err
}

// Whether the bytes were the right ones counts before what they mean.
func TestAnalyzeReturnsTheReadersError(t *testing.T) {
	good := gzipped(t, tarOf(t, system()...))
	for name, blob := range map[string][]byte{
		"good": good, "plain": tarOf(t, system()...), "zstd": zstandard(t, tarOf(t, system()...)),
		"damaged": good[:len(good)/2], "no tar": bytes.Repeat([]byte("no tar "), 1000), "empty": nil,
	} {
		for _, want := range []*reason.Error{
			reason.Refusef(reason.DigestMismatch, "other bytes"),
			reason.Retryf(reason.Unreachable, "connection lost"),
		} {
			t.Run(name+" "+string(want.Code), func(t *testing.T) {
				a := newAnalyzer(t, Bounds{})
				_, err := a.Analyze(t.Context(), image.Layer{}, endsWith{bytes.NewReader(blob), want})
				if got := reason.Of(err); got.Code != want.Code || got.Kind != want.Kind {
					t.Errorf("%v", err)
				}
			})
		}
	}
}

func TestAnalyzeEndsWithItsContext(t *testing.T) {
	a := newAnalyzer(t, Bounds{})
	ctx, cancel := context.WithCancel(t.Context())
	blob := gzipped(t, tarOf(t, system()...))
	src := io.MultiReader(bytes.NewReader(blob[:20]), cancels{cancel}, bytes.NewReader(blob[20:]))
	if _, err := a.Analyze(ctx, image.Layer{}, src); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := a.Analyze(ctx, image.Layer{}, bytes.NewReader(blob)); !errors.Is(err, context.Canceled) {
		t.Errorf("already cancelled: %v", err)
	}
}

type cancels struct{ cancel func() }

func (c cancels) Read([]byte) (int, error) { c.cancel(); return 0, io.EOF }

// What Trivy drops without a word is named.
func TestNotRead(t *testing.T) {
	longLine := "P:zlib\nV:1.2.13-r1\n\nF:" + strings.Repeat("x", 70_000) + "\nP:musl\nV:1.2.4-r1\n\n"
	longStanza := status + "Package: big\nStatus: install ok installed\nVersion: 1\nDescription: " + strings.Repeat("x", 140_000) + "\n\n"
	tests := map[string]struct {
		entry    entry
		code     reason.Code
		packages bool
	}{
		"apk line":           {entry{name: "lib/apk/db/installed", content: longLine}, reason.OverBound, true},
		"dpkg stanza":        {entry{name: "var/lib/dpkg/status", content: longStanza}, reason.AnalysisFailed, true},
		"dpkg status.d":      {entry{name: "var/lib/dpkg/status.d/big", content: longStanza}, reason.AnalysisFailed, true},
		"rpm database":       {entry{name: "var/lib/rpm/rpmdb.sqlite", content: "no database"}, reason.AnalysisFailed, true},
		"package.json":       {entry{name: "srv/package.json", content: "{"}, reason.AnalysisFailed, false},
		"jar":                {entry{name: "srv/app.jar", content: "no zip"}, reason.AnalysisFailed, false},
		"text over bound":    {entry{name: "srv/package.json", content: strings.Repeat(" ", 2000)}, reason.OverBound, false},
		"list over bound":    {entry{name: "lib/apk/db/installed", content: strings.Repeat("P:a\n", 500)}, reason.OverBound, true},
		"status over bound":  {entry{name: "var/lib/dpkg/status", content: strings.Repeat(status, 100)}, reason.OverBound, true},
		"jar over bound":     {entry{name: "srv/app.JAR", content: strings.Repeat("x", 5000)}, reason.OverBound, false},
		"program over bound": {entry{name: "bin/tool", mode: 0o755, content: "\x7fELF" + strings.Repeat("x", 5000)}, reason.OverBound, false},
	}
	small := with(func(b *Bounds) { b.Text, b.Archive, b.Executable = 1000, 2000, 3000 })
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bounds := DefaultBounds
			if strings.HasSuffix(name, "over bound") {
				bounds = small
			}
			a := newAnalyzer(t, bounds)
			got, err := a.Analyze(t.Context(), image.Layer{}, bytes.NewReader(gzipped(t, tarOf(t, test.entry))))
			if err != nil {
				t.Fatal(err)
			}
			if len(got.NotRead) != 1 {
				t.Fatalf("not read: %+v", got.NotRead)
			}
			if n := got.NotRead[0]; n.Path != test.entry.name || n.Code != test.code || n.Packages != test.packages || n.Detail == "" {
				t.Errorf("%+v", n)
			}
		})
	}
}

// What is no news is not told: scripts, links to package databases' places that are files elsewhere, and so on.
func TestNothingNotRead(t *testing.T) {
	a := newAnalyzer(t, with(func(b *Bounds) { b.Text = 1000 }))
	got, err := a.Analyze(t.Context(), image.Layer{}, bytes.NewReader(tarOf(t,
		entry{name: "usr/bin/script", mode: 0o755, content: "#!/bin/sh\n" + strings.Repeat("# long\n", 1000)},
		entry{name: "usr/bin/empty", mode: 0o755},
		entry{name: "usr/bin/x", mode: 0o755, content: "x"},
		entry{name: "usr/bin/folder", typeflag: tar.TypeDir, mode: 0o755},
		entry{name: "usr/share/text", content: strings.Repeat("text\n", 1000)},
		entry{name: "etc/os-release", content: "nonsense"},
		entry{name: "../../outside", content: "x"},
	)))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.NotRead) != 0 {
		t.Errorf("not read: %+v", got.NotRead)
	}
}

// An executable package.json (as layers built on Windows have it) is still a package.json.
func TestExecutableText(t *testing.T) {
	a := newAnalyzer(t, Bounds{})
	got, err := a.Analyze(t.Context(), image.Layer{}, bytes.NewReader(tarOf(t,
		entry{name: "srv/app/package.json", mode: 0o755, content: `{"name":"lodash","version":"4.17.20"}`})))
	if err != nil {
		t.Fatal(err)
	}
	if b := blobOf(t, got); len(b.Applications) != 1 {
		t.Errorf("facts: %s", got.Blob)
	}
}

// A sparse file has more bytes than the tar that holds it.
func TestSparseFileIsBounded(t *testing.T) {
	f := &file{path: "bin/tool", info: (&tar.Header{Name: "bin/tool", Mode: 0o755, Size: 1 << 20}).FileInfo(),
		content: zeros{}, analysis: &analysis{bounds: with(func(b *Bounds) { b.Uncompressed = 1 << 10 }), lost: &lost{}}}
	if _, err := f.open(); reason.Of(err).Code != reason.OverBound {
		t.Errorf("%v", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Large files go to disk, and leave it.
func TestSpoolIsRemoved(t *testing.T) {
	a := newAnalyzer(t, Bounds{})
	a.config.TempDir = t.TempDir()
	content := "\x7fELF" + strings.Repeat("\x00", spoolFrom)
	if _, err := a.Analyze(t.Context(), image.Layer{}, bytes.NewReader(tarOf(t, entry{name: "bin/tool", mode: 0o755, content: content}))); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(a.config.TempDir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func FuzzAnalyze(f *testing.F) {
	plain := tarOf(f, system()...)
	f.Add(plain)
	f.Add(gzipped(f, plain))
	f.Add(zstandard(f, plain))
	f.Add([]byte("no tar"))
	a := newAnalyzer(f, with(func(b *Bounds) { b.Uncompressed = 1 << 20 }))
	f.Fuzz(func(t *testing.T, blob []byte) {
		src := bytes.NewReader(blob)
		_, err := a.Analyze(t.Context(), image.Layer{}, src)
		if err != nil && reason.Of(err).Kind != reason.Refuse {
			t.Errorf("bytes can only be refused: %v", err)
		}
		if src.Len() != 0 {
			t.Errorf("%d bytes were not read", src.Len())
		}
	})
}
