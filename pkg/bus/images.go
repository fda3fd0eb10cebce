package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/pkg/work"
)

// PutImage keeps the job that judges an asset's current image, or an image without an asset, for the
// next database. Of two planners the one with the higher generation wins, whoever writes last: else an
// asset would be re-matched for an image that it left behind, and stay unmatched.
func (b *Bus) PutImage(ctx context.Context, j work.MatchJob) error {
	key := imageKey(j)
	value, err := wire.EncodeMatchJob(j)
	if err != nil {
		return fmt.Errorf("bus: put image %s: %w", key, err)
	}
	for range maxConflicts {
		there, rev, err := b.image(ctx, key)
		if err != nil {
			return err
		}
		if j.Asset != nil && there.Generation > j.Generation {
			return nil
		}
		_, err = b.Bucket(bucketImages).Update(ctx, key, value, rev)
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return reason.Retryf(reason.BusUnavailable, "bus: put image %s: %w", key, ErrConflict)
}

// Images calls fn with every job that is kept. One that can not be read is discarded and logged: the
// next push of its image keeps a new one.
func (b *Bus) Images(ctx context.Context, fn func(work.MatchJob) error) error {
	images := b.Bucket(bucketImages)
	return images.Each(ctx, ">", func(key string, value []byte, rev uint64) error {
		j, err := wire.DecodeMatchJob(value)
		if err != nil {
			images.Discard(ctx, key, rev, err)
			return nil
		}
		return fn(j)
	})
}

// DropImage forgets what is kept for the job's asset or image, unless it is of a higher generation.
func (b *Bus) DropImage(ctx context.Context, j work.MatchJob) error {
	key := imageKey(j)
	there, rev, err := b.image(ctx, key)
	if err != nil || rev == 0 || j.Asset != nil && there.Generation > j.Generation {
		return err
	}
	return b.Bucket(bucketImages).Drop(ctx, key, rev)
}

// image reads what is kept under a key; revision 0 when there is nothing. What can not be read gives
// way to anything.
func (b *Bus) image(ctx context.Context, key string) (work.MatchJob, uint64, error) {
	value, rev, err := b.Bucket(bucketImages).Get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return work.MatchJob{}, 0, nil
	}
	if err != nil {
		return work.MatchJob{}, 0, err
	}
	j, err := wire.DecodeMatchJob(value)
	if err != nil {
		b.log.ErrorContext(ctx, "read kept image failed", "key", key, "revision", rev, "error", err)
		return work.MatchJob{}, rev, nil
	}
	return j, rev, nil
}

// imageKey is "a.<scope…>.<track>.<platform>" of an asset, "d.<digest hex>.<platform>" of an image
// without one.
func imageKey(j work.MatchJob) string {
	if j.Asset != nil {
		return "a." + Key(assetTokens(*j.Asset)...)
	}
	return "d." + Key(j.Image.Digest.Hex(), platformToken(j.Image.Platform))
}
