package demo

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/pratique-sec/pratique/services/pratique/demodata"
	"github.com/pratique-sec/pratique/services/scanner/advisory/build"
)

// BuildDatabase makes a Trivy DB of the demo's advisories in dir. made is what it says about its own age.
func BuildDatabase(ctx context.Context, dir string, made time.Time) error {
	files := demodata.Advisories()
	advisories, err := fs.ReadFile(files, "adv.jsonl")
	if err != nil {
		return fmt.Errorf("demo database: %w", err)
	}
	vulnerabilities, err := fs.ReadFile(files, "vuln.jsonl")
	if err != nil {
		return fmt.Errorf("demo database: %w", err)
	}
	return build.Build(ctx, dir, bytes.NewReader(advisories), bytes.NewReader(vulnerabilities),
		build.Meta{UpdatedAt: made, NextUpdate: made.AddDate(0, 0, 1)})
}
