// Package oracletest holds our results against those of the unmodified Trivy command. The command is built from
// the module services/scanner/oracle, so that what it registers in Trivy's library does not leak into ours.
package oracletest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/aquasecurity/trivy/pkg/types"

	"github.com/pratique-sec/pratique/services/scanner/advisory"
)

// Oracle is the Trivy command.
type Oracle struct{ binary string }

// Build builds the command, once for each version of it on a machine: minutes when nothing of it was ever
// built, seconds when our own scanner was.
func Build(t testing.TB) Oracle {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return Oracle{binary}
}

var build = sync.OnceValues(func() (string, error) {
	module, err := find("services/scanner/oracle")
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum"} {
		f, err := os.Open(filepath.Join(module, name))
		if err != nil {
			return "", fmt.Errorf("oracle: %w", err)
		}
		_, err = io.Copy(sum, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return "", fmt.Errorf("oracle: %w", err)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("oracle: %w", err)
	}
	dir := filepath.Join(cache, "pratique", "oracle")
	binary := filepath.Join(dir, fmt.Sprintf("trivy-%x", sum.Sum(nil)[:8]))
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("oracle: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", fmt.Errorf("oracle: %w", err)
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "trivy")
	cmd := exec.Command("go", "build", "-o", out, "github.com/aquasecurity/trivy/cmd/trivy")
	cmd.Dir = module
	// The flags of every build of ours, or nothing that was compiled is used again.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOEXPERIMENT=jsonv2", "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("oracle: build: %w\n%s", err, msg)
	}
	if err := os.Rename(out, binary); err != nil {
		return "", fmt.Errorf("oracle: %w", err)
	}
	return binary, nil
})

// find looks for a folder of the repository from where the test runs upwards.
func find(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("oracle: %w", err)
	}
	for {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("oracle: no %s above this folder", name)
		}
		dir = parent
	}
}

// Scan runs `trivy image --scanners vuln --list-all-pkgs` on a reference of a registry, over plain HTTP and
// offline. database is a folder in the layout of a Trivy cache, with db/ in it and, unless the Java index is
// to be empty, java-db/.
func (o Oracle) Scan(ctx context.Context, t testing.TB, database, reference string) types.Report {
	t.Helper()
	cache := t.TempDir() // Trivy writes to its cache
	if err := os.CopyFS(cache, os.DirFS(database)); err != nil {
		t.Fatal("oracle: copy database:", err)
	}
	if _, err := os.Stat(filepath.Join(cache, "java-db")); errors.Is(err, os.ErrNotExist) {
		if err := advisory.EmptyJavaIndex(cache); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(cache, "report.json")
	cmd := exec.CommandContext(ctx, o.binary, "--cache-dir", cache, "--quiet", "image", "--image-src", "remote", "--insecure",
		"--cache-backend", "memory", "--skip-db-update", "--skip-java-db-update", "--skip-version-check", "--disable-telemetry",
		"--offline-scan", "--scanners", "vuln", "--list-all-pkgs", "--format", "json", "--output", out, reference)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("oracle: scan %s: %v\n%s", reference, err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal("oracle:", err)
	}
	var r types.Report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal("oracle: decode report:", err)
	}
	return r
}
