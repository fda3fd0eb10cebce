// Package redisfacts keeps facts in Redis: the fast front that all workers share. Nothing in it is
// needed: flushed, evicted or away, it costs reads of the durable store (package busfacts).
//
// Everything expires; what is read lives on. How much is kept is Redis's own setting (maxmemory with an
// eviction policy). Values that can not be read are removed, logged and reported as absent.
package redisfacts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/pratique-sec/pratique/pkg/compact"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// Options of a store. The zero value will do.
type Options struct {
	Logger     *slog.Logger  // nil: nothing is logged
	Prefix     string        // of every key; "": "pratique:". Several installations can share one Redis
	TTL        time.Duration // of facts, records and holders since they were last read; 0: 7 days
	VerdictTTL time.Duration // of verdicts since they were put; 0: 6 hours
	MaxValue   int64         // largest value, compressed, in bytes; 0: 64 MiB
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Prefix == "" {
		o.Prefix = "pratique:"
	}
	if o.TTL == 0 {
		o.TTL = 7 * 24 * time.Hour
	}
	if o.VerdictTTL == 0 {
		o.VerdictTTL = 6 * time.Hour
	}
	if o.MaxValue == 0 {
		o.MaxValue = 64 << 20
	}
	return o
}

// held is a holder's value.
var held = []byte("1")

// errAbsent: no value, or an empty one, which we never write.
var errAbsent = fmt.Errorf("redisfacts: %w", facts.ErrNotFound)

// Store is the facts.Store in Redis. Its errors of kind reason.Retry have the code CacheUnavailable.
type Store struct {
	client redis.UniversalClient
	opts   Options
}

var _ facts.Store = (*Store)(nil)

// New answers a store on a client, which stays the caller's to close.
func New(client redis.UniversalClient, opts Options) *Store {
	return &Store{client: client, opts: opts.withDefaults()}
}

// key joins fields, one to one.
func (s *Store) key(fields ...string) string {
	escaped := make([]string, len(fields))
	for i, f := range fields {
		escaped[i] = url.QueryEscape(f)
	}
	return s.opts.Prefix + strings.Join(escaped, ":")
}

func (s *Store) factsKey(d image.Digest, analysis string) string {
	return s.key("f", d.Hex(), analysis)
}

// PutFacts overwrites: under one key there is one content, and what is damaged is healed.
func (s *Store) PutFacts(ctx context.Context, l facts.Layer) error {
	body, err := wire.EncodeFacts(l)
	if err != nil {
		return fmt.Errorf("redisfacts: %w", err)
	}
	if len(body) > compact.MaxSize {
		return reason.Refusef(reason.OverBound, "redisfacts: facts of %d bytes, more than %d", len(body), compact.MaxSize)
	}
	value := compact.Pack(body)
	if int64(len(value)) > s.opts.MaxValue {
		return reason.Refusef(reason.OverBound, "redisfacts: facts of %d bytes compressed, more than %d", len(value), s.opts.MaxValue)
	}
	return s.set(ctx, s.factsKey(l.DiffID, l.Analysis), value, s.opts.TTL)
}

// Facts reads a layer's facts.
func (s *Store) Facts(ctx context.Context, diffID image.Digest, analysis string) (facts.Layer, error) {
	key := s.factsKey(diffID, analysis)
	value, err := s.get(ctx, key, s.opts.TTL)
	if err != nil {
		return facts.Layer{}, err
	}
	l, err := decode(value)
	if err == nil && (l.DiffID != diffID || l.Analysis != analysis) {
		err = errors.New("facts of another layer")
	}
	if err != nil {
		return facts.Layer{}, s.discard(ctx, key, err)
	}
	return l, nil
}

func decode(value []byte) (facts.Layer, error) {
	body, err := compact.Unpack(value)
	if err != nil {
		return facts.Layer{}, err
	}
	return wire.DecodeFacts(body)
}

// HasFacts tells whether there is a value, and keeps it alive.
func (s *Store) HasFacts(ctx context.Context, diffID image.Digest, analysis string) (bool, error) {
	there, err := s.client.Expire(ctx, s.factsKey(diffID, analysis), s.opts.TTL).Result()
	return there, failed(ctx, err)
}

// PutRecord keeps the first record of a blob.
func (s *Store) PutRecord(ctx context.Context, r facts.Record) error {
	value, err := wire.EncodeRecord(r)
	if err != nil {
		return fmt.Errorf("redisfacts: %w", err)
	}
	key := s.key("r", r.Blob.Hex())
	first, err := s.client.SetNX(ctx, key, value, s.opts.TTL).Result()
	if err != nil || first {
		return failed(ctx, err)
	}
	// One is there, unless it is damaged: reading removes it then.
	if _, err := s.Record(ctx, r.Blob); !errors.Is(err, facts.ErrNotFound) {
		return err
	}
	return failed(ctx, s.client.SetNX(ctx, key, value, s.opts.TTL).Err())
}

// Record reads what reading a blob proved.
func (s *Store) Record(ctx context.Context, blob image.Digest) (facts.Record, error) {
	key := s.key("r", blob.Hex())
	value, err := s.get(ctx, key, s.opts.TTL)
	if err != nil {
		return facts.Record{}, err
	}
	r, err := wire.DecodeRecord(value)
	if err == nil && r.Blob != blob {
		err = errors.New("record of another blob")
	}
	if err != nil {
		return facts.Record{}, s.discard(ctx, key, err)
	}
	return r, nil
}

// PutHolder remembers that a repository holds a blob.
func (s *Store) PutHolder(ctx context.Context, host, repository string, blob image.Digest) error {
	return s.set(ctx, s.key("h", host, repository, blob.Hex()), held, s.opts.TTL)
}

// Holds tells whether a repository was confirmed to hold a blob.
func (s *Store) Holds(ctx context.Context, host, repository string, blob image.Digest) (bool, error) {
	key := s.key("h", host, repository, blob.Hex())
	value, err := s.get(ctx, key, s.opts.TTL)
	if err == nil && !bytes.Equal(value, held) {
		err = s.discard(ctx, key, errors.New("not a holder"))
	}
	if errors.Is(err, facts.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// PutVerdict remembers a refusal for Options.VerdictTTL.
func (s *Store) PutVerdict(ctx context.Context, v facts.Verdict) error {
	value, err := wire.EncodeVerdict(v)
	if err != nil {
		return fmt.Errorf("redisfacts: %w", err)
	}
	return s.set(ctx, s.key("v", v.Key), value, s.opts.VerdictTTL)
}

// Verdict reads a remembered refusal. Reading it does not keep it alive.
func (s *Store) Verdict(ctx context.Context, key string) (facts.Verdict, error) {
	value, err := s.get(ctx, s.key("v", key), 0)
	if err != nil {
		return facts.Verdict{}, err
	}
	v, err := wire.DecodeVerdict(value)
	if err == nil && v.Key != key {
		err = errors.New("verdict under another key")
	}
	if err != nil {
		return facts.Verdict{}, s.discard(ctx, s.key("v", key), err)
	}
	return v, nil
}

// ForgetVerdicts drops the verdicts with these keys.
func (s *Store) ForgetVerdicts(ctx context.Context, keys ...string) error {
	for _, key := range keys { // one by one: in a cluster they are on different nodes
		if err := s.client.Del(ctx, s.key("v", key)).Err(); err != nil {
			return failed(ctx, err)
		}
	}
	return ctx.Err()
}

func (s *Store) set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return failed(ctx, s.client.Set(ctx, key, value, ttl).Err())
}

// get reads a value up to Options.MaxValue and, unless ttl is 0, lets it live that long from now.
func (s *Store) get(ctx context.Context, key string, ttl time.Duration) ([]byte, error) {
	var value *redis.StringCmd
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		// Not GET: whatever lies there is loaded whole by it.
		value = p.GetRange(ctx, key, 0, s.opts.MaxValue)
		if ttl != 0 {
			p.PExpire(ctx, key, ttl)
		}
		return nil
	})
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, s.discard(ctx, key, err)
	}
	if err != nil {
		return nil, failed(ctx, err)
	}
	b, err := value.Bytes()
	switch {
	case err != nil:
		return nil, failed(ctx, err)
	case len(b) == 0:
		return nil, errAbsent
	case int64(len(b)) > s.opts.MaxValue:
		return nil, s.discard(ctx, key, fmt.Errorf("more than %d bytes", s.opts.MaxValue))
	}
	return b, nil
}

// discard removes a value that can not be used, and answers that it is absent. Failing to remove it is
// no news: the next reader tries again.
func (s *Store) discard(ctx context.Context, key string, why error) error {
	s.opts.Logger.ErrorContext(ctx, "discard unusable value in redis", "key", key, "error", why)
	if err := s.client.Unlink(ctx, key).Err(); err != nil {
		s.opts.Logger.WarnContext(ctx, "discard of value in redis failed", "key", key, "error", err)
	}
	return errAbsent
}

// failed gives an error of the client its decision; the caller's own cancellation stays what it is.
func failed(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("redisfacts: %w", ctx.Err())
	}
	if text, _, repeated := strings.Cut(err.Error(), ", with args"); repeated { // of AUTH, where it has another name
		return reason.Retryf(reason.CacheUnavailable, "redis: %s", text)
	}
	return reason.Retryf(reason.CacheUnavailable, "redis: %w", err)
}
