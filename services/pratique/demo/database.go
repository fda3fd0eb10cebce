package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/pratique-sec/pratique/services/pratique/demodata"
	"github.com/pratique-sec/pratique/services/scanner/advisory/build"
)

// BuildDatabase makes a Trivy DB of the demo's advisories in dir. made is what it says about its own age.
func BuildDatabase(ctx context.Context, dir string, made time.Time) error {
	files := demodata.Advisories()
	advisories, err := files.Open("adv.jsonl")
	if err != nil {
		return fmt.Errorf("demo database: %w", err)
	}
	defer advisories.Close()
	vulnerabilities, err := files.Open("vuln.jsonl")
	if err != nil {
		return fmt.Errorf("demo database: %w", err)
	}
	defer vulnerabilities.Close()
	return build.Build(ctx, dir, advisories, vulnerabilities, build.Meta{UpdatedAt: made, NextUpdate: made.AddDate(0, 0, 1)})
}
