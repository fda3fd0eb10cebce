package layercache

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/work"
)

// maxMissing is how many of the blobs that an image waits for its fate lists.
const maxMissing = 20

// stages in order; a fate's stage is the earliest of its images'.
var stages = []fate.Stage{fate.Accepted, fate.Planning, fate.Waiting, fate.Matching, fate.Decided}

// updateFates changes the fates that a job reports to: its reference's, and its submission's where
// there is one. Its errors are the bus's: the job is then done again, fates included.
func (s *Service) updateFates(ctx context.Context, j work.ImageJob, change func(*fate.Fate)) error {
	keys := []string{fate.ReferenceKey(j.Reference)}
	if j.Origin.Request != "" {
		keys = append(keys, fate.RequestKey(j.Origin.Request))
	}
	for i, k := range keys {
		err := s.bus.UpdateFate(ctx, k, func(f *fate.Fate) {
			if f.Reference.Host == "" {
				f.Reference = j.Reference
			}
			if i > 0 {
				f.Request = j.Origin.Request
			}
			change(f)
			if len(f.Images) > 0 {
				f.Stage = earliest(f.Images)
			}
			if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
				f.TraceID = sc.TraceID().String()
			}
			f.Updated = s.now().UTC()
		})
		if err != nil {
			return fmt.Errorf("update fate: %w", err)
		}
	}
	return nil
}

func earliest(images []fate.Image) fate.Stage {
	first := slices.MinFunc(images, func(a, b fate.Image) int {
		return cmp.Compare(slices.Index(stages, a.Stage), slices.Index(stages, b.Stage))
	})
	return first.Stage
}

// setImage replaces what a fate says about an image, or adds it.
func setImage(f *fate.Fate, img fate.Image) {
	i := slices.IndexFunc(f.Images, func(o fate.Image) bool {
		return o.Digest == img.Digest && o.Platform == img.Platform
	})
	if i < 0 {
		f.Images = append(f.Images, img)
		return
	}
	f.Images[i] = img
}

// accepted opens the fates of a new event. It leaves alone what an earlier one is still going through.
func (s *Service) accepted(ctx context.Context, j work.ImageJob) error {
	return s.updateFates(ctx, j, func(f *fate.Fate) {
		if f.Stage == "" || f.Stage == fate.Decided {
			reset(f, fate.Accepted, j)
		}
	})
}

// planning notes an attempt. That of a reference begins from nothing: what it names may have changed.
func (s *Service) planning(ctx context.Context, j work.ImageJob, attempt int) error {
	return s.updateFates(ctx, j, func(f *fate.Fate) {
		if j.Platform == nil {
			reset(f, fate.Planning, j)
		} else {
			setImage(f, fate.Image{Digest: j.Reference.Digest, Platform: *j.Platform, Stage: fate.Planning})
		}
		f.Attempts = attempt
	})
}

func reset(f *fate.Fate, stage fate.Stage, j work.ImageJob) {
	*f = fate.Fate{Request: f.Request, Reference: f.Reference, LastError: f.LastError, Stage: stage, Received: j.Origin.Received}
}

func missing(blobs []image.Digest) []image.Digest {
	return slices.Clone(blobs[:min(len(blobs), maxMissing)])
}
