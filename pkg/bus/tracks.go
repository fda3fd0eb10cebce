package bus

import (
	"context"
	"fmt"

	"github.com/pratique-sec/pratique/pkg/track"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// Track reads a track's record and revision; ErrNotFound when there is none. One that can not be read
// is an error, not absent: to begin it anew would give generations out twice.
func (b *Bus) Track(ctx context.Context, host, repository, name string) (track.Record, uint64, error) {
	key := trackKey(host, repository, name)
	value, rev, err := b.Bucket(bucketTracks).Get(ctx, key)
	if err != nil {
		return track.Record{}, 0, err
	}
	r, err := wire.DecodeTrack(value)
	if err != nil {
		return track.Record{}, 0, fmt.Errorf("bus: track %s: %w", key, err)
	}
	return r, rev, nil
}

// PutTrack replaces the record that has revision rev (0: there must be none); ErrConflict when it has
// another.
func (b *Bus) PutTrack(ctx context.Context, r track.Record, rev uint64) error {
	key := trackKey(r.Host, r.Repository, r.Track)
	value, err := wire.EncodeTrack(r)
	if err != nil {
		return fmt.Errorf("bus: put track %s: %w", key, err)
	}
	_, err = b.Bucket(bucketTracks).Update(ctx, key, value, rev)
	return err
}

// Tracks reads all track records of one repository, without those of the repositories below it.
func (b *Bus) Tracks(ctx context.Context, host, repository string) ([]track.Record, error) {
	var all []track.Record
	at := map[string]int{} // a record that is written meanwhile comes again
	filter := Key(scope(host, repository)...) + ".*"
	err := b.Bucket(bucketTracks).Each(ctx, filter, func(key string, value []byte, _ uint64) error {
		r, err := wire.DecodeTrack(value)
		if err != nil {
			return fmt.Errorf("bus: track %s: %w", key, err)
		}
		if i, again := at[key]; again {
			all[i] = r
			return nil
		}
		at[key] = len(all)
		all = append(all, r)
		return nil
	})
	return all, err
}

func trackKey(host, repository, name string) string {
	return Key(append(scope(host, repository), name)...)
}
