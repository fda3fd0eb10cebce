// Package reason is the one vocabulary for what goes wrong: a stable code that machines act on, and
// a kind that decides what happens to the message, the HTTP answer and the exit code.
package reason

import (
	"errors"
	"fmt"
	"time"
)

// Kind is a decision that somebody makes about an error.
type Kind int

const (
	// Retry: the cause is outside (registry, bus or cache away); the same work may succeed later.
	Retry Kind = iota
	// Refuse: the input is at fault; the same work would fail the same way.
	Refuse
	// Poison: the work kills whoever tries it.
	Poison
)

// Code is a stable name for a cause. Codes are API: they appear in scan outcomes, dead letters and
// metrics, and are never renamed.
type Code string

const (
	Unreachable      Code = "unreachable"       // the registry did not answer, or not usefully
	RateLimited      Code = "rate-limited"      // 429
	RegistryPaused   Code = "registry-paused"   // the registry failed others, and is left alone for a while
	BusUnavailable   Code = "bus-unavailable"   // NATS away, full or slow
	CacheUnavailable Code = "cache-unavailable" // no backend of the fact store answered
	NoDatabase       Code = "no-database"       // no vulnerability database is loaded yet
	NoScanner        Code = "no-scanner"        // no scanner has announced its analysis yet
	WrongAnalysis    Code = "wrong-analysis"    // the job is for a scanner of another version
	FactsMissing     Code = "facts-missing"     // evicted between plan and match
	Undelivered      Code = "undelivered"       // the receiver of an alert did not take it
	ReceiverPaused   Code = "receiver-paused"   // it failed others, or is busy, and is left alone for a while
	Internal         Code = "internal"          // our own fault; retried, and logged as an error

	Denied         Code = "denied"           // 401, 403
	NotFound       Code = "not-found"        // the manifest or tag does not exist
	BlobMissing    Code = "blob-missing"     // the manifest lists a blob that this repository does not hold
	HostNotAllowed Code = "host-not-allowed" // the address policy refuses the host, redirect or realm
	NotAnImage     Code = "not-an-image"     // signature, SBOM, chart, …
	NoPlatform     Code = "no-platform"      // the index has none of the configured platforms
	Malformed      Code = "malformed"        // not parseable as what it claims to be
	DigestMismatch Code = "digest-mismatch"  // the bytes do not have the digest that was asked for
	SizeMismatch   Code = "size-mismatch"    // the bytes are more or fewer than the manifest says
	DiffIDMismatch Code = "diffid-mismatch"  // the config claims other uncompressed digests
	Truncated      Code = "truncated"        // the stream ends early
	ForeignLayer   Code = "foreign-layer"    // a layer is only at a URL outside the registry
	IndexCycle     Code = "index-cycle"      // an index that contains itself, or too deep
	OverBound      Code = "over-bound"       // too large, too many, too deep, too slow
	AnalysisFailed Code = "analysis-failed"  // the analyzers refused the whole layer
	PoisonWork     Code = "poison"           // every attempt at it died
	BadRequest     Code = "bad-request"      // an API request or event that names its bad field
	Unauthorized   Code = "unauthorized"     // no or a wrong token
	Forbidden      Code = "forbidden"        // a token that does not reach so far
	Superseded     Code = "superseded"       // a newer generation of the track was planned meanwhile
)

// Untried tells that the work waits for something that had to be there before it could be tried: that
// it did not get on says nothing about it.
func (c Code) Untried() bool {
	switch c {
	case RegistryPaused, ReceiverPaused, NoDatabase, NoScanner, WrongAnalysis:
		return true
	default:
		return false
	}
}

// Error is an error with a decision. Err is for people: it names the field, host, digest or bound and,
// where there is one, the way out. It never holds a secret.
type Error struct {
	Kind       Kind
	Code       Code
	RetryAfter time.Duration // Retry only: what the other side asked for; 0 when it did not
	Answered   bool          // Retry only: the other side is well; it did not like this one request
	Verdicts   []string      // Refuse and Poison: keys of remembered verdicts that a re-drive forgets
	Err        error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return string(e.Code)
	}
	return string(e.Code) + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Refusef makes a Refuse error; the format may wrap a cause with %w.
func Refusef(code Code, format string, args ...any) *Error {
	return &Error{Kind: Refuse, Code: code, Err: fmt.Errorf(format, args...)}
}

// Retryf makes a Retry error; the format may wrap a cause with %w.
func Retryf(code Code, format string, args ...any) *Error {
	return &Error{Kind: Retry, Code: code, Err: fmt.Errorf(format, args...)}
}

// Of returns the decision that err carries. An error without one is Retry, Internal: a bug or an
// unforeseen failure must not lose work.
func Of(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: Retry, Code: Internal, Err: err}
}
