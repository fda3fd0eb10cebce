package cmd

import (
	"context"
	"os"

	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/services/pratique/allinone"
)

type dbCmd struct {
	Load dbLoadCmd `cmd:"" help:"Load a database: every scanner takes it over, and every known image is judged again."`
}

type dbLoadCmd struct {
	busFlags
	Path string `arg:"" help:"A Trivy DB: a folder with trivy.db and metadata.json, or an archive of it (tar, tar.gz, tar.zst)."`
	Java bool   `help:"It is a Java index (trivy-java.db) instead."`
}

func (c *dbLoadCmd) Run(ctx context.Context, r *runner) error {
	if _, err := os.Stat(c.Path); err != nil {
		return usagef("PATH: %w", err)
	}
	kind := vulndb.Vulnerabilities
	if c.Java {
		kind = vulndb.Java
	}
	b, leave, err := c.open(r)
	if err != nil {
		return err
	}
	defer leave()
	p, err := allinone.LoadDatabase(ctx, b, kind, c.Path, os.TempDir())
	if err != nil {
		return databaseError("PATH", err)
	}
	return r.err().Linef("%s %s loaded, made %s", p.Kind, p.Digest, p.UpdatedAt.UTC().Format("2006-01-02 15:04 MST"))
}
