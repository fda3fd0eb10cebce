package layercache

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
	"github.com/pratique-sec/pratique/services/layercache/join"
	"github.com/pratique-sec/pratique/services/layercache/plan"
)

// evaluation is one attempt at an image job, with all that it has learned so far: if the image is
// refused half-way, that much is told.
type evaluation struct {
	*Service
	job      work.ImageJob
	delivery bus.Delivery

	ref        image.Reference // Digest: what is evaluated
	track      string          // "" while there is none: a report only
	generation uint64
	image      image.Image // zero until it is planned, but for its Platform
	analysisID string
	counts     finding.LayerCounts
}

// handleImage plans an image and holds its message until the match is queued, or the image is refused.
func (s *Service) handleImage(ctx context.Context, j work.ImageJob, d bus.Delivery) error {
	e := &evaluation{Service: s, job: j, delivery: d, ref: j.Reference, generation: j.Generation}
	if j.Platform != nil {
		e.image.Platform = *j.Platform
	}
	if j.Asset != nil {
		e.track = j.Asset.Track
	}
	return e.settle(ctx, e.run(ctx))
}

func (e *evaluation) run(ctx context.Context) error {
	if err := e.planning(ctx, e.job, e.delivery.Failed+1); err != nil {
		return err
	}
	switch {
	case e.job.Action == event.Delete:
		return e.deleted(ctx)
	case e.job.Platform != nil:
		return e.child(ctx)
	default:
		return e.reference(ctx)
	}
}

// reference evaluates what a name names now.
func (e *evaluation) reference(ctx context.Context) error {
	l, tracked := e.look()
	var seen sight
	if tracked {
		var err error
		if seen, err = e.observe(ctx, l); err != nil {
			return err
		}
		if seen.digest == "" {
			return e.gone(ctx, seen)
		}
		e.ref.Digest = seen.digest
		if seen.current {
			e.track, e.generation = seen.record.Track, seen.record.Generation
		}
	}
	want := plan.Want{Platforms: e.cfg.Platforms}
	if len(e.job.Platforms) > 0 {
		want = plan.Want{Platforms: e.job.Platforms, Strict: true}
	}
	if e.track != "" {
		want.Also = seen.record.Platforms
	}
	p, err := e.open(ctx, want)
	if err != nil {
		return err
	}
	switch {
	case p.Index != nil:
		return e.expand(ctx, seen, p.Index)
	case p.Image != nil:
		e.image = *p.Image
		only := []image.Platform{p.Image.Platform}
		if err := e.settleTrack(ctx, seen, only, only); err != nil {
			return err
		}
		return e.judge(ctx)
	default:
		if err := e.settleTrack(ctx, seen, nil, nil); err != nil {
			return err
		}
		return e.skip(ctx, p.Other)
	}
}

// look says which track a reference is on, and how to ask where that is now. A tag's pushes carry a
// digest too, which is what the tag pointed to then; a request that names a digest means that digest.
// A push without a tag is on no track.
func (e *evaluation) look() (look, bool) {
	r := e.job.Reference
	l := look{host: r.Host, repository: r.Repository, sequence: e.job.Origin.Sequence}
	switch {
	case r.Digest != "" && e.job.Action == event.Request:
		return e.digestLook(l, r.Digest), true
	case r.Tag != "":
		l.name, l.family = e.patterns.Of(r.Tag)
		return e.tagLook(l, r.Tag), true
	default:
		return look{}, false
	}
}

func (s *Service) tagLook(l look, tag string) look {
	l.tag = tag
	l.resolve = func(ctx context.Context) (image.Digest, error) {
		d, err := s.registry.Resolve(ctx, l.host, l.repository, tag)
		return d.Digest, ignoreNotFound(err)
	}
	return l
}

// digestLook asks for the manifest itself: a digest does not move, but it can go.
func (s *Service) digestLook(l look, d image.Digest) look {
	l.name = string(d)
	l.resolve = func(ctx context.Context) (image.Digest, error) {
		_, _, err := s.registry.Manifest(ctx, l.host, l.repository, d)
		if reason.Of(err).Code == reason.NotFound {
			return "", nil
		}
		return d, err
	}
	return l
}

func ignoreNotFound(err error) error {
	if err != nil && reason.Of(err).Code == reason.NotFound {
		return nil
	}
	return err
}

func (e *evaluation) observe(ctx context.Context, l look) (sight, error) {
	ctx, span := e.tracer.Start(ctx, "layercache.observe")
	defer span.End()
	seen, err := e.tracks.observe(ctx, l)
	if err != nil {
		e.track = l.name // its failure is the track's
		return sight{}, fmt.Errorf("resolve %s: %w", e.job.Reference.String(), err)
	}
	return seen, nil
}

func (e *evaluation) open(ctx context.Context, want plan.Want) (plan.Plan, error) {
	ctx, span := e.tracer.Start(ctx, "layercache.open")
	defer span.End()
	return plan.Open(ctx, e.registry, e.ref, want)
}

// settleTrack notes the platforms that are judged on the track from now on, and closes the assets of
// those that are no longer listed: the tag moved to something that does not have them.
func (e *evaluation) settleTrack(ctx context.Context, seen sight, judged, listed []image.Platform) error {
	if e.track == "" {
		return nil
	}
	var lost []image.Platform
	for _, p := range seen.record.Platforms {
		if !slices.Contains(listed, p) {
			lost = append(lost, p)
		}
	}
	if err := e.close(ctx, seen.record, lost); err != nil {
		return err
	}
	return e.tracks.platforms(ctx, seen.record, judged, lost)
}

// expand makes a job of each platform of an index. When one of them is queued or running already, this
// message comes back until all are stored: the earlier one may be of an earlier generation.
func (e *evaluation) expand(ctx context.Context, seen sight, idx *plan.Index) error {
	var platforms []image.Platform
	for _, c := range idx.Children {
		platforms = append(platforms, c.Platform)
	}
	if err := e.settleTrack(ctx, seen, platforms, idx.Listed); err != nil {
		return err
	}
	// All are listed before any is queued, or the first to finish would look like the whole.
	err := e.updateFates(ctx, e.job, func(f *fate.Fate) {
		for _, c := range idx.Children {
			setImage(f, fate.Image{Digest: c.Digest, Platform: c.Platform, Stage: fate.Planning})
		}
	})
	if err != nil {
		return err
	}
	var busy error
	for _, c := range idx.Children {
		j := e.job
		j.Platform, j.Platforms, j.Index = &c.Platform, nil, e.ref.Digest
		j.Reference.Digest = c.Digest
		j.Asset, j.Generation = e.asset(c.Platform), e.generation
		switch err := e.bus.PublishImage(ctx, j); {
		case errors.Is(err, bus.ErrBusy):
			busy = err
		case err != nil:
			return fmt.Errorf("queue platform %s: %w", c.Platform, err)
		}
	}
	if busy != nil {
		return fmt.Errorf("queue platforms: %w", busy)
	}
	e.metrics.images.WithLabelValues(imageExpanded).Inc()
	return nil
}

func (e *evaluation) asset(p image.Platform) *finding.Asset {
	if e.track == "" {
		return nil
	}
	return &finding.Asset{Host: e.ref.Host, Repository: e.ref.Repository, Track: e.track, Platform: p}
}

// child evaluates one platform's image, which an index listed.
func (e *evaluation) child(ctx context.Context) error {
	platform := *e.job.Platform
	p, err := e.open(ctx, plan.Want{Platforms: []image.Platform{platform}})
	if err != nil {
		return err
	}
	switch {
	case p.Index != nil:
		return reason.Refusef(reason.Malformed, "manifest %s: an index lists it as an image, and it is an index", e.ref.Digest)
	case p.Other != "":
		return e.skip(ctx, p.Other)
	}
	e.image = *p.Image
	e.image.Index = e.job.Index
	e.image.Platform = platform // the index's word for it is the asset's
	if err := e.renewGeneration(ctx); err != nil {
		return err
	}
	return e.judge(ctx)
}

// renewGeneration takes over the track's generation when the track points to what this job is of. The job
// may have been queued for an earlier one, and have replaced the job of the present one: both are of the
// same image when a tag moves away and back.
func (e *evaluation) renewGeneration(ctx context.Context) error {
	if e.track == "" {
		return nil
	}
	rec, _, err := e.bus.Track(ctx, e.ref.Host, e.ref.Repository, e.track)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("read track: %w", err)
	}
	named := e.job.Index
	if named == "" {
		named = e.ref.Digest
	}
	if err == nil && rec.Digest == named {
		e.generation = max(e.generation, rec.Generation)
	}
	return nil
}

// judge waits for the facts of the image's layers and queues its match.
func (e *evaluation) judge(ctx context.Context) error {
	verified, err := e.wait(ctx)
	if err != nil {
		return err
	}
	for i, l := range e.image.Layers {
		if d := verified[l.Blob]; d != l.DiffID {
			return reason.Refusef(reason.DiffIDMismatch, "layer %d, %s: its content is %s, the config says %s", i, l.Blob, d, l.DiffID)
		}
	}
	j := work.MatchJob{
		Image:      e.image,
		Analysis:   e.analysisID,
		Asset:      e.asset(e.image.Platform),
		Generation: e.generation,
		Layers:     e.counts,
		Lane:       e.job.Lane,
		Origin:     e.job.Origin,
	}
	// Before there is a report: who holds the image may read it.
	if err := e.bus.PutSource(ctx, e.image.Digest, e.image.Host, e.image.Repository); err != nil {
		return fmt.Errorf("note source: %w", err)
	}
	if err := e.bus.PutImage(ctx, j); err != nil {
		return fmt.Errorf("keep image: %w", err)
	}
	// Asked after the image was kept: a database that comes now finds it there and matches it again, one
	// that came before is named here.
	db, err := e.bus.Pointer(ctx, vulndb.Vulnerabilities)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("current database: %w", err)
	}
	j.Database = db.Digest
	// Told before it is queued, or this would overwrite the outcome.
	if err := e.stage(ctx, fate.Matching, nil); err != nil {
		return err
	}
	if err := e.bus.PublishMatch(ctx, j); err != nil {
		return fmt.Errorf("queue match: %w", err)
	}
	e.metrics.count(e.counts)
	e.metrics.images.WithLabelValues(imageQueued).Inc()
	return nil
}

// wait holds the image until its layers are known, and returns their verified diffIDs by blob.
func (e *evaluation) wait(ctx context.Context) (map[image.Digest]image.Digest, error) {
	id, stale, err := e.analysis.wait(ctx)
	if err != nil {
		return nil, err
	}
	e.analysisID = id
	ctx, span := e.tracer.Start(ctx, "layercache.wait")
	defer span.End()
	e.metrics.held.Inc()
	defer e.metrics.held.Dec()
	res, err := e.join.Wait(ctx, join.Need{
		Image:    e.image,
		Analysis: id,
		Pool:     e.cfg.Pool,
		Lane:     e.job.Lane,
		Origin:   e.job.Origin,
		Stale:    stale,
		Paused:   e.gate.Paused(e.ref.Host),
		Stopping: e.delivery.Stopping,
		GiveUp:   e.giveUp(),
		Progress: func(ctx context.Context, blobs []image.Digest) {
			if err := e.stage(ctx, fate.Waiting, missing(blobs)); err != nil {
				e.log.WarnContext(ctx, "note waiting image failed", "error", err)
			}
		},
	})
	switch {
	case errors.Is(err, join.ErrPaused):
		err = e.gate.PausedError(e.ref.Host)
		if err == nil { // and well again already
			err = reason.Retryf(reason.RegistryPaused, "registry %s was paused", e.ref.Host)
		}
	case errors.Is(err, join.ErrStopping):
		err = bus.ErrStopping
	}
	e.counts = res.Counts
	span.SetAttributes(
		attribute.Int("layers.seen", res.Counts.Seen),
		attribute.Int("layers.known", res.Counts.Known),
		attribute.Int("layers.waited", res.Counts.Waited),
		attribute.Int("layers.analysed", res.Counts.Analysed))
	return res.DiffIDs, err
}

// stage notes how far the image has come.
func (e *evaluation) stage(ctx context.Context, st fate.Stage, blobs []image.Digest) error {
	return e.updateFates(ctx, e.job, func(f *fate.Fate) {
		f.LastError = ""
		setImage(f, fate.Image{Digest: e.ref.Digest, Platform: e.image.Platform, Stage: st, Missing: blobs})
	})
}
