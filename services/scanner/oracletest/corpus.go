package oracletest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/pratique-sec/pratique/services/scanner/oracletest/corpus"
	"github.com/pratique-sec/pratique/services/scanner/oracletest/peer"
)

// Corpus serves the small corpus of real images, which lies beside the repository, and returns its registry's
// address and the images' names. It is built when it was not before, which takes minutes. The test is
// skipped where there is no corpus.
func Corpus(t testing.TB) (address string, names []string) {
	t.Helper()
	r, err := corpus.Small(t.Context(), func() { t.Log("building the corpus, which takes minutes") })
	if errors.Is(err, corpus.ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r.Address, r.Names
}

// Shared returns a folder beside the repository and skips the test where there is none.
func Shared(t testing.TB, name string) string {
	t.Helper()
	dir, err := peer.Find("../shared/" + name)
	if err != nil {
		t.Skipf("no folder ../shared/%s", name)
	}
	return dir
}

// Hostile serves images that are built to deceive or exhaust a scanner, as hostile/NAME:latest, and returns
// their registry's address. It is skipped where there is no corpus.
func Hostile(t testing.TB) (address string) {
	t.Helper()
	source := Shared(t, "corpus")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "mkcorpus")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	cmd.Dir, cmd.Env = source, append(os.Environ(), "GOWORK=off")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build mkcorpus: %v\n%s", err, msg)
	}
	dir := filepath.Join(cache, "pratique", "hostile")
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		buildHostile(t.Context(), t, program, dir)
	}
	r, err := corpus.Serve(t.Context(), program, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r.Address
}

// buildHostile fills a folder of its own first: one that is there is whole.
func buildHostile(ctx context.Context, t testing.TB, program, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "hostile-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	if msg, err := exec.CommandContext(ctx, program, "hostile", "-dir", tmp).CombinedOutput(); err != nil {
		t.Fatalf("build the hostile images: %v\n%s", err, msg)
	}
	if err := os.Rename(tmp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // else another test was first
			t.Fatal(err)
		}
	}
}
