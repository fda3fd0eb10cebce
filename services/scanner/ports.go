package scanner

import (
	"context"
	"io"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Bus is what this service takes from the bus and writes to it; *bus.Bus is one.
type Bus interface {
	ConsumeLayers(ctx context.Context, pool string, slots int, h func(context.Context, work.LayerJob, bus.Delivery) error) error
	ConsumeMatches(ctx context.Context, slots int, h func(context.Context, work.MatchJob, bus.Delivery) error) error

	PublishImage(ctx context.Context, j work.ImageJob) error
	Notify(ctx context.Context, n work.Notice) error

	PutReport(ctx context.Context, r *report.Report) error
	PublishDelta(ctx context.Context, d finding.Delta) error
	PublishScan(ctx context.Context, s finding.Scan) error
	UpdateFate(ctx context.Context, key string, change func(*fate.Fate)) error
	States
	breaker.Store
	// AddCost merges what was measured into the mean of a pool's jobs of a class.
	AddCost(ctx context.Context, pool string, class work.Class, measured work.Cost) error

	Setting(ctx context.Context, name string) (string, error)
	PutSetting(ctx context.Context, name, value string) error
	WatchSetting(ctx context.Context, name string, fn func(value string)) error
	Pointer(ctx context.Context, k vulndb.Kind) (vulndb.Pointer, error)
	WatchPointer(ctx context.Context, k vulndb.Kind, fn func(vulndb.Pointer)) error
	Object(ctx context.Context, bucket, name string) (io.ReadCloser, error)
}

// States are the compare-and-set records of assets: State answers bus.ErrNotFound, PutState (with
// revision 0: there must be none) bus.ErrConflict.
type States interface {
	State(ctx context.Context, c finding.Class, a finding.Asset) (finding.State, uint64, error)
	PutState(ctx context.Context, c finding.Class, s finding.State, revision uint64) (uint64, error)
}

// Registry is where blobs come from; *registry.Client is one. The reader's last Read returns an error
// instead of io.EOF unless size and digest were right.
type Registry interface {
	Blob(ctx context.Context, host, repository string, d image.Digest, size int64) (io.ReadCloser, error)
}

// Facts is the part of facts.Store that a scanner uses.
type Facts interface {
	PutFacts(ctx context.Context, l facts.Layer) error
	Facts(ctx context.Context, diffID image.Digest, analysis string) (facts.Layer, error)
	HasFacts(ctx context.Context, diffID image.Digest, analysis string) (bool, error)
	PutRecord(ctx context.Context, r facts.Record) error
	Record(ctx context.Context, blob image.Digest) (facts.Record, error)
	PutHolder(ctx context.Context, host, repository string, blob image.Digest) error
	PutVerdict(ctx context.Context, v facts.Verdict) error
	Verdict(ctx context.Context, key string) (facts.Verdict, error)
}

// Analyzer turns a layer's compressed bytes into facts. It reads them to their end, whatever it thinks
// of them, and answers the reader's own error when that has one. ID changes when it gets another Java
// index; facts say the one that they were made with.
type Analyzer interface {
	ID() string
	Analyze(ctx context.Context, l image.Layer, compressed io.Reader) (facts.Layer, error)
}

// Matcher judges an image from its layers' facts, which it may change, on the current database. The
// report says which one that was.
type Matcher interface {
	Match(ctx context.Context, job work.MatchJob, layers []facts.Layer) (*report.Report, error)
}

// Databases holds what is judged on (vulndb.Vulnerabilities) and what jars are named from
// (vulndb.Java).
type Databases interface {
	// Current tells which one is in use; false when there is none.
	Current(k vulndb.Kind) (vulndb.Pointer, bool)
	// Load puts one in use, for everything that begins after it returns. fetch opens the packed
	// database, if it is not on this machine's disk already; what it reads is verified against the
	// pointer before anything is believed. Loading what is in use only takes over the pointer.
	Load(ctx context.Context, p vulndb.Pointer, fetch func(context.Context) (io.ReadCloser, error)) error
}
