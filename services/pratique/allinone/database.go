package allinone

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/key"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/services/scanner/advisory"
)

// databases is the object store that scanners take databases from, by content digest.
const databases = "vulndb"

// LoadDatabase packs the database at path (a folder or an archive), stores it under its content digest
// and makes it the current one, which is told on SYSTEM. Temporary files go to tmp.
func LoadDatabase(ctx context.Context, b *bus.Bus, kind vulndb.Kind, path, tmp string) (_ vulndb.Pointer, err error) {
	packed, err := advisory.Pack(ctx, kind, path, tmp)
	if err != nil {
		return vulndb.Pointer{}, err
	}
	defer func() { err = errors.Join(err, packed.Close()) }()
	// The object first: whoever reads the pointer finds it.
	if err := b.PutObject(ctx, databases, packed.Pointer.Digest, packed); err != nil {
		return vulndb.Pointer{}, err
	}
	p, err := b.PutPointer(ctx, packed.Pointer)
	if err != nil {
		return vulndb.Pointer{}, err
	}
	// Also for one that was current already: whoever loaded it may have died before he told.
	return p, b.PublishSystem(ctx, loaded(p))
}

func loaded(p vulndb.Pointer) system.Notice {
	return system.Notice{
		ID:   key.Of("notice.database-loaded.v1", string(p.Kind), strconv.FormatUint(p.Sequence, 10)),
		Kind: system.DatabaseLoaded, Subject: p.Digest, At: p.LoadedAt,
		Message: fmt.Sprintf("database %s of %s is current", p.Kind, p.UpdatedAt.UTC().Format(time.RFC3339)),
	}
}

// DatabaseError says which of the configured databases could not be loaded.
type DatabaseError struct {
	Kind vulndb.Kind
	Err  error
}

func (e *DatabaseError) Error() string { return "load " + string(e.Kind) + ": " + e.Err.Error() }
func (e *DatabaseError) Unwrap() error { return e.Err }
