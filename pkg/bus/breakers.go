package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// UpdateBreaker changes what is known of a registry, beginning with the zero value, and answers what
// there is afterwards and its revision; change is called again when somebody else was faster, and must do
// nothing but change. Nothing is written when it changed nothing.
func (b *Bus) UpdateBreaker(ctx context.Context, host string, change func(*breaker.State)) (breaker.State, uint64, error) {
	for range maxConflicts {
		s, rev, old, err := b.breaker(ctx, host)
		if err != nil {
			return breaker.State{}, 0, err
		}
		change(&s)
		value, err := wire.EncodeBreaker(s)
		if err != nil {
			return breaker.State{}, 0, fmt.Errorf("bus: update breaker %s: %w", host, err)
		}
		if bytes.Equal(old, value) {
			return s, rev, nil
		}
		rev, err = b.Bucket(bucketBreakers).Update(ctx, Key(host), value, rev)
		if err == nil {
			return s, rev, nil
		}
		if !errors.Is(err, ErrConflict) {
			return breaker.State{}, 0, err
		}
	}
	return breaker.State{}, 0, reason.Retryf(reason.BusUnavailable, "bus: update breaker %s: %w", host, ErrConflict)
}

// breaker reads a state, its revision and its bytes, which are nil when there is none that can be read:
// it is better begun anew than in the way.
func (b *Bus) breaker(ctx context.Context, host string) (breaker.State, uint64, []byte, error) {
	none := breaker.State{Host: host}
	value, rev, err := b.Bucket(bucketBreakers).Get(ctx, Key(host))
	if errors.Is(err, ErrNotFound) {
		return none, 0, nil, nil
	}
	if err != nil {
		return none, 0, nil, err
	}
	s, err := wire.DecodeBreaker(value)
	if err != nil {
		b.log.ErrorContext(ctx, "read breaker failed", "registry", host, "revision", rev, "error", err)
		return none, rev, nil, nil
	}
	return s, rev, value, nil
}

// Breakers calls fn with what is known of each registry that failed within the last day.
func (b *Bus) Breakers(ctx context.Context, fn func(breaker.State) error) error {
	return b.Bucket(bucketBreakers).Each(ctx, ">", func(_ string, value []byte, rev uint64) error {
		s, err := wire.DecodeBreaker(value)
		if err != nil {
			b.log.ErrorContext(ctx, "read breaker failed", "revision", rev, "error", err)
			return nil
		}
		return fn(s)
	})
}

// WatchBreakers calls fn with what is known of each registry, and then with each change, until ctx ends.
func (b *Bus) WatchBreakers(ctx context.Context, fn func(s breaker.State, revision uint64)) error {
	k := b.Bucket(bucketBreakers)
	// From 1: the bucket keeps one message a key.
	return b.follow(ctx, k.stream(), k.subject(">"), 1, func(m jetstream.Msg, seq uint64) error {
		if isMarker(m) {
			return nil
		}
		s, err := wire.DecodeBreaker(m.Data())
		if err != nil {
			b.log.ErrorContext(ctx, "read breaker failed", "key", strings.TrimPrefix(m.Subject(), k.subject("")), "error", err)
			return nil
		}
		fn(s, seq)
		return nil
	})
}
