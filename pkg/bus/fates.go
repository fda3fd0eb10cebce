package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// Fate reads the fate under a key (fate.RequestKey, fate.ReferenceKey); ErrNotFound when there is none
// that can be read.
func (b *Bus) Fate(ctx context.Context, key string) (fate.Fate, error) {
	f, _, value, err := b.fate(ctx, key)
	if err == nil && value == nil {
		err = fmt.Errorf("bus: fate %s: %w", key, ErrNotFound)
	}
	return f, err
}

// UpdateFate changes the fate under a key, beginning with the zero value; change is called again when
// somebody else was faster, and must do nothing but change. Nothing is written when it changed nothing.
func (b *Bus) UpdateFate(ctx context.Context, key string, change func(*fate.Fate)) error {
	for range maxConflicts {
		f, rev, old, err := b.fate(ctx, key)
		if err != nil {
			return err
		}
		change(&f)
		value, err := wire.EncodeFate(f)
		if err != nil {
			return fmt.Errorf("bus: update fate %s: %w", key, err)
		}
		if old != nil && bytes.Equal(old, value) {
			return nil
		}
		_, err = b.Bucket(bucketFates).Update(ctx, key, value, rev)
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return reason.Retryf(reason.BusUnavailable, "bus: update fate %s: %w", key, ErrConflict)
}

// fate reads a record, its revision and its bytes, which are nil when there is none that can be read: a
// fate informs people, and is better begun anew than in the way.
func (b *Bus) fate(ctx context.Context, key string) (fate.Fate, uint64, []byte, error) {
	value, rev, err := b.Bucket(bucketFates).Get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return fate.Fate{}, 0, nil, nil
	}
	if err != nil {
		return fate.Fate{}, 0, nil, err
	}
	f, err := wire.DecodeFate(value)
	if err != nil {
		b.log.ErrorContext(ctx, "read fate failed", "key", key, "revision", rev, "error", err)
		return fate.Fate{}, rev, nil, nil
	}
	return f, rev, value, nil
}
