// Package busfacts keeps facts on the bus: the durable store, which alone decides what is known. Facts
// are in bucket `facts`, records and holders in `blobs`, verdicts in `failures`; facts above
// bus.MaxInline in the object store `facts`, named by content.
//
// The buckets forget their oldest when they are full. A value that can not be read (damaged, or a
// large one that lost its object) is discarded, logged and reported as absent, so that it is made
// again.
package busfacts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/compact"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// objects is the object store's name; maxObject is how large one may be, packed, in bytes.
const (
	objects   = "facts"
	maxObject = 64 << 20
)

// pointer begins a value that names the object which holds the facts. Packed facts begin otherwise.
var pointer = []byte("object:")

// held is a holder's value.
var held = []byte("1")

// Store is the durable facts.Store.
type Store struct {
	bus                    *bus.Bus
	facts, blobs, failures bus.Bucket
}

var _ facts.Store = (*Store)(nil)

// New answers the store on a provisioned bus.
func New(b *bus.Bus) *Store {
	return &Store{bus: b, facts: b.Bucket("facts"), blobs: b.Bucket("blobs"), failures: b.Bucket("failures")}
}

func factsKey(d image.Digest, analysis string) string { return bus.Key("f", d.Hex(), analysis) }
func recordKey(blob image.Digest) string              { return bus.Key("r", blob.Hex()) }
func verdictKey(key string) string                    { return bus.Key(key) }
func holderKey(host, repository string, blob image.Digest) string {
	return bus.Key("h", host, repository, blob.Hex())
}

// PutFacts overwrites: under one key there is one content, and what is damaged is healed.
func (s *Store) PutFacts(ctx context.Context, l facts.Layer) error {
	body, err := wire.EncodeFacts(l)
	if err != nil {
		return fmt.Errorf("busfacts: %w", err)
	}
	if len(body) > compact.MaxSize {
		return reason.Refusef(reason.OverBound, "busfacts: facts of %d bytes, more than %d", len(body), compact.MaxSize)
	}
	value := compact.Pack(body)
	if len(value) > maxObject {
		return reason.Refusef(reason.OverBound, "busfacts: facts of %d bytes compressed, more than %d", len(value), maxObject)
	}
	if len(value) > bus.MaxInline {
		name := image.DigestOf(value).Hex()
		if err := s.bus.PutObject(ctx, objects, name, bytes.NewReader(value)); err != nil {
			return fmt.Errorf("busfacts: %w", err)
		}
		value = append(bytes.Clone(pointer), name...)
	}
	_, err = s.facts.Put(ctx, factsKey(l.DiffID, l.Analysis), value)
	return err
}

// Facts reads a layer's facts.
func (s *Store) Facts(ctx context.Context, diffID image.Digest, analysis string) (facts.Layer, error) {
	key := factsKey(diffID, analysis)
	value, rev, err := get(ctx, s.facts, key)
	if err != nil {
		return facts.Layer{}, err
	}
	if name, isPointer := bytes.CutPrefix(value, pointer); isPointer {
		value, err = s.object(ctx, string(name))
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return facts.Layer{}, fmt.Errorf("busfacts: %w", err)
		}
	}
	var l facts.Layer
	if err == nil {
		l, err = decode(value)
	}
	if err == nil && (l.DiffID != diffID || l.Analysis != analysis) {
		err = errors.New("facts of another layer")
	}
	if err != nil {
		s.facts.Discard(ctx, key, rev, err)
		return facts.Layer{}, fmt.Errorf("busfacts: %s: %w", key, facts.ErrNotFound)
	}
	return l, nil
}

// object reads a large value; bus.ErrNotFound also for what can not be one of ours.
func (s *Store) object(ctx context.Context, name string) ([]byte, error) {
	if _, err := image.ParseDigest("sha256:" + name); err != nil {
		return nil, fmt.Errorf("object name: %w: %w", err, bus.ErrNotFound)
	}
	r, err := s.bus.Object(ctx, objects, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	value, err := io.ReadAll(io.LimitReader(r, maxObject+1))
	if err != nil {
		return nil, err
	}
	if len(value) > maxObject {
		return nil, fmt.Errorf("object %s: more than %d bytes: %w", name, maxObject, bus.ErrNotFound)
	}
	return value, nil
}

func decode(value []byte) (facts.Layer, error) {
	body, err := compact.Unpack(value)
	if err != nil {
		return facts.Layer{}, err
	}
	return wire.DecodeFacts(body)
}

// HasFacts tells whether there is a value. That it can be read is known once it is: a damaged one is
// gone after the first attempt.
func (s *Store) HasFacts(ctx context.Context, diffID image.Digest, analysis string) (bool, error) {
	_, _, err := get(ctx, s.facts, factsKey(diffID, analysis))
	if errors.Is(err, facts.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// PutRecord keeps the first record of a blob.
func (s *Store) PutRecord(ctx context.Context, r facts.Record) error {
	value, err := wire.EncodeRecord(r)
	if err != nil {
		return fmt.Errorf("busfacts: %w", err)
	}
	_, err = s.blobs.Create(ctx, recordKey(r.Blob), value)
	if !errors.Is(err, bus.ErrConflict) {
		return err
	}
	// One is there, unless it is damaged: reading discards it then.
	if _, err = s.Record(ctx, r.Blob); !errors.Is(err, facts.ErrNotFound) {
		return err
	}
	_, err = s.blobs.Create(ctx, recordKey(r.Blob), value)
	if errors.Is(err, bus.ErrConflict) {
		return nil // somebody healed it first
	}
	return err
}

// Record reads what reading a blob proved.
func (s *Store) Record(ctx context.Context, blob image.Digest) (facts.Record, error) {
	key := recordKey(blob)
	value, rev, err := get(ctx, s.blobs, key)
	if err != nil {
		return facts.Record{}, err
	}
	r, err := wire.DecodeRecord(value)
	if err == nil && r.Blob != blob {
		err = errors.New("record of another blob")
	}
	if err != nil {
		s.blobs.Discard(ctx, key, rev, err)
		return facts.Record{}, fmt.Errorf("busfacts: %s: %w", key, facts.ErrNotFound)
	}
	return r, nil
}

// PutHolder remembers that a repository holds a blob.
func (s *Store) PutHolder(ctx context.Context, host, repository string, blob image.Digest) error {
	_, err := s.blobs.Put(ctx, holderKey(host, repository, blob), held)
	return err
}

// Holds tells whether a repository was confirmed to hold a blob.
func (s *Store) Holds(ctx context.Context, host, repository string, blob image.Digest) (bool, error) {
	key := holderKey(host, repository, blob)
	value, rev, err := get(ctx, s.blobs, key)
	if errors.Is(err, facts.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !bytes.Equal(value, held) {
		s.blobs.Discard(ctx, key, rev, errors.New("not a holder"))
		return false, nil
	}
	return true, nil
}

// PutVerdict remembers a refusal for as long as bucket `failures` keeps values.
func (s *Store) PutVerdict(ctx context.Context, v facts.Verdict) error {
	value, err := wire.EncodeVerdict(v)
	if err != nil {
		return fmt.Errorf("busfacts: %w", err)
	}
	_, err = s.failures.Put(ctx, verdictKey(v.Key), value)
	return err
}

// Verdict reads a remembered refusal.
func (s *Store) Verdict(ctx context.Context, key string) (facts.Verdict, error) {
	value, rev, err := get(ctx, s.failures, verdictKey(key))
	if err != nil {
		return facts.Verdict{}, err
	}
	v, err := wire.DecodeVerdict(value)
	if err == nil && v.Key != key {
		err = errors.New("verdict under another key")
	}
	if err != nil {
		s.failures.Discard(ctx, verdictKey(key), rev, err)
		return facts.Verdict{}, fmt.Errorf("busfacts: verdict: %w", facts.ErrNotFound)
	}
	return v, nil
}

// ForgetVerdicts drops the verdicts with these keys.
func (s *Store) ForgetVerdicts(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := s.failures.Delete(ctx, verdictKey(key)); err != nil {
			return err
		}
	}
	return nil
}

func get(ctx context.Context, b bus.Bucket, key string) ([]byte, uint64, error) {
	value, rev, err := b.Get(ctx, key)
	if errors.Is(err, bus.ErrNotFound) {
		return nil, 0, fmt.Errorf("busfacts: %s: %w", key, facts.ErrNotFound)
	}
	return value, rev, err
}
