// Package facts is the layer dedup cache: what analysis found in a layer's content, kept once for
// the whole fleet. The Store interface has one contract (factstest) and several backends.
package facts

import (
	"context"
	"errors"
	"time"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// ErrNotFound is returned by every getter for a key that is absent.
var ErrNotFound = errors.New("facts: not found")

// NotRead is a file that holds packages or might, but was not understood.
type NotRead struct {
	Path     string
	Code     reason.Code
	Detail   string
	Packages bool // a package database: the image can not be called clean
}

// Layer is what analysis found in one layer's content. It holds nothing of the image it came with:
// compressed digest and history line are the image's, and are filled in when facts are loaded.
type Layer struct {
	DiffID   image.Digest // verified: of the bytes that were read
	Analysis string
	Blob     []byte // the engine's own encoding (Trivy's BlobInfo as JSON); opaque outside the scanner
	NotRead  []NotRead
	Size     int64 // uncompressed bytes read
	Entries  int64 // tar entries
}

// Record is what reading a blob to its end proved. Only whoever read it and checked both digests
// writes one.
type Record struct {
	Blob   image.Digest
	DiffID image.Digest
	Size   int64 // compressed bytes read
}

// Verdict is a remembered refusal: why a blob can not become facts.
type Verdict struct {
	Key    string // VerdictKey(...)
	Code   reason.Code
	Detail string
	At     time.Time
}

// Store keeps facts, records, holders and verdicts. All methods are safe for concurrent use. Getters
// return ErrNotFound for what is absent, and errors of kind reason.Retry when no backend answered.
// Putting what is there already is not an error and changes nothing that a reader could see.
type Store interface {
	// PutFacts stores a layer's facts under (DiffID, Analysis).
	PutFacts(ctx context.Context, l Layer) error
	// Facts returns a copy that the caller may change.
	Facts(ctx context.Context, diffID image.Digest, analysis string) (Layer, error)
	// HasFacts tells without loading them.
	HasFacts(ctx context.Context, diffID image.Digest, analysis string) (bool, error)

	// PutRecord stores blob digest → diffID. A second record for a blob never replaces the first.
	PutRecord(ctx context.Context, r Record) error
	Record(ctx context.Context, blob image.Digest) (Record, error)

	// PutHolder remembers that a repository was confirmed to hold a blob (by reading it there, or by
	// HEAD); Holds asks for it.
	PutHolder(ctx context.Context, host, repository string, blob image.Digest) error
	Holds(ctx context.Context, host, repository string, blob image.Digest) (bool, error)

	// PutVerdict remembers a refusal until it expires (a setting of the backend); ForgetVerdicts drops
	// those with the keys.
	PutVerdict(ctx context.Context, v Verdict) error
	Verdict(ctx context.Context, key string) (Verdict, error)
	ForgetVerdicts(ctx context.Context, keys ...string) error
}
