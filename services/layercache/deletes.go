package layercache

import (
	"context"
	"fmt"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/track"
	"github.com/pratique-sec/pratique/pkg/work"
)

// deleted finds out what a delete took away. It names a tag, a digest, or a whole repository, and each
// track that it may concern is asked for: the event may be old, wrong, or about one tag of several.
func (e *evaluation) deleted(ctx context.Context) error {
	r := e.job.Reference
	records, err := e.bus.Tracks(ctx, r.Host, r.Repository)
	if err != nil {
		return fmt.Errorf("tracks of the repository: %w", err)
	}
	var first error        // the others are still asked for
	var own *work.ImageJob // a plan under this job's own id: it can not be queued while this one is held
	for _, rec := range records {
		if !concerns(r, rec) {
			continue
		}
		again, err := e.recheck(ctx, rec)
		switch {
		case err != nil:
		case again == nil:
		case work.ImageID(*again) == work.ImageID(e.job):
			own = again
		default:
			if err = e.bus.PublishImage(ctx, *again); err != nil {
				err = fmt.Errorf("queue image: %w", err)
			}
		}
		if first == nil {
			first = err
		}
	}
	if first != nil {
		return first
	}
	if own != nil {
		e.job, e.ref = *own, own.Reference
		return e.run(ctx)
	}
	e.metrics.images.WithLabelValues(imageGone).Inc()
	return e.decided(ctx, reason.NotFound, "deleted")
}

func concerns(r image.Reference, rec track.Record) bool {
	switch {
	case rec.Digest == "":
		return len(rec.Platforms) > 0 // gone already; a closing that was interrupted is finished
	case r.Tag == "" && r.Digest == "":
		return true
	case r.Digest != "" && r.Digest == rec.Digest:
		return true
	default:
		return r.Tag != "" && r.Tag == rec.Tag
	}
}

// recheck asks where a track is now. Gone: its assets are closed. Moved: the job that plans it anew is
// returned. Where it was: nothing.
func (e *evaluation) recheck(ctx context.Context, rec track.Record) (*work.ImageJob, error) {
	l := look{host: rec.Host, repository: rec.Repository, name: rec.Track, family: rec.Tag != rec.Track, sequence: e.job.Origin.Sequence}
	if rec.Tag != "" {
		l = e.tagLook(l, rec.Tag)
	} else {
		l = e.digestLook(l, image.Digest(rec.Track))
	}
	digest, err := l.resolve(ctx)
	if err != nil {
		return nil, fmt.Errorf("resolve track %s: %w", rec.Track, err)
	}
	switch digest {
	case "":
		seen, err := e.tracks.observe(ctx, l)
		if err != nil {
			return nil, fmt.Errorf("resolve track %s: %w", rec.Track, err)
		}
		if !seen.current {
			return nil, nil // the family has a newer member by now
		}
		if seen.digest == "" {
			return nil, e.closeAll(ctx, seen.record)
		}
	case rec.Digest:
		return nil, nil
	}
	j := e.job
	j.Action, j.Reference = event.Push, image.Reference{Host: rec.Host, Repository: rec.Repository, Tag: rec.Tag}
	if rec.Tag == "" {
		j.Action, j.Reference.Digest = event.Request, image.Digest(rec.Track) // the action that has digests for tracks
	}
	return &j, nil
}

// gone settles a reference that names nothing any more. For an event that is how things are; somebody
// who asked for it is told.
func (e *evaluation) gone(ctx context.Context, seen sight) error {
	if seen.current {
		e.track, e.generation = seen.record.Track, seen.record.Generation
		if err := e.closeAll(ctx, seen.record); err != nil {
			return err
		}
	}
	if e.job.Action == event.Request {
		return reason.Refusef(reason.NotFound, "%s: not in the registry", e.job.Reference.String())
	}
	e.metrics.images.WithLabelValues(imageGone).Inc()
	return e.decided(ctx, reason.NotFound, "gone from the registry before it was planned")
}

// closeAll closes what is left of a track whose tag is gone. The record forgets the platforms last: a
// closing that was interrupted is begun again from them.
func (e *evaluation) closeAll(ctx context.Context, rec track.Record) error {
	if len(rec.Platforms) == 0 {
		return nil
	}
	if err := e.close(ctx, rec, rec.Platforms); err != nil {
		return err
	}
	return e.tracks.platforms(ctx, rec, nil, rec.Platforms)
}

// close queues the closing of some of a track's assets, and forgets what a new database would match.
func (e *evaluation) close(ctx context.Context, rec track.Record, platforms []image.Platform) error {
	for _, p := range platforms {
		j := work.MatchJob{
			Image: image.Image{
				Reference: image.Reference{Host: rec.Host, Repository: rec.Repository, Tag: rec.Tag},
				Platform:  p,
			},
			Asset:      &finding.Asset{Host: rec.Host, Repository: rec.Repository, Track: rec.Track, Platform: p},
			Generation: rec.Generation,
			Close:      string(finding.Deleted),
			Lane:       e.job.Lane,
			Origin:     e.job.Origin,
		}
		j.Origin.Request = "" // a submission waits for an image, not for what became of the last one
		if err := e.bus.PublishMatch(ctx, j); err != nil {
			return fmt.Errorf("queue closing of %s on %s: %w", rec.Track, p, err)
		}
		if err := e.bus.DropImage(ctx, j); err != nil {
			return fmt.Errorf("drop image: %w", err)
		}
	}
	return nil
}

// decided ends the fates of a job that came to no image.
func (e *evaluation) decided(ctx context.Context, code reason.Code, detail string) error {
	return e.updateFates(ctx, e.job, func(f *fate.Fate) {
		f.Stage, f.Reason, f.Detail, f.LastError = fate.Decided, code, detail, ""
	})
}
