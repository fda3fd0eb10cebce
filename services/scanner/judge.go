package scanner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

// judge decides one image: report, state and deltas, scan, fate, in this order, each of them idempotent.
func (s *Service) judge(ctx context.Context, job work.MatchJob, d bus.Delivery) error {
	outcome, err := s.decideImage(ctx, job, d)
	s.metrics.matches.WithLabelValues(outcome).Inc()
	if err != nil && reason.Of(err).Kind == reason.Retry && ctx.Err() == nil && !errors.Is(err, bus.ErrStopping) {
		s.stumbled(ctx, job, d, err)
	}
	return err
}

func (s *Service) decideImage(ctx context.Context, job work.MatchJob, d bus.Delivery) (outcome string, err error) {
	if job.Close != "" {
		return s.closeAsset(ctx, job)
	}
	if d.Opened >= s.cfg.PoisonAfter {
		return s.refuseImage(ctx, job, &reason.Error{
			Kind: reason.Poison, Code: reason.PoisonWork,
			Err: fmt.Errorf("image %s: %d attempts to judge it ended with their process", job.Image.Digest, d.Opened),
		})
	}
	if err := s.awaitDatabase(ctx, job, d.Stopping); err != nil {
		return matchRetried, err
	}
	start := time.Now()
	layers, err := s.loadFacts(ctx, job)
	if errors.Is(err, facts.ErrNotFound) {
		return s.replan(ctx, job, err)
	}
	if err != nil {
		return matchRetried, err
	}
	r, err := s.matcher.Match(ctx, job, layers)
	if err != nil {
		e := reason.Of(err)
		if e.Kind == reason.Retry && (e.Code == reason.NoDatabase || ctx.Err() != nil || !s.late(d)) {
			return matchRetried, err
		}
		return s.refuseImage(ctx, job, reason.Refusef(e.Code, "%w", err))
	}
	took := time.Since(start)
	s.metrics.matchSeconds.Observe(took.Seconds())
	s.costs.note(work.ClassMatch, took)
	return s.settle(ctx, job, r)
}

// awaitDatabase waits until the database that the job was queued for is the one in use, or a later one
// is. It waits in the slot: what else is queued stays where it is, instead of going round.
func (s *Service) awaitDatabase(ctx context.Context, job work.MatchJob, stopping <-chan struct{}) error {
	patience := time.NewTimer(s.cfg.DatabaseWait)
	defer patience.Stop()
	for {
		loaded := s.loaded.next() // before the look: one that is loaded in between is not missed
		err := s.hasDatabase(ctx, job)
		if err == nil || reason.Of(err).Code != reason.NoDatabase {
			return err
		}
		select {
		case <-loaded:
		case <-patience.C:
			return err
		case <-stopping:
			return bus.ErrStopping
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Service) hasDatabase(ctx context.Context, job work.MatchJob) error {
	ours, ok := s.databases.Current(vulndb.Vulnerabilities)
	if !ok {
		return reason.Retryf(reason.NoDatabase, "no vulnerability database is loaded: pratique db load DIR|TAR")
	}
	if job.Database == "" {
		return nil
	}
	current, err := s.bus.Pointer(ctx, vulndb.Vulnerabilities)
	if errors.Is(err, bus.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("which database is current: %w", err)
	}
	// The same database loaded again after another has a new sequence: judged under the old one it would
	// lose against what the other said.
	if current.Sequence > ours.Sequence && (job.Database == current.Digest || job.Database != ours.Digest) {
		return reason.Retryf(reason.NoDatabase, "this scanner still has database %d, %s, not %d, %s", ours.Sequence, ours.Digest, current.Sequence, current.Digest)
	}
	return nil
}

// loadFacts reads the facts of all layers, each anew: applying writes into them.
func (s *Service) loadFacts(ctx context.Context, job work.MatchJob) ([]facts.Layer, error) {
	out := make([]facts.Layer, 0, len(job.Image.Layers))
	for _, l := range job.Image.Layers {
		f, err := s.facts.Facts(ctx, l.DiffID, job.Analysis)
		if err != nil {
			return nil, fmt.Errorf("facts of layer %s: %w", l.Blob, err)
		}
		out = append(out, f)
	}
	return out, nil
}

// replan has an image planned again whose facts are gone. Once that job is stored, it carries the duty;
// while an equal one is in the way, this one is kept.
func (s *Service) replan(ctx context.Context, job work.MatchJob, cause error) (string, error) {
	platform := job.Image.Platform
	err := s.bus.PublishImage(ctx, work.ImageJob{
		Reference: job.Image.Reference, Action: event.Push, Platform: &platform, Index: job.Image.Index,
		Asset: job.Asset, Generation: job.Generation, Lane: job.Lane, Origin: job.Origin,
	})
	if err != nil {
		return matchRetried, fmt.Errorf("plan image %s again: %w", job.Image.Digest, err)
	}
	s.log.InfoContext(ctx, "plan image again", slog.String("image", job.Image.String()), slog.Any("error", cause))
	return matchReplanned, nil
}

// settle writes what a report means.
func (s *Service) settle(ctx context.Context, job work.MatchJob, r *report.Report) (string, error) {
	if err := s.bus.PutReport(ctx, r); err != nil {
		return matchRetried, fmt.Errorf("keep report: %w", err)
	}
	scan := s.scanOf(job, r)
	outcome := string(r.Outcome)
	if job.Asset == nil {
		if err := s.publishScan(ctx, scan); err != nil {
			return matchRetried, err
		}
	} else {
		current, err := s.move(ctx, scan, change{
			generation: job.Generation, database: r.Database.Sequence,
			next: func(prev finding.State) finding.State {
				return finding.Diff(prev, r, finding.FromReport(*job.Asset, r), s.judgement(job))
			},
		})
		if err != nil {
			return matchRetried, err
		}
		if !current {
			outcome = matchSuperseded
		}
	}
	if err := s.decided(ctx, job, fate.Image{Outcome: r.Outcome, Reason: r.Reason, Detail: r.Detail}); err != nil {
		return matchRetried, err
	}
	return outcome, nil
}

// closeAsset resolves all that is open. It writes a state even where there was none: a late match of an
// older generation must find that it is late.
func (s *Service) closeAsset(ctx context.Context, job work.MatchJob) (string, error) {
	if job.Asset == nil {
		return string(report.Failed), reason.Refusef(reason.Malformed, "match job: close: no asset to close")
	}
	r := &report.Report{Image: job.Image, Outcome: report.Closed, Engine: s.engineOf(job)}
	current, err := s.move(ctx, s.scanOf(job, r), change{
		generation: job.Generation, closes: true,
		next: func(prev finding.State) finding.State { return finding.Close(prev, s.judgement(job)) },
	})
	if err != nil {
		return matchRetried, err
	}
	if err := s.decided(ctx, job, fate.Image{Outcome: report.Closed}); err != nil {
		return matchRetried, err
	}
	if !current {
		return matchSuperseded, nil
	}
	return string(report.Closed), nil
}

// refuseImage ends an image as failed: in its report, unless there is a good one, as a scan, in its
// fate, and by e as a dead letter. Findings stay as they are.
func (s *Service) refuseImage(ctx context.Context, job work.MatchJob, e *reason.Error) (string, error) {
	r := &report.Report{
		Image: job.Image, Outcome: report.Failed, Reason: e.Code, Detail: detail(e),
		Engine: s.engineOf(job), Created: s.now().UTC(),
	}
	if p, ok := s.databases.Current(vulndb.Vulnerabilities); ok {
		r.Database = report.Database{Digest: p.Digest, UpdatedAt: p.UpdatedAt, Sequence: p.Sequence}
	}
	if err := s.bus.PutReport(ctx, r); err != nil {
		return matchRetried, fmt.Errorf("keep failed report: %w", err)
	}
	if err := s.publishScan(ctx, s.scanOf(job, r)); err != nil {
		return matchRetried, err
	}
	if err := s.decided(ctx, job, fate.Image{Outcome: report.Failed, Reason: r.Reason, Detail: r.Detail}); err != nil {
		return matchRetried, err
	}
	return string(report.Failed), e
}

func (s *Service) judgement(job work.MatchJob) finding.Judgement {
	return finding.Judgement{
		Asset: *job.Asset, Generation: job.Generation, Cause: job.Origin.Cause,
		Resolution: finding.Resolution(job.Close), Engine: s.engineOf(job), At: s.now().UTC(),
	}
}

func (s *Service) engineOf(job work.MatchJob) report.Engine {
	e := s.engine
	e.Analysis = job.Analysis
	return e
}

// scanOf is the outcome of an evaluation, still without transitions.
func (s *Service) scanOf(job work.MatchJob, r *report.Report) finding.Scan {
	scan := finding.Scan{
		Reference: job.Image.Reference, Asset: job.Asset, Platform: job.Image.Platform,
		Outcome: r.Outcome, Reason: r.Reason, Detail: r.Detail, Counts: r.Count(),
		Generation: job.Generation, Cause: job.Origin.Cause, Request: job.Origin.Request,
		Database: r.Database, Engine: r.Engine, Layers: job.Layers,
		Received: job.Origin.Received, Finished: s.now().UTC(),
	}
	if a := job.Asset; a != nil && scan.Reference.Host == "" { // an image that is gone may have no reference left
		scan.Reference.Host, scan.Reference.Repository, scan.Platform = a.Host, a.Repository, a.Platform
	}
	scan.ID = finding.ScanID(scan)
	return scan
}

func (s *Service) publishScan(ctx context.Context, scan finding.Scan) error {
	if err := s.bus.PublishScan(ctx, scan); err != nil {
		return fmt.Errorf("publish scan: %w", err)
	}
	return nil
}
