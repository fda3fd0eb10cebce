package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/aquasecurity/trivy/pkg/types"

	"github.com/pratique-sec/pratique/services/scanner/advisory"
)

// Cache makes a folder in the layout of a Trivy cache, which Trivy writes to, from a database in the same
// layout: with db/ in it and, unless the Java index is to be empty, java-db/.
func Cache(dir, database string) error {
	if err := os.CopyFS(dir, os.DirFS(database)); err != nil {
		return fmt.Errorf("trivy cache: copy database: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "java-db")); errors.Is(err, os.ErrNotExist) {
		return advisory.EmptyJavaIndex(dir)
	}
	return nil
}

// Image runs `trivy image --scanners vuln --list-all-pkgs` on a reference of a registry, over plain HTTP and
// offline, and returns its report. cache is a folder that Cache made; more are further flags.
func (t Trivy) Image(ctx context.Context, cache, reference string, more ...string) (types.Report, error) {
	tmp, err := os.MkdirTemp(cache, "report-")
	if err != nil {
		return types.Report{}, fmt.Errorf("trivy image: %w", err)
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "report.json")
	args := append([]string{
		"--cache-dir", cache, "--quiet", "image", "--image-src", "remote", "--insecure", "--skip-db-update",
		"--skip-java-db-update", "--skip-version-check", "--disable-telemetry", "--offline-scan", "--scanners", "vuln",
		"--list-all-pkgs", "--format", "json", "--output", out,
	}, more...)
	if msg, err := exec.CommandContext(ctx, t.Path, append(args, reference)...).CombinedOutput(); err != nil {
		return types.Report{}, fmt.Errorf("trivy image %s: %w\n%s", reference, err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return types.Report{}, fmt.Errorf("trivy image %s: %w", reference, err)
	}
	var r types.Report
	if err := json.Unmarshal(b, &r); err != nil {
		return types.Report{}, fmt.Errorf("trivy image %s: decode report: %w", reference, err)
	}
	return r, nil
}

// Vulnerabilities is how many a report lists.
func Vulnerabilities(r types.Report) int {
	n := 0
	for _, res := range r.Results {
		n += len(res.Vulnerabilities)
	}
	return n
}
