package engine_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
	"github.com/pratique-sec/pratique/services/scanner/advisory"
	"github.com/pratique-sec/pratique/services/scanner/advisory/build"
	"github.com/pratique-sec/pratique/services/scanner/engine"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// packed is a database as the object store holds it.
type packed struct {
	pointer vulndb.Pointer
	file    string
}

func pack(t *testing.T, kind vulndb.Kind, dir string, sequence uint64) packed {
	t.Helper()
	p, err := advisory.Pack(t.Context(), kind, dir, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	body, err := io.ReadAll(p)
	if err != nil {
		t.Fatal(err)
	}
	out := packed{pointer: p.Pointer, file: filepath.Join(t.TempDir(), "packed")}
	out.pointer.Sequence = sequence
	if err := os.WriteFile(out.file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

func (p packed) fetch(context.Context) (io.ReadCloser, error) { return os.Open(p.file) }

func advisories(t *testing.T, updated time.Time, sequence uint64) packed {
	t.Helper()
	dir := t.TempDir()
	if err := build.Build(t.Context(), dir, strings.NewReader(""), strings.NewReader(""), build.Meta{UpdatedAt: updated, NextUpdate: updated}); err != nil {
		t.Fatal(err)
	}
	return pack(t, vulndb.Vulnerabilities, dir, sequence)
}

func newEngine(t *testing.T, dir string) *engine.Engine {
	t.Helper()
	e, err := engine.New(engine.Config{Dir: dir, Version: "test", Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestDatabases(t *testing.T) {
	dir := t.TempDir()
	e := newEngine(t, dir)
	job := work.MatchJob{Image: image.Image{Platform: image.Platform{OS: "linux", Architecture: "amd64"}}, Analysis: e.ID()}
	if _, err := e.Match(t.Context(), job, nil); reason.Of(err).Code != reason.NoDatabase {
		t.Fatalf("without a database: %v", err)
	}
	if _, ok := e.Current(vulndb.Vulnerabilities); ok {
		t.Error("a database is in use")
	}

	one, two, three := advisories(t, noon, 1), advisories(t, noon.Add(time.Hour), 2), advisories(t, noon.Add(2*time.Hour), 3)
	for _, p := range []packed{one, two, three} {
		if err := e.Load(t.Context(), p.pointer, p.fetch); err != nil {
			t.Fatal(err)
		}
		if got, ok := e.Current(vulndb.Vulnerabilities); !ok || got.Digest != p.pointer.Digest || got.Sequence != p.pointer.Sequence {
			t.Fatalf("in use: %+v", got)
		}
		r, err := e.Match(t.Context(), job, nil)
		if err != nil || r.Outcome != report.Clean || r.Database.Digest != p.pointer.Digest || r.Database.Sequence != p.pointer.Sequence || r.Engine.Version != "test" {
			t.Fatalf("report %+v, %v", r, err)
		}
	}
	// What is in use and what was until now are kept on disk, and nothing else.
	there, err := os.ReadDir(filepath.Join(dir, string(vulndb.Vulnerabilities)))
	if err != nil || len(there) != 2 {
		t.Errorf("%d databases on disk, %v", len(there), err)
	}

	// Back to one that is on disk: nothing is fetched, and only the pointer is new.
	back := two.pointer
	back.Sequence = 4
	fails := func(context.Context) (io.ReadCloser, error) { return nil, errors.New("fetched") }
	if err := e.Load(t.Context(), back, fails); err != nil {
		t.Fatal(err)
	}
	if got, _ := e.Current(vulndb.Vulnerabilities); got.Digest != two.pointer.Digest || got.Sequence != 4 {
		t.Errorf("in use: %+v", got)
	}

	// Other bytes than the pointer says leave the one in use where it is.
	lie := one.pointer
	lie.Digest = string(image.DigestOf([]byte("another")))
	if err := e.Load(t.Context(), lie, one.fetch); reason.Of(err).Code != reason.DigestMismatch {
		t.Errorf("other bytes: %v", err)
	}
	if err := e.Load(t.Context(), one.pointer, fails); err == nil {
		t.Error("a database that could not be fetched was loaded")
	}
	if got, _ := e.Current(vulndb.Vulnerabilities); got.Digest != two.pointer.Digest {
		t.Errorf("in use: %+v", got)
	}
}

// Another Java index is another analysis: jars may be named otherwise.
func TestJavaIndex(t *testing.T) {
	e := newEngine(t, t.TempDir())
	empty := e.ID()
	dir := t.TempDir()
	if err := advisory.EmptyJavaIndex(dir); err != nil {
		t.Fatal(err)
	}
	index := pack(t, vulndb.Java, dir, 1)
	if _, ok := e.Current(vulndb.Java); ok {
		t.Error("an index is in use")
	}
	if err := e.Load(t.Context(), index.pointer, index.fetch); err != nil {
		t.Fatal(err)
	}
	with := e.ID()
	if got, ok := e.Current(vulndb.Java); !ok || got.Digest != index.pointer.Digest || with == empty {
		t.Errorf("in use %+v, analysis %s, was %s", got, with, empty)
	}
	again := index.pointer
	again.Sequence = 2
	if err := e.Load(t.Context(), again, nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := e.Current(vulndb.Java); got.Sequence != 2 || e.ID() != with {
		t.Errorf("loaded again: %+v, analysis %s", got, e.ID())
	}
	l, err := e.Analyze(t.Context(), image.Layer{}, strings.NewReader(strings.Repeat("\x00", 1024)))
	if err != nil || l.Analysis != with {
		t.Errorf("facts %+v, %v", l, err)
	}
}
