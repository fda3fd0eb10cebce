package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// Pointer reads which database of a kind is current; ErrNotFound when none was ever loaded.
func (b *Bus) Pointer(ctx context.Context, k vulndb.Kind) (vulndb.Pointer, error) {
	p, _, err := b.pointer(ctx, k)
	return p, err
}

func (b *Bus) pointer(ctx context.Context, k vulndb.Kind) (vulndb.Pointer, uint64, error) {
	value, rev, err := b.Bucket(bucketSettings).Get(ctx, settingKey(string(k)))
	if err != nil {
		return vulndb.Pointer{}, 0, err
	}
	p, err := wire.DecodePointer(value)
	if err != nil {
		return vulndb.Pointer{}, 0, fmt.Errorf("bus: pointer %s: %w", k, err)
	}
	return p, rev, nil
}

// PutPointer makes a database current and returns its pointer with the time and the next sequence. The one that is
// current already stays as it is: loading it again is not news, and would re-match every image.
func (b *Bus) PutPointer(ctx context.Context, p vulndb.Pointer) (vulndb.Pointer, error) {
	for range maxConflicts {
		there, rev, err := b.pointer(ctx, p.Kind)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return vulndb.Pointer{}, err
		}
		if rev != 0 && there.Digest == p.Digest {
			return there, nil
		}
		p.Sequence, p.LoadedAt = there.Sequence+1, b.now().UTC()
		value, err := wire.EncodePointer(p)
		if err != nil {
			return vulndb.Pointer{}, fmt.Errorf("bus: put pointer %s: %w", p.Kind, err)
		}
		_, err = b.Bucket(bucketSettings).Update(ctx, settingKey(string(p.Kind)), value, rev)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, ErrConflict) {
			return vulndb.Pointer{}, err
		}
	}
	return vulndb.Pointer{}, reason.Retryf(reason.BusUnavailable, "bus: put pointer %s: %w", p.Kind, ErrConflict)
}

// WatchPointer calls fn with the pointer of the database that is current, if there is one, and then
// with each that becomes it, until ctx ends.
func (b *Bus) WatchPointer(ctx context.Context, k vulndb.Kind, fn func(vulndb.Pointer)) error {
	return b.watchSetting(ctx, string(k), func(value []byte) {
		p, err := wire.DecodePointer(value)
		if err != nil {
			b.log.ErrorContext(ctx, "read watched pointer failed", "kind", k, "error", err)
			return
		}
		fn(p)
	})
}
