package layercache

import (
	"context"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/track"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
	"github.com/pratique-sec/pratique/services/layercache/plan"
)

// Bus is what this service takes from the bus and writes to it; *bus.Bus is one.
type Bus interface {
	ConsumeEvents(ctx context.Context, slots int, h func(context.Context, event.Event, bus.Delivery) error) error
	ConsumeImages(ctx context.Context, budget int, h func(context.Context, work.ImageJob, bus.Delivery) error) error
	Notices(ctx context.Context, on func(work.Notice), gap func()) (stop func(), err error)

	PublishImage(ctx context.Context, j work.ImageJob) error
	PublishLayer(ctx context.Context, j work.LayerJob) error
	PublishMatch(ctx context.Context, j work.MatchJob) error
	PublishScan(ctx context.Context, s finding.Scan) error
	PutReport(ctx context.Context, r *report.Report) error
	// PutSource notes that a repository was confirmed to hold an image, every layer of it.
	PutSource(ctx context.Context, d image.Digest, host, repository string) error
	UpdateFate(ctx context.Context, key string, change func(*fate.Fate)) error

	Tracks
	breaker.Store
	// Lead runs fn while this process leads a role, until ctx ends. Two may lead for a moment.
	Lead(ctx context.Context, role string, fn func(context.Context) error) error
	// PutImage and DropImage never touch an entry of a higher generation.
	PutImage(ctx context.Context, j work.MatchJob) error
	DropImage(ctx context.Context, j work.MatchJob) error
	Images(ctx context.Context, fn func(work.MatchJob) error) error

	// Load is what the scanners have before them; matches count for matchPool.
	Load(ctx context.Context, matchPool string) ([]work.Load, error)
	// Mirror publishes what is stored as JSON, until ctx ends.
	Mirror(ctx context.Context) error

	// Troubles are what PublishSystem tells of the bus itself.
	Troubles(ctx context.Context) ([]system.Notice, error)

	Setting(ctx context.Context, name string) (string, error)
	PutSetting(ctx context.Context, name, value string) error
	WatchSetting(ctx context.Context, name string, fn func(value string)) error
	Pointer(ctx context.Context, k vulndb.Kind) (vulndb.Pointer, error)
	WatchPointer(ctx context.Context, k vulndb.Kind, fn func(vulndb.Pointer)) error
}

// Tracks are the compare-and-set records of tracks: Track answers bus.ErrNotFound, PutTrack (with
// revision 0: there must be none) bus.ErrConflict.
type Tracks interface {
	Track(ctx context.Context, host, repository, name string) (track.Record, uint64, error)
	PutTrack(ctx context.Context, r track.Record, revision uint64) error
	Tracks(ctx context.Context, host, repository string) ([]track.Record, error)
}

// Registry is what planning asks of registries; *registry.Client is one.
type Registry interface {
	plan.Registry
	Resolve(ctx context.Context, host, repository, tag string) (registry.Descriptor, error)
	VerifyBlob(ctx context.Context, host, repository string, d image.Digest, size int64) error
}
