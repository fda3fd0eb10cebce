// Package work holds the jobs of the pipeline and the keys that make them single flight: an image to
// plan, a layer to analyse, an image to match. Keys name everything that a job's result depends on,
// so that two jobs with one key are one job.
package work

import (
	"time"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
)

// Lane is a priority. A higher lane is always served first, but for a guaranteed share of the lower ones.
type Lane string

const (
	Interactive Lane = "interactive" // someone is waiting
	Push        Lane = "push"        // registry events
	Backfill    Lane = "backfill"    // re-matches, crawls
	Speculative Lane = "speculative" // layers seen before their image
)

// Lanes lists all lanes, highest first.
var Lanes = []Lane{Interactive, Push, Backfill, Speculative}

// Class is a layer job's cost class, predicted from the compressed size that the manifest claims.
type Class string

const (
	XS Class = "xs" // up to 1 MiB
	S  Class = "s"  // up to 10 MiB
	M  Class = "m"  // up to 100 MiB
	L  Class = "l"  // above
)

// Classes lists all cost classes, cheapest first.
var Classes = []Class{XS, S, M, L}

// DefaultPool is the pool of scanners that can reach every configured registry.
const DefaultPool = "default"

// Origin says where a job comes from; it is copied from event to image to layers and match.
type Origin struct {
	Cause    event.Cause
	EventID  string
	Request  string    // the submission to report to; "" when nobody waits
	Sequence uint64    // of the event in EVENTS: the order in which things were accepted
	Received time.Time // when ingest got the event: how long has this image been waiting
}

// ImageJob asks the planner to evaluate what a reference names.
type ImageJob struct {
	Reference  image.Reference
	Action     event.Action     // Delete: find out what is gone and close it
	Platform   *image.Platform  // nil: not yet resolved; an index becomes one job per platform
	Platforms  []image.Platform // which of an index to take; empty: the configured ones
	Index      image.Digest     // of the index that the planner resolved, on a platform's job
	Asset      *finding.Asset   // set on a platform's job when the image is its track's current one
	Generation uint64           // of the track, with Asset
	Lane       Lane
	Origin     Origin
}

// LayerJob asks a scanner to analyse one blob.
type LayerJob struct {
	Key        string // LayerKey(Layer.Blob, Analysis)
	Analysis   string // what facts depend on beside content: see facts.Analysis
	Host       string
	Repository string
	Layer      image.Layer // DiffID is the config's claim: a hint, never believed
	Pool       string
	Class      Class
	Lane       Lane
	Origin     Origin
}

// MatchJob asks a scanner to judge one image on the current database. It is kept for every known
// image, so that a new database can be judged without asking a registry.
type MatchJob struct {
	Image      image.Image
	Analysis   string
	Asset      *finding.Asset      // nil: a report only
	Generation uint64              // of the asset's track
	Close      string              // not "": no image any more; resolve the asset's findings for this reason
	Database   string              // digest of the database it was queued for; "" when none was loaded
	Layers     finding.LayerCounts // what the plan found in the layer cache; no part of the key
	Lane       Lane
	Origin     Origin
}

// Notice tells the planners that a layer's key is decided: facts are stored, or a verdict is.
type Notice struct {
	Key    string
	Failed bool
}
