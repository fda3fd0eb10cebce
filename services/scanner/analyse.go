package scanner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/work"
)

// giveUpAttempts is how often a job is tried at least before Config.GiveUp ends it: one that has been
// queued for long has not failed for long.
const giveUpAttempts = 10

// analyse makes facts of one blob, unless they, or a verdict, are there. What it stores it stores
// before it notifies, and notifies before the job is acknowledged: a planner that hears of it finds it.
func (s *Service) analyse(ctx context.Context, job work.LayerJob, d bus.Delivery) error {
	outcome, err := s.decideLayer(ctx, job, d)
	s.metrics.layers.WithLabelValues(outcome).Inc()
	return err
}

func (s *Service) decideLayer(ctx context.Context, job work.LayerJob, d bus.Delivery) (outcome string, err error) {
	if id := s.analyzer.ID(); job.Analysis != id {
		return s.foreign(ctx, job, d, id)
	}
	decided, failed, err := s.known(ctx, job)
	switch {
	case err != nil:
		return layerRetried, err
	case decided:
		s.notify(ctx, job, failed)
		return layerKnown, nil
	case d.Opened >= s.cfg.PoisonAfter:
		// Wherever it is: nobody has lived to check the bytes, and each repository that lists them would
		// cost as many processes again.
		return layerRefused, s.refuseLayer(ctx, job, facts.VerdictKey(job.Key), &reason.Error{
			Kind: reason.Poison, Code: reason.PoisonWork,
			Err: fmt.Errorf("layer %s: %d attempts at it ended with their process", job.Layer.Blob, d.Opened),
		})
	}

	blob := slog.String("blob", string(job.Layer.Blob))
	s.log.DebugContext(ctx, "layer analysis begins", blob)
	defer s.log.DebugContext(ctx, "layer analysis ends", blob)
	start := time.Now()
	l, whole, err := s.read(ctx, job)
	if err != nil {
		return s.layerFailed(ctx, job, d, whole, err)
	}
	took := time.Since(start)
	s.metrics.layerSeconds.WithLabelValues(string(job.Class)).Observe(took.Seconds())
	s.costs.note(job.Class, took)
	if err := s.keep(ctx, job, l); err != nil {
		return layerRetried, err
	}
	s.metrics.layerBytes.Add(float64(l.Size))
	s.notify(ctx, job, false)
	return layerAnalysed, nil
}

// foreign hands back a job that needs a scanner of another version. When none has taken it for long it
// is dropped: who waits for it publishes it again, and who does not must not find it in the way.
func (s *Service) foreign(ctx context.Context, job work.LayerJob, d bus.Delivery, id string) (string, error) {
	if s.now().Sub(d.Queued) > s.cfg.ForeignAfter {
		s.log.WarnContext(ctx, "drop layer job of another version",
			slog.String("blob", string(job.Layer.Blob)), slog.String("analysis", job.Analysis), slog.String("ours", id))
		return layerDropped, nil
	}
	err := reason.Retryf(reason.WrongAnalysis, "layer %s: wants analysis %s, this scanner does %s", job.Layer.Blob, job.Analysis, id)
	err.RetryAfter = s.cfg.ForeignRetry
	return layerRetried, err
}

// known looks for what an earlier job, or an earlier attempt at this one, has decided.
func (s *Service) known(ctx context.Context, job work.LayerJob) (decided, failed bool, err error) {
	for _, k := range []string{facts.VerdictKey(job.Key), facts.SourceVerdictKey(job.Key, job.Host, job.Repository, job.Layer.Size)} {
		_, err := s.facts.Verdict(ctx, k)
		if err == nil {
			return true, true, nil
		}
		if !errors.Is(err, facts.ErrNotFound) {
			return false, false, fmt.Errorf("verdict on layer %s: %w", job.Layer.Blob, err)
		}
	}
	rec, err := s.facts.Record(ctx, job.Layer.Blob)
	if errors.Is(err, facts.ErrNotFound) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("record of layer %s: %w", job.Layer.Blob, err)
	}
	has, err := s.facts.HasFacts(ctx, rec.DiffID, job.Analysis)
	if err != nil {
		return false, false, fmt.Errorf("facts of layer %s: %w", job.Layer.Blob, err)
	}
	return has, false, nil
}

// read fetches and analyses the blob. whole tells whether all its bytes were read and were the right
// ones: then what is wrong with them is wrong wherever they are.
func (s *Service) read(ctx context.Context, job work.LayerJob) (l facts.Layer, whole bool, err error) {
	body, err := s.registry.Blob(ctx, job.Host, job.Repository, job.Layer.Blob, job.Layer.Size)
	if err != nil {
		return facts.Layer{}, false, err
	}
	defer body.Close()
	r := &ending{r: body}
	l, err = s.analyzer.Analyze(ctx, job.Layer, r)
	whole = errors.Is(r.err, io.EOF)
	switch {
	case r.err != nil && !whole:
		return facts.Layer{}, false, r.err // the cause, whatever the analyzer made of it
	case err != nil:
		return facts.Layer{}, whole, err
	case !whole:
		return facts.Layer{}, false, fmt.Errorf("layer %s: the analyzer did not read it to its end", job.Layer.Blob)
	case l.Analysis != job.Analysis:
		err := reason.Retryf(reason.WrongAnalysis, "layer %s: analysed as %s, wanted %s", job.Layer.Blob, l.Analysis, job.Analysis)
		err.RetryAfter = s.cfg.ForeignRetry
		return facts.Layer{}, true, err
	}
	return l, true, nil
}

// ending remembers how a reader ended.
type ending struct {
	r   io.Reader
	err error
}

func (e *ending) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	if err != nil {
		e.err = err
	}
	return n, err
}

// keep stores facts and holder before the record that leads to them.
func (s *Service) keep(ctx context.Context, job work.LayerJob, l facts.Layer) error {
	if err := s.facts.PutFacts(ctx, l); err != nil {
		return fmt.Errorf("keep facts of layer %s: %w", job.Layer.Blob, err)
	}
	for _, holder := range []string{job.Repository, facts.WholeHost} {
		if err := s.facts.PutHolder(ctx, job.Host, holder, job.Layer.Blob); err != nil {
			return fmt.Errorf("keep holder of layer %s: %w", job.Layer.Blob, err)
		}
	}
	if err := s.facts.PutRecord(ctx, facts.Record{Blob: job.Layer.Blob, DiffID: l.DiffID, Size: job.Layer.Size}); err != nil {
		return fmt.Errorf("keep record of layer %s: %w", job.Layer.Blob, err)
	}
	return nil
}

// layerFailed retries what may pass, and refuses the rest. What has not passed for a day is refused
// too, or dropped when its registry was paused: nothing blocks a key for ever.
func (s *Service) layerFailed(ctx context.Context, job work.LayerJob, d bus.Delivery, whole bool, err error) (string, error) {
	e := reason.Of(err)
	if e.Kind == reason.Retry {
		if e.Code == reason.RegistryPaused && s.now().Sub(d.Queued) > s.cfg.GiveUp {
			// Its image has failed by now, or wants it still and publishes it again.
			s.log.WarnContext(ctx, "drop layer job of a registry that stays away",
				slog.String("registry", job.Host), slog.String("blob", string(job.Layer.Blob)), slog.Any("error", err))
			return layerDropped, nil
		}
		if e.Code == reason.WrongAnalysis || ctx.Err() != nil || !s.late(d) {
			return layerRetried, err
		}
		e, whole = reason.Refusef(e.Code, "failed for %s: %w", s.cfg.GiveUp, err), false
	} else {
		e = reason.Refusef(e.Code, "%w", err)
	}
	key := facts.VerdictKey(job.Key)
	if !whole {
		key = facts.SourceVerdictKey(job.Key, job.Host, job.Repository, job.Layer.Size)
	}
	return layerRefused, s.refuseLayer(ctx, job, key, e)
}

// late tells whether a job has failed for so long that it is not expected to pass any more.
func (s *Service) late(d bus.Delivery) bool {
	return s.now().Sub(d.Queued) > s.cfg.GiveUp && d.Failed+1 >= giveUpAttempts
}

// refuseLayer remembers why, tells the planners, and makes the job a dead letter.
func (s *Service) refuseLayer(ctx context.Context, job work.LayerJob, key string, e *reason.Error) error {
	v := facts.Verdict{Key: key, Code: e.Code, Detail: detail(e), At: s.now().UTC()}
	if err := s.facts.PutVerdict(ctx, v); err != nil {
		return fmt.Errorf("remember verdict on layer %s: %w", job.Layer.Blob, err)
	}
	s.notify(ctx, job, true)
	e.Verdicts = []string{key}
	return e
}

// notify wakes the planners. A lost notice costs time: they ask again by themselves.
func (s *Service) notify(ctx context.Context, job work.LayerJob, failed bool) {
	if err := s.bus.Notify(ctx, work.Notice{Key: job.Key, Failed: failed}); err != nil {
		s.log.WarnContext(ctx, "notify planners failed", slog.Any("error", err))
	}
}

// detail is what an error says behind its code.
func detail(e *reason.Error) string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}
