package oracletest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Corpus serves the small corpus of real images, which lies beside the repository, and returns its registry's
// address and the images' names. It is built when it was not before, which takes minutes. The test is
// skipped where there is no corpus.
func Corpus(t testing.TB) (address string, names []string) {
	t.Helper()
	source := Shared(t, "corpus")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "pratique", "corpus")
	index := filepath.Join(dir, "small.json")
	if _, err := os.Stat(index); errors.Is(err, os.ErrNotExist) {
		t.Log("building the corpus, which takes minutes")
		cmd := exec.CommandContext(t.Context(), filepath.Join(source, "make-corpus.sh"), "small", dir, freeAddress(t))
		if msg, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build the corpus: %v\n%s", err, msg)
		}
	}
	return serve(t, filepath.Join(dir, "mkcorpus"), filepath.Join(dir, "registry")), images(t, index)
}

// Shared returns a folder beside the repository and skips the test where there is none.
func Shared(t testing.TB, name string) string {
	t.Helper()
	dir, err := find("../shared/" + name)
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
		buildHostile(t, program, dir)
	}
	return serve(t, program, dir)
}

// buildHostile fills a folder of its own first: one that is there is whole.
func buildHostile(t testing.TB, program, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "hostile-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	if msg, err := exec.CommandContext(t.Context(), program, "hostile", "-dir", tmp).CombinedOutput(); err != nil {
		t.Fatalf("build the hostile images: %v\n%s", err, msg)
	}
	if err := os.Rename(tmp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // else another test was first
			t.Fatal(err)
		}
	}
}

func images(t testing.TB, index string) []string {
	t.Helper()
	b, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Images []struct{ Ref string } }
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range list.Images {
		name, _, _ := strings.Cut(i.Ref, " ") // what follows says of which platforms an index is
		names = append(names, name)
	}
	if len(names) == 0 {
		t.Fatalf("%s lists no images", index)
	}
	return names
}

// freeAddress is one that was free a moment ago: the program wants to be told.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func serve(t testing.TB, program, dir string) string {
	t.Helper()
	address := freeAddress(t)
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "registry", "-addr", address, "-dir", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // killed
	})
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if answers(ctx, address) {
			tick.Stop()
			return address
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the corpus's registry did not start")
		}
	}
}

func answers(ctx context.Context, address string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/v2/", address), nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}
