package layercache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
)

// settle makes an attempt's error known and returns what decides the message's fate: nil, an error to
// be retried, or a refusal, which the bus turns into a dead letter.
func (e *evaluation) settle(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, bus.ErrBusy) || errors.Is(err, bus.ErrStopping) {
		return err
	}
	why := reason.Of(err)
	if why.Kind == reason.Retry {
		if !e.unreachable(why) {
			return e.postponed(ctx, err)
		}
		err = reason.Refusef(reason.Unreachable, "not within %s: %w", e.cfg.GiveUp, errors.New(err.Error()))
		why = reason.Of(err)
	}
	if terr := e.tell(ctx, report.Failed, why.Code, err.Error()); terr != nil {
		return fmt.Errorf("tell refusal (%s): %w", why.Code, terr)
	}
	e.metrics.images.WithLabelValues(imageRefused).Inc()
	return err
}

// skip notes what is no image: it is nobody's failure unless somebody asked for it.
func (e *evaluation) skip(ctx context.Context, what string) error {
	if e.job.Action == event.Request {
		return reason.Refusef(reason.NotAnImage, "%s is not an image: %s", e.ref.String(), what)
	}
	if err := e.tell(ctx, report.Skipped, reason.NotAnImage, what); err != nil {
		return err
	}
	e.metrics.images.WithLabelValues(imageSkipped).Inc()
	return nil
}

// giveUp is when a registry that does not answer has not answered for too long. The clock starts again
// for a job that was made much later than its event, such as an image whose facts were lost.
func (e *evaluation) giveUp() time.Time {
	start := e.job.Origin.Received
	if e.delivery.Queued.After(start) {
		start = e.delivery.Queued
	}
	return start.Add(e.cfg.GiveUp)
}

func (e *evaluation) unreachable(why *reason.Error) bool {
	switch why.Code {
	case reason.Unreachable, reason.RateLimited, reason.RegistryPaused,
		reason.Denied: // its credentials can not be had: a file, a helper
		return !e.now().Before(e.giveUp())
	default:
		return false
	}
}

// postponed notes why an attempt failed that will be repeated. That note is not worth another failure.
func (e *evaluation) postponed(ctx context.Context, err error) error {
	ferr := e.updateFates(ctx, e.job, func(f *fate.Fate) { f.LastError = err.Error() })
	if ferr != nil {
		e.log.WarnContext(ctx, "note failed attempt failed", "error", ferr)
	}
	return err
}

// tell writes how an evaluation ended that came to no match: the scan, a FAILED report where there is
// a digest to have one (the bus lets it replace none that is good), and the fates.
func (e *evaluation) tell(ctx context.Context, outcome report.Outcome, code reason.Code, detail string) error {
	now := e.now().UTC()
	detail = clip(detail)
	platform := e.image.Platform
	scan := finding.Scan{
		Reference:  e.ref,
		Asset:      e.asset(platform),
		Platform:   platform,
		Outcome:    outcome,
		Reason:     code,
		Detail:     detail,
		Generation: e.generation,
		Cause:      e.job.Origin.Cause,
		Request:    e.job.Origin.Request,
		Engine:     report.Engine{Version: e.version, Analysis: e.analysisID},
		Layers:     e.counts,
		Received:   e.job.Origin.Received,
		Finished:   now,
	}
	scan.ID = finding.ScanID(scan)
	if err := e.bus.PublishScan(ctx, scan); err != nil {
		return fmt.Errorf("publish scan: %w", err)
	}
	if outcome == report.Failed && e.ref.Digest != "" && e.job.Action != event.Delete {
		if err := e.bus.PutReport(ctx, e.failedReport(code, detail, now)); err != nil {
			return fmt.Errorf("put report: %w", err)
		}
	}
	return e.updateFates(ctx, e.job, func(f *fate.Fate) {
		f.LastError = ""
		if e.ref.Digest == "" || e.job.Action == event.Delete {
			f.Stage, f.Reason, f.Detail = fate.Decided, code, detail
			return
		}
		setImage(f, fate.Image{
			Digest: e.ref.Digest, Platform: platform, Stage: fate.Decided,
			Outcome: outcome, Reason: code, Detail: detail,
		})
	})
}

// clip bounds what is kept of an error's text, which may quote the image.
func clip(s string) string {
	const most = 2 << 10
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

func (e *evaluation) failedReport(code reason.Code, detail string, now time.Time) *report.Report {
	img := e.image
	img.Reference = e.ref
	if img.Index == "" {
		img.Index = e.job.Index
	}
	return &report.Report{
		Image:   img,
		Outcome: report.Failed,
		Reason:  code,
		Detail:  detail,
		Engine:  report.Engine{Version: e.version, Analysis: e.analysisID},
		Created: now,
	}
}
