// Package front puts a fast fact store in front of a durable one. The durable one decides: what it did
// not store is not stored, and what fails in the fast one is a miss. So the fast one may lose anything,
// and may be away: then it is left alone for a moment after each failure, so that waiting for it does
// not cost more than it ever saved.
package front

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// Store is the facts.Store of two. It is a prometheus.Collector too: register it, once, to see how
// often the fast one answers.
type Store struct {
	fast, durable facts.Store
	log           *slog.Logger
	reads         *prometheus.CounterVec
	writes        prometheus.Counter
	away          atomic.Bool  // the fast one failed last time: said once, not for each read
	resume        atomic.Int64 // Unix nanoseconds before which the fast one is not asked
}

const (
	patience = time.Second // with one call of the fast store
	pause    = time.Second // after one that failed
)

var (
	_ facts.Store          = (*Store)(nil)
	_ prometheus.Collector = (*Store)(nil)
)

// What is read, and how it went: label values of pratique_facts_front_reads_total.
const (
	readFacts  = "facts"
	readHas    = "has"
	readRecord = "record"
	readHolder = "holder"

	hit    = "hit"
	miss   = "miss"
	failed = "error"
	paused = "paused"
)

// New answers fast in front of durable.
func New(fast, durable facts.Store, logger *slog.Logger) *Store {
	return &Store{
		fast: fast, durable: durable, log: logger,
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_facts_front_reads_total",
			Help: "Reads of the fast fact store by what was read and result: hit, miss, error, paused after an error.",
		}, []string{"what", "result"}),
		writes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pratique_facts_front_write_errors_total",
			Help: "Writes that the fast fact store failed; the durable one has them.",
		}),
	}
}

// Describe is prometheus.Collector's.
func (s *Store) Describe(ch chan<- *prometheus.Desc) {
	s.reads.Describe(ch)
	s.writes.Describe(ch)
}

// Collect is prometheus.Collector's.
func (s *Store) Collect(ch chan<- prometheus.Metric) {
	s.reads.Collect(ch)
	s.writes.Collect(ch)
}

// PutFacts stores a layer's facts.
func (s *Store) PutFacts(ctx context.Context, l facts.Layer) error {
	if err := s.durable.PutFacts(ctx, l); err != nil {
		return err
	}
	s.write(ctx, func(ctx context.Context) error { return s.fast.PutFacts(ctx, l) })
	return nil
}

// Facts reads a layer's facts.
func (s *Store) Facts(ctx context.Context, diffID image.Digest, analysis string) (facts.Layer, error) {
	var l facts.Layer
	if s.read(ctx, readFacts, func(ctx context.Context) (err error) {
		l, err = s.fast.Facts(ctx, diffID, analysis)
		return err
	}) {
		return l, nil
	}
	l, err := s.durable.Facts(ctx, diffID, analysis)
	if err == nil {
		s.write(ctx, func(ctx context.Context) error { return s.fast.PutFacts(ctx, l) })
	}
	return l, err
}

// HasFacts tells without loading them, so it does not fill the fast one.
func (s *Store) HasFacts(ctx context.Context, diffID image.Digest, analysis string) (bool, error) {
	if s.read(ctx, readHas, func(ctx context.Context) error {
		return absent(s.fast.HasFacts(ctx, diffID, analysis))
	}) {
		return true, nil
	}
	return s.durable.HasFacts(ctx, diffID, analysis)
}

// PutRecord keeps the first record of a blob: the durable one's, which may not be r.
func (s *Store) PutRecord(ctx context.Context, r facts.Record) error {
	if err := s.durable.PutRecord(ctx, r); err != nil {
		return err
	}
	first, err := s.durable.Record(ctx, r.Blob)
	if err == nil {
		s.write(ctx, func(ctx context.Context) error { return s.fast.PutRecord(ctx, first) })
	}
	if errors.Is(err, facts.ErrNotFound) {
		return nil // pushed out already
	}
	return err
}

// Record reads what reading a blob proved.
func (s *Store) Record(ctx context.Context, blob image.Digest) (facts.Record, error) {
	var r facts.Record
	if s.read(ctx, readRecord, func(ctx context.Context) (err error) {
		r, err = s.fast.Record(ctx, blob)
		return err
	}) {
		return r, nil
	}
	r, err := s.durable.Record(ctx, blob)
	if err == nil {
		s.write(ctx, func(ctx context.Context) error { return s.fast.PutRecord(ctx, r) })
	}
	return r, err
}

// PutHolder remembers that a repository holds a blob.
func (s *Store) PutHolder(ctx context.Context, host, repository string, blob image.Digest) error {
	if err := s.durable.PutHolder(ctx, host, repository, blob); err != nil {
		return err
	}
	s.write(ctx, func(ctx context.Context) error { return s.fast.PutHolder(ctx, host, repository, blob) })
	return nil
}

// Holds tells whether a repository was confirmed to hold a blob.
func (s *Store) Holds(ctx context.Context, host, repository string, blob image.Digest) (bool, error) {
	if s.read(ctx, readHolder, func(ctx context.Context) error {
		return absent(s.fast.Holds(ctx, host, repository, blob))
	}) {
		return true, nil
	}
	held, err := s.durable.Holds(ctx, host, repository, blob)
	if held && err == nil {
		s.write(ctx, func(ctx context.Context) error { return s.fast.PutHolder(ctx, host, repository, blob) })
	}
	return held, err
}

// Verdicts are the durable store's alone. Nearly all that are asked for are absent, which a cache can
// not say; and one that is forgotten, or expires, must be gone everywhere at once.

// PutVerdict remembers a refusal.
func (s *Store) PutVerdict(ctx context.Context, v facts.Verdict) error {
	return s.durable.PutVerdict(ctx, v)
}

// Verdict reads a remembered refusal.
func (s *Store) Verdict(ctx context.Context, key string) (facts.Verdict, error) {
	return s.durable.Verdict(ctx, key)
}

// ForgetVerdicts drops the verdicts with these keys.
func (s *Store) ForgetVerdicts(ctx context.Context, keys ...string) error {
	return s.durable.ForgetVerdicts(ctx, keys...)
}

// absent makes an error of a "no".
func absent(yes bool, err error) error {
	if err == nil && !yes {
		return facts.ErrNotFound
	}
	return err
}

// read asks the fast store, counts how that went and tells whether it answered.
func (s *Store) read(ctx context.Context, what string, ask func(context.Context) error) bool {
	result := paused
	asked, err := s.call(ctx, ask)
	switch {
	case !asked:
	case err == nil:
		result = hit
	case errors.Is(err, facts.ErrNotFound):
		result = miss
	default:
		result = failed
	}
	s.reads.WithLabelValues(what, result).Inc()
	return result == hit
}

// write tells the fast store what the durable one has, and counts when that fails.
func (s *Store) write(ctx context.Context, put func(context.Context) error) {
	if asked, err := s.call(ctx, put); asked && err != nil {
		s.writes.Inc()
	}
}

// call is one bounded call of the fast store, unless that is paused. What fails because the caller
// went away says nothing about the store.
func (s *Store) call(ctx context.Context, do func(context.Context) error) (asked bool, err error) {
	if time.Now().UnixNano() < s.resume.Load() {
		return false, nil
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = do(bounded)
	bad := err != nil && !errors.Is(err, facts.ErrNotFound) && reason.Of(err).Kind == reason.Retry && ctx.Err() == nil
	if bad {
		s.resume.Store(time.Now().Add(pause).UnixNano())
	}
	if ctx.Err() == nil && s.away.CompareAndSwap(!bad, bad) {
		if bad {
			s.log.WarnContext(ctx, "fast fact store fails, the durable one answers", "error", err)
		} else {
			s.log.InfoContext(ctx, "fast fact store answers again")
		}
	}
	return true, err
}
