package layercache

import (
	"context"
	"fmt"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/work"
)

// handleEvent turns an event into an image job. A job with the same id that is queued or running began
// before this event, or may have: the event is kept and asked again, so that some plan always begins
// after the last event.
func (s *Service) handleEvent(ctx context.Context, e event.Event, d bus.Delivery) error {
	if e.Kind != event.KindImage {
		return nil // a later kind's consumer takes it
	}
	j := imageJob(e, d.Sequence)
	if err := s.accepted(ctx, j); err != nil {
		return err
	}
	if err := s.bus.PublishImage(ctx, j); err != nil {
		return fmt.Errorf("queue image: %w", err)
	}
	return nil
}

func imageJob(e event.Event, sequence uint64) work.ImageJob {
	j := work.ImageJob{
		Reference: e.Reference,
		Action:    e.Action,
		Platforms: e.Platforms,
		Lane:      laneOf(e),
		Origin: work.Origin{
			Cause:    e.Cause,
			EventID:  e.ID,
			Sequence: sequence,
			Received: e.Received,
		},
	}
	if e.Action == event.Request {
		j.Origin.Request = fate.RequestID(sequence, e.ID)
	}
	return j
}

func laneOf(e event.Event) work.Lane {
	switch {
	case e.Action == event.Request:
		return work.Interactive
	case e.Cause == event.CauseCrawl:
		return work.Backfill
	default:
		return work.Push
	}
}
