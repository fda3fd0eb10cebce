package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/reason"
)

// Key joins tokens of any origin to a bucket's key, one to one.
func Key(tokens ...string) string {
	escaped := make([]string, len(tokens))
	for i, t := range tokens {
		escaped[i] = keyToken(t)
	}
	return strings.Join(escaped, ".")
}

// Bucket is a JetStream key-value bucket. Every record has a revision, which is what a compare-and-set
// names. Errors: ErrNotFound, ErrConflict, a reason.Retry when the server did not answer, and a
// reason.Refuse for a key or a size that it would never take.
type Bucket struct {
	bus  *Bus
	name string
}

// Bucket names one of the buckets that Provision makes.
func (b *Bus) Bucket(name string) Bucket { return Bucket{bus: b, name: name} }

// Get reads a key's value and revision.
func (k Bucket) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	kv, err := k.open(ctx)
	if err != nil {
		return nil, 0, err
	}
	e, err := kv.Get(ctx, key)
	if err != nil {
		return nil, 0, k.error("get", key, err)
	}
	return e.Value(), e.Revision(), nil
}

// Put writes a value whatever was there before, and returns its revision.
func (k Bucket) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return k.write(ctx, "put", key, func(ctx context.Context, kv jetstream.KeyValue) (uint64, error) {
		return kv.Put(ctx, key, value)
	})
}

// Create writes a value where there is none, and returns its revision; ErrConflict where there is.
func (k Bucket) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	return k.write(ctx, "create", key, func(ctx context.Context, kv jetstream.KeyValue) (uint64, error) {
		return kv.Create(ctx, key, value)
	})
}

// Update replaces the value that has this revision, and returns the new one; ErrConflict when it has
// another. Revision 0 means Create.
func (k Bucket) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if revision == 0 {
		return k.Create(ctx, key, value)
	}
	return k.write(ctx, "update", key, func(ctx context.Context, kv jetstream.KeyValue) (uint64, error) {
		return kv.Update(ctx, key, value, revision)
	})
}

// Delete removes a key; one that is absent is no error.
func (k Bucket) Delete(ctx context.Context, key string) error {
	return k.purge(ctx, key)
}

// Drop removes a key unless it was written after this revision.
func (k Bucket) Drop(ctx context.Context, key string, revision uint64) error {
	return k.purge(ctx, key, jetstream.WithPurgeSequence(revision+1))
}

// Discard drops a value that can not be used, and logs why, so that it is made again instead of being
// stumbled over for ever. Failing to is logged too: the next reader tries again.
func (k Bucket) Discard(ctx context.Context, key string, revision uint64, why error) {
	k.bus.log.ErrorContext(ctx, "discard unusable value", "bucket", k.name, "key", key, "revision", revision, "error", why)
	if err := k.Drop(ctx, key, revision); err != nil {
		k.bus.log.WarnContext(ctx, "discard of value failed", "bucket", k.name, "key", key, "error", err)
	}
}

// Keys lists the keys that begin with the tokens of prefix, a whole number of them; all for "".
func (k Bucket) Keys(ctx context.Context, prefix string) ([]string, error) {
	filter := ">"
	if prefix != "" {
		filter = strings.TrimSuffix(prefix, ".") + ".>"
	}
	var keys []string
	err := k.each(ctx, filter, true, func(key string, _ []byte, _ uint64) error {
		keys = append(keys, key)
		return nil
	})
	return keys, err
}

// Each calls fn with every record whose key matches the filter, in which "*" stands for one token and
// a last ">" for one or more. None that is there all the time is missed; one that is written meanwhile may
// come twice, the newer one last.
func (k Bucket) Each(ctx context.Context, filter string, fn func(key string, value []byte, revision uint64) error) error {
	return k.each(ctx, filter, false, fn)
}

func (k Bucket) each(ctx context.Context, filter string, keysOnly bool, fn func(string, []byte, uint64) error) error {
	return k.bus.snapshot(ctx, k.stream(), k.subject(filter), keysOnly, func(m jetstream.Msg, seq uint64) error {
		if isMarker(m) {
			return nil
		}
		return fn(strings.TrimPrefix(m.Subject(), k.subject("")), m.Data(), seq)
	})
}

// isMarker tells that a message stands for a deleted key. We leave none behind, see purge, but `nats
// kv del` does.
func isMarker(m jetstream.Msg) bool {
	return m.Headers().Get("KV-Operation") != "" || m.Headers().Get(jetstream.MarkerReasonHeader) != ""
}

func (k Bucket) stream() string            { return "KV_" + k.bus.name(k.name) }
func (k Bucket) subject(key string) string { return "$KV." + k.bus.name(k.name) + "." + key }

func (k Bucket) open(ctx context.Context) (jetstream.KeyValue, error) {
	kv, err := remembered(&k.bus.handles.values, k.name, func() (jetstream.KeyValue, error) {
		return k.bus.js.KeyValue(ctx, k.bus.name(k.name))
	})
	if err != nil {
		return nil, storeError("open bucket "+k.name, err)
	}
	return kv, nil
}

func (k Bucket) write(ctx context.Context, verb, key string, fn func(context.Context, jetstream.KeyValue) (uint64, error)) (uint64, error) {
	kv, err := k.open(ctx)
	if err != nil {
		return 0, err
	}
	var revision uint64
	err = k.bus.do(ctx, verb+" "+k.name, func(ctx context.Context) error {
		revision, err = fn(ctx, kv)
		return err
	})
	if err != nil {
		return 0, k.error(verb, key, err)
	}
	return revision, nil
}

// purge removes messages instead of marking the key as deleted, as the client library would: markers
// of keys that never come back stay for good.
func (k Bucket) purge(ctx context.Context, key string, opts ...jetstream.StreamPurgeOpt) error {
	if strings.ContainsAny(key, "*>") {
		return k.error("delete", key, jetstream.ErrInvalidKey) // as a filter it would remove others too
	}
	s, err := k.bus.stream(ctx, k.stream())
	if err != nil {
		return storeError("open bucket "+k.name, err)
	}
	err = k.bus.do(ctx, "delete "+k.name, func(ctx context.Context) error {
		return s.Purge(ctx, append(opts, jetstream.WithPurgeSubject(k.subject(key)))...)
	})
	return k.error("delete", key, err)
}

func (k Bucket) error(verb, key string, err error) error {
	what := verb + " " + k.name + " " + key
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		return fmt.Errorf("bus: %s: %w", what, ErrNotFound)
	case isConflict(err), errors.Is(err, jetstream.ErrKeyExists):
		return fmt.Errorf("bus: %s: %w", what, ErrConflict)
	case errors.Is(err, jetstream.ErrInvalidKey):
		return reason.Refusef(reason.Malformed, "bus: %s: %w", what, err)
	}
	return storeError(what, err)
}
