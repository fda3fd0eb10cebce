// Package advisory handles the databases that judgements rest on: it packs them into the one form that
// travels through the object store, unpacks and verifies them, and holds the open one. What it keeps on
// disk has the layout of a Trivy cache (db/, java-db/), so that Trivy itself can be pointed at it.
package advisory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/vulndb"
)

const (
	metadataName = "metadata.json"
	maxMetadata  = 64 << 10
)

// layout is how a kind of database lies in a folder.
type layout struct {
	name   string // the database file
	folder string // of a Trivy cache
	schema int
	limit  int64 // bytes of the database file
}

var layouts = map[vulndb.Kind]layout{
	vulndb.Vulnerabilities: {name: "trivy.db", folder: "db", schema: 2, limit: 8 << 30},
	vulndb.Java:            {name: "trivy-java.db", folder: "java-db", schema: 1, limit: 16 << 30},
}

func layoutOf(kind vulndb.Kind) (layout, error) {
	l, ok := layouts[kind]
	if !ok {
		return layout{}, reason.Refusef(reason.BadRequest, "advisory: %q is no kind of database", kind)
	}
	return l, nil
}

// metadata is what metadata.json says about a database. DownloadedAt is left out on purpose: it is about
// one download, not about the content, and would give one database many digests.
type metadata struct {
	Version    int
	NextUpdate time.Time
	UpdatedAt  time.Time
}

// MarshalJSON writes the fields as Trivy's libraries write them, in one fixed order.
func (m metadata) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Version                             int
		NextUpdate, UpdatedAt, DownloadedAt time.Time
	}{m.Version, m.NextUpdate.UTC(), m.UpdatedAt.UTC(), time.Time{}})
}

func (m metadata) canonical() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("advisory: encode metadata: %w", err)
	}
	return append(b, '\n'), nil
}

func parseMetadata(r io.Reader, l layout) (metadata, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	if err != nil {
		return metadata{}, fmt.Errorf("advisory: read %s: %w", metadataName, err)
	}
	if len(b) > maxMetadata {
		return metadata{}, reason.Refusef(reason.OverBound, "advisory: %s is larger than %d bytes", metadataName, maxMetadata)
	}
	var m metadata
	if err := json.Unmarshal(b, &m); err != nil {
		return metadata{}, reason.Refusef(reason.Malformed, "advisory: %s: %w", metadataName, err)
	}
	if m.Version != l.schema {
		return metadata{}, reason.Refusef(reason.Malformed, "advisory: %s has schema %d, and schema %d is understood", l.name, m.Version, l.schema)
	}
	return m, nil
}

// find returns the folder that holds the database's two files: path itself, or its place in a Trivy cache.
// Errors call it name: an archive was unpacked into a folder that nobody knows.
func find(path, name string, l layout) (string, error) {
	for _, dir := range []string{path, filepath.Join(path, l.folder)} {
		if st, err := os.Stat(filepath.Join(dir, l.name)); err == nil && st.Mode().IsRegular() {
			return dir, nil
		}
	}
	return "", reason.Refusef(reason.BadRequest, "advisory: %s holds neither %s nor %s", name, l.name, filepath.Join(l.folder, l.name))
}

// check opens the database file of a folder and looks whether it is what its name says.
func check(dir string, kind vulndb.Kind) error {
	l, err := layoutOf(kind)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, l.name)
	if kind == vulndb.Java {
		return checkSQLite(file)
	}
	return checkBolt(file)
}

func checkSQLite(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("advisory: open Java index: %w", err)
	}
	defer f.Close()
	const magic = "SQLite format 3\x00"
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(f, head); err != nil || string(head) != magic {
		return reason.Refusef(reason.Malformed, "advisory: %s is no SQLite file", filepath.Base(file))
	}
	return nil
}

// checkBolt looks for the bucket that Trivy's library reads without asking whether it is there. A file that
// was cut short faults when its pages are touched, which is a panic only because this goroutine asks for it.
func checkBolt(file string) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = reason.Refusef(reason.Malformed, "advisory: %s is damaged: %v", filepath.Base(file), p)
		}
	}()
	db, err := bolt.Open(file, 0o600, &bolt.Options{ReadOnly: true, Timeout: 5 * time.Second})
	if err != nil {
		return reason.Refusef(reason.Malformed, "advisory: %s is no Trivy database: %w", filepath.Base(file), err)
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		if tx.Bucket([]byte("vulnerability")) == nil {
			return reason.Refusef(reason.Malformed, "advisory: %s has no bucket of vulnerabilities", filepath.Base(file))
		}
		return nil
	})
}

func readMetadata(dir string, l layout) (metadata, error) {
	f, err := os.Open(filepath.Join(dir, metadataName))
	if errors.Is(err, os.ErrNotExist) {
		return metadata{}, reason.Refusef(reason.BadRequest, "advisory: %s has no %s", dir, metadataName)
	}
	if err != nil {
		return metadata{}, fmt.Errorf("advisory: open metadata: %w", err)
	}
	defer f.Close()
	return parseMetadata(f, l)
}
