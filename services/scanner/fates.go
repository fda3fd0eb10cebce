package scanner

import (
	"context"
	"fmt"
	"log/slog"

	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/work"
)

// fateKeys are the records that a job reports to: its reference's, and its submission's where there is
// one.
func fateKeys(job work.MatchJob) []string {
	keys := []string{fate.ReferenceKey(job.Image.Reference)}
	if job.Origin.Request != "" {
		keys = append(keys, fate.RequestKey(job.Origin.Request))
	}
	return keys
}

// decided ends an image's fate. A record that has gone on to another image is left alone.
func (s *Service) decided(ctx context.Context, job work.MatchJob, img fate.Image) error {
	img.Digest, img.Platform, img.Stage = job.Image.Digest, job.Image.Platform, fate.Decided
	if job.Image.Host == "" { // closed without a reference: nobody can ask
		return nil
	}
	for i, k := range fateKeys(job) {
		err := s.bus.UpdateFate(ctx, k, func(f *fate.Fate) {
			if f.Stage != "" && !f.Lists(img) {
				return
			}
			if f.Reference.Host == "" {
				f.Reference, f.Received = job.Image.Reference, job.Origin.Received
			}
			if i > 0 {
				f.Request = job.Origin.Request
			}
			if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
				f.TraceID = sc.TraceID().String()
			}
			f.LastError, f.Updated = "", s.now().UTC()
			f.SetImage(img)
		})
		if err != nil {
			return fmt.Errorf("update fate: %w", err)
		}
	}
	return nil
}

// stumbled tells who asks why an image is not decided yet. It is for people: when it fails, that is
// logged and the job goes on being retried.
func (s *Service) stumbled(ctx context.Context, job work.MatchJob, d bus.Delivery, cause error) {
	if job.Image.Host == "" {
		return
	}
	img := fate.Image{Digest: job.Image.Digest, Platform: job.Image.Platform}
	for _, k := range fateKeys(job) {
		err := s.bus.UpdateFate(ctx, k, func(f *fate.Fate) {
			if f.Lists(img) {
				f.Attempts, f.LastError, f.Updated = d.Failed+1, cause.Error(), s.now().UTC()
			}
		})
		if err != nil {
			s.log.WarnContext(ctx, "update fate failed", slog.Any("error", err))
			return
		}
	}
}
