// Package build makes a small Trivy database, schema 2, out of rows of JSON: for tests and for the demo, whose
// advisories are kept as text. Real databases come from Trivy's own pipeline.
package build

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/db"
	dbmetadata "github.com/aquasecurity/trivy-db/pkg/metadata"
	"github.com/aquasecurity/trivy-db/pkg/types"
	bolt "go.etcd.io/bbolt"
)

// Meta is what the database says of itself.
type Meta struct{ UpdatedAt, NextUpdate time.Time }

// Advisory is one row: package Package in bucket Bucket is affected by ID. For a system's packages Fixed is
// the first version that is not; for language packages the ranges say it.
type Advisory struct {
	Bucket     string   `json:"b"` // as Trivy names it: "debian 12", "go::The Go Vulnerability Database"
	Package    string   `json:"p"` // source package where packages are built from such
	ID         string   `json:"i"`
	Fixed      string   `json:"f,omitempty"`
	VendorIDs  []string `json:"a,omitempty"`
	Vulnerable []string `json:"v,omitempty"`
	Patched    []string `json:"pa,omitempty"`
	Unaffected []string `json:"u,omitempty"`
	OSes       []string `json:"os,omitempty"`
	Arches     []string `json:"ar,omitempty"`
	Date       string   `json:"d,omitempty"` // YYYY-MM-DD: of two rows about one thing, the later counts
}

// Vulnerability is one row: what one source says about ID.
type Vulnerability struct {
	ID          string   `json:"i"`
	Source      string   `json:"s"`
	Title       string   `json:"t,omitempty"`
	Description string   `json:"d,omitempty"`
	Severity    string   `json:"sev,omitempty"` // LOW, MEDIUM, HIGH, CRITICAL; "": by the scores
	V2Vector    string   `json:"c2,omitempty"`
	V3Vector    string   `json:"c3,omitempty"`
	V40Vector   string   `json:"c4,omitempty"`
	V2Score     float64  `json:"n2,omitempty"`
	V3Score     float64  `json:"n3,omitempty"`
	V40Score    float64  `json:"n4,omitempty"`
	CWEs        []string `json:"w,omitempty"`
	References  []string `json:"r,omitempty"`
	Published   string   `json:"p,omitempty"` // RFC 3339; anything else is left out
	Modified    string   `json:"m,omitempty"`
}

const (
	maxLine = 1 << 20
	maxRows = 1_000_000
)

// Build writes trivy.db and metadata.json to dir from one JSON row a line. Empty lines and lines that begin
// with # are skipped. Rows that are equal give files that are equal. An existing database is replaced.
func Build(ctx context.Context, dir string, advisories, vulnerabilities io.Reader, meta Meta) error {
	found, err := loadAdvisories(ctx, advisories)
	if err != nil {
		return err
	}
	described := map[string][]Vulnerability{}
	if err := rows(ctx, "vulnerabilities", vulnerabilities, func(v Vulnerability) error {
		described[v.ID] = append(described[v.ID], v)
		return nil
	}); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("build database: %w", err)
	}
	file := filepath.Join(dir, "trivy.db")
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("build database: replace the old one: %w", err)
	}
	out, err := bolt.Open(file, 0o600, &bolt.Options{NoFreelistSync: true})
	if err != nil {
		return fmt.Errorf("build database: %w", err)
	}
	err = out.Update(func(tx *bolt.Tx) error { return put(tx, found, described) })
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("build database: %w", err)
	}
	err = dbmetadata.NewClient(dir).Update(dbmetadata.Metadata{
		Version: db.SchemaVersion, UpdatedAt: meta.UpdatedAt.UTC(), NextUpdate: meta.NextUpdate.UTC(),
	})
	if err != nil {
		return fmt.Errorf("build database: %w", err)
	}
	return nil
}

// subject is what an advisory is about.
type subject struct{ bucket, pkg, id string }

func loadAdvisories(ctx context.Context, r io.Reader) (map[subject]Advisory, error) {
	found := map[subject]Advisory{}
	err := rows(ctx, "advisories", r, func(a Advisory) error {
		if a.Bucket == "" || a.Package == "" || a.ID == "" {
			return errors.New("bucket (b), package (p) and id (i) are needed")
		}
		k := subject{a.Bucket, a.Package, a.ID}
		if old, ok := found[k]; ok {
			a = join(old, a)
		}
		found[k] = a
		return nil
	})
	return found, err
}

// join makes one advisory of two about one subject: ranges of language packages add up; of fixed versions, a
// vendor's own advisory (which has ids) counts before what was read elsewhere, and then the later.
func join(old, a Advisory) Advisory {
	if a.Fixed == "" {
		old.Vulnerable = union(old.Vulnerable, a.Vulnerable)
		old.Patched = union(old.Patched, a.Patched)
		old.Unaffected = union(old.Unaffected, a.Unaffected)
		old.VendorIDs = union(old.VendorIDs, a.VendorIDs)
		return old
	}
	oldVendor, vendor := len(old.VendorIDs) > 0, len(a.VendorIDs) > 0
	if oldVendor && !vendor || oldVendor == vendor && a.Date < old.Date {
		return old
	}
	a.VendorIDs = union(old.VendorIDs, a.VendorIDs)
	return a
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// rows decodes one JSON value a line.
func rows[T any](ctx context.Context, what string, r io.Reader, fn func(T) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("build database: %w", err)
		}
		if n > maxRows {
			return fmt.Errorf("build database: more than %d rows of %s", maxRows, what)
		}
		line := lines.Bytes()
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		var row T
		if err := json.Unmarshal(line, &row); err != nil {
			return fmt.Errorf("build database: %s, line %d: %w", what, n, err)
		}
		if err := fn(row); err != nil {
			return fmt.Errorf("build database: %s, line %d: %w", what, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("build database: read %s: %w", what, err)
	}
	return nil
}

// put writes everything in one fixed order, through Trivy's own library.
func put(tx *bolt.Tx, found map[subject]Advisory, described map[string][]Vulnerability) error {
	var dbc db.Config
	keys := slices.SortedFunc(maps.Keys(found), func(a, b subject) int {
		return slices.Compare([]string{a.bucket, a.pkg, a.id}, []string{b.bucket, b.pkg, b.id})
	})
	buckets, ids := map[string]bool{}, map[string]bool{}
	for _, k := range keys {
		a := found[k]
		if !buckets[k.bucket] {
			source, err := sourceOf(k.bucket)
			if err != nil {
				return err
			}
			if err := dbc.PutDataSource(tx, k.bucket, source); err != nil {
				return err
			}
			buckets[k.bucket] = true
		}
		if err := dbc.PutAdvisory(tx, []string{k.bucket, k.pkg}, k.id, &types.Advisory{
			VendorIDs: a.VendorIDs, OSes: a.OSes, Arches: a.Arches, FixedVersion: a.Fixed,
			VulnerableVersions: a.Vulnerable, PatchedVersions: a.Patched, UnaffectedVersions: a.Unaffected,
		}); err != nil {
			return err
		}
		ids[k.id] = true
	}
	// The library reads this bucket without asking whether it is there.
	if _, err := tx.CreateBucketIfNotExists([]byte("vulnerability")); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		if err := dbc.PutVulnerability(tx, id, merge(described[id])); err != nil {
			return err
		}
	}
	return nil
}
