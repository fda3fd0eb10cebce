package door

import (
	"context"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
)

// Bus is what the door needs of the bus. Absent things are bus.ErrNotFound.
type Bus interface {
	// PublishEvent returns when the event is stored; the same event again answers its first sequence.
	PublishEvent(ctx context.Context, e event.Event) (seq uint64, err error)
	Event(ctx context.Context, seq uint64) (event.Event, error)
	Fate(ctx context.Context, key string) (fate.Fate, error)
	Reports(ctx context.Context, d image.Digest) ([]*report.Report, error)
	// Sources are the repositories that were confirmed to hold an image, every layer of it.
	Sources(ctx context.Context, d image.Digest) ([]image.Reference, error)
}
