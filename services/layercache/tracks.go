package layercache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/track"
)

// maxRounds is how often a track may be written by somebody else, or its tag move, while it is looked
// at, before the job is handed back for a moment.
const maxRounds = 20

// maxTrackPlatforms bounds the assets of one track.
const maxTrackPlatforms = 64

// tracks reads and writes track records.
type tracks struct {
	store Tracks
	now   func() time.Time
}

// look is one question about a track: where does one of its tags point now?
type look struct {
	host, repository string
	name             string // of the track
	tag              string // "" on a digest's own track
	family           bool   // the track has other tags
	sequence         uint64 // of the event that asks
	// resolve asks the registry: "" when it is gone.
	resolve func(ctx context.Context) (image.Digest, error)
}

// sight is the answer.
type sight struct {
	record  track.Record
	digest  image.Digest // what the tag points to; "" when it is gone
	current bool         // the record is about this tag; false: a family's older member
}

// observe makes the record say what the registry says, and returns both.
//
// Each round reads the record, then asks the registry, then writes the record if it was wrong, as it
// was read. So a written answer was given after the record before it was written, and records follow
// each other as the registry's answers did, whoever asked. It ends only when a question that was asked
// after the record was written confirms it: a tag that was deleted or moved between answer and write is
// noticed here, since the event that tells of it may have found nothing to change yet.
func (t tracks) observe(ctx context.Context, l look) (sight, error) {
	for range maxRounds {
		rec, revision, err := t.store.Track(ctx, l.host, l.repository, l.name)
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return sight{}, fmt.Errorf("read track: %w", err)
		}
		digest, err := l.resolve(ctx)
		if err != nil {
			return sight{}, err
		}
		next, current := advance(rec, l, digest)
		if !current || !differs(rec, next) {
			return sight{record: rec, digest: digest, current: current}, nil
		}
		next.Updated = t.now().UTC()
		if err := t.store.PutTrack(ctx, next, revision); err != nil && !errors.Is(err, bus.ErrConflict) {
			return sight{}, fmt.Errorf("write track: %w", err)
		}
	}
	return sight{}, moving(l.name)
}

// advance is the record after an answer. current is false when the answer says nothing about the
// track: an older or vanished member of a family, or a tag that was never seen and is not there.
func advance(rec track.Record, l look, digest image.Digest) (next track.Record, current bool) {
	isNew := rec.Generation == 0
	switch {
	case isNew && digest == "":
		return rec, false
	case isNew:
		next = track.Record{Host: l.host, Repository: l.repository, Track: l.name}
	case l.family && rec.Tag != l.tag && (digest == "" || l.sequence <= rec.Sequence):
		return rec, false
	default:
		next = rec
	}
	next.Tag = l.tag
	moved := isNew || digest != rec.Digest
	if moved {
		next.Digest = digest
		next.Generation++
	}
	// What tells of a tag's end says nothing about which member of a family is the newest.
	if digest != "" && (moved || l.family) {
		next.Sequence = max(rec.Sequence, l.sequence)
	}
	return next, true
}

func differs(a, b track.Record) bool {
	return a.Tag != b.Tag || a.Digest != b.Digest || a.Generation != b.Generation || a.Sequence != b.Sequence
}

// platforms notes which platforms are judged on a track now, and which are not any more. It fails with
// reason.Superseded, to be retried, when the track has moved on.
func (t tracks) platforms(ctx context.Context, seen track.Record, add, remove []image.Platform) error {
	for range maxRounds {
		rec, revision, err := t.store.Track(ctx, seen.Host, seen.Repository, seen.Track)
		if err != nil {
			return fmt.Errorf("read track: %w", err)
		}
		if rec.Generation != seen.Generation {
			return moving(seen.Track)
		}
		next := rec
		next.Platforms = slices.DeleteFunc(slices.Clone(rec.Platforms), func(p image.Platform) bool { return slices.Contains(remove, p) })
		for _, p := range add {
			if !slices.Contains(next.Platforms, p) {
				next.Platforms = append(next.Platforms, p)
			}
		}
		if slices.Equal(next.Platforms, rec.Platforms) {
			return nil
		}
		if len(next.Platforms) > maxTrackPlatforms {
			return reason.Refusef(reason.OverBound, "track %s: more than %d platforms", seen.Track, maxTrackPlatforms)
		}
		next.Updated = t.now().UTC()
		err = t.store.PutTrack(ctx, next, revision)
		if err == nil {
			return nil
		}
		if !errors.Is(err, bus.ErrConflict) {
			return fmt.Errorf("write track: %w", err)
		}
	}
	return moving(seen.Track)
}

// moving hands a job back for a moment, to look again.
func moving(name string) error {
	err := reason.Retryf(reason.Superseded, "track %s moved while it was looked at", name)
	err.RetryAfter = 100 * time.Millisecond
	return err
}
