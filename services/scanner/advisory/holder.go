package advisory

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/aquasecurity/trivy-db/pkg/db"
	bolt "go.etcd.io/bbolt"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/vulndb"
)

// Trivy's library keeps its one open database in a package variable. process is the lock around that
// variable, and remembers whose content it is: a holder whose database is not open opens it first, so that
// several holders in one process (the all-in-one, tests) stay right, if slow when they disagree.
var process struct {
	sync.RWMutex
	digest string // of the open database; "" for none
}

// Holder holds the current vulnerability database. The zero value holds none. Its methods are safe for
// concurrent use.
type Holder struct {
	mu      sync.Mutex
	pointer vulndb.Pointer // Digest "" while there is none
	folder  string
}

// Swap makes the database in folder (as Unpack returned it) the current one. Views that run keep the old one
// to their end; Swap waits for them. The old one stays current when the new one can not be opened.
func (h *Holder) Swap(p vulndb.Pointer, folder string) error {
	l, err := layoutOf(p.Kind)
	if err != nil {
		return err
	}
	dir := filepath.Join(folder, l.folder)
	if p.Kind != vulndb.Vulnerabilities {
		return reason.Refusef(reason.BadRequest, "advisory: a %s can not be matched against", p.Kind)
	}
	if err := check(dir, p.Kind); err != nil {
		return err
	}
	if err := open(p.Digest, dir); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pointer, h.folder = p, dir
	return nil
}

// Pointer tells which database is current; false when there is none.
func (h *Holder) Pointer() (vulndb.Pointer, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pointer, h.pointer.Digest != ""
}

// View runs fn while the current database is open in Trivy's library and can not be swapped. It returns a
// reason.NoDatabase error while there is none. fn must not call Swap or Close.
func (h *Holder) View(fn func(vulndb.Pointer) error) error {
	for {
		h.mu.Lock()
		p, dir := h.pointer, h.folder
		h.mu.Unlock()
		if p.Digest == "" {
			return reason.Retryf(reason.NoDatabase, "no vulnerability database is loaded: pratique db load DIR|TAR")
		}
		done, err := viewing(p, fn)
		if done {
			return err
		}
		if err := open(p.Digest, dir); err != nil {
			return reason.Retryf(reason.NoDatabase, "%w", err)
		}
	}
}

// viewing runs fn if the database of p is the open one.
func viewing(p vulndb.Pointer, fn func(vulndb.Pointer) error) (done bool, err error) {
	process.RLock()
	defer process.RUnlock()
	if process.digest != p.Digest {
		return false, nil
	}
	return true, fn(p)
}

// Close forgets the database and closes it.
func (h *Holder) Close() error {
	h.mu.Lock()
	p := h.pointer
	h.pointer, h.folder = vulndb.Pointer{}, ""
	h.mu.Unlock()
	process.Lock()
	defer process.Unlock()
	if p.Digest == "" || process.digest != p.Digest {
		return nil
	}
	process.digest = ""
	if err := db.Close(); err != nil {
		return fmt.Errorf("advisory: close database: %w", err)
	}
	return nil
}

// open puts the database in dir into Trivy's library unless it is there. Read-only matters: otherwise bolt
// takes an exclusive lock on the file, and a second scanner on the machine would wait for it.
func open(digest, dir string) error {
	process.Lock()
	defer process.Unlock()
	if process.digest == digest {
		return nil
	}
	var old *bolt.DB
	if process.digest != "" {
		old = db.Config{}.Connection()
	}
	err := db.Init(dir, db.WithBoltOptions(&bolt.Options{ReadOnly: true}))
	if err != nil {
		process.digest = "" // Init has dropped the old one even so; whoever holds it opens it again
		err = fmt.Errorf("advisory: open database: %w", err)
	} else {
		process.digest = digest
	}
	if old != nil {
		if cerr := old.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("advisory: close the old database: %w", cerr))
		}
	}
	return err
}
