// Package fate tells what became of a submission or a reference: the record that `explain` and
// GET /v1/scans/{id} read, kept also for what never resolves to an image.
package fate

import (
	"time"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
)

// Stage is how far an evaluation has come.
type Stage string

const (
	Accepted Stage = "accepted" // stored in EVENTS
	Planning Stage = "planning" // resolving the reference
	Waiting  Stage = "waiting"  // for layers: see Image.Missing
	Matching Stage = "matching" // its match job is queued
	Decided  Stage = "decided"  // Outcome says how
)

// Fate is the record.
type Fate struct {
	Request   string // "" when the key is the reference
	Reference image.Reference
	Stage     Stage // the earliest of its images'; Decided when all are
	Images    []Image
	Reason    reason.Code // the whole submission failed before there was an image
	Detail    string
	Attempts  int
	LastError string // of the last attempt that will be repeated
	TraceID   string
	Received  time.Time
	Updated   time.Time
}

// Image is the fate of one platform's image.
type Image struct {
	Digest   image.Digest
	Platform image.Platform
	Stage    Stage
	Missing  []image.Digest // blobs whose facts it waits for; at most 20 are listed
	Outcome  report.Outcome
	Reason   reason.Code
	Detail   string
}
