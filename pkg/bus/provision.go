package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// metadataSchema is the metadata key that holds the schema number.
const metadataSchema = "pratique-schema"

func metadata() map[string]string { return map[string]string{metadataSchema: strconv.Itoa(schema)} }

// provisionAttempts bounds the retries after losing a race with another replica: each round somebody
// made progress.
const provisionAttempts = 10

// removalPause is what the server may take to remove a consumer's files after it has answered.
const removalPause = 100 * time.Millisecond

// settingProvisioned holds the highest schema that was provisioned whole.
const settingProvisioned = "provisioned"

// ErrNotProvisioned: the streams of this release are not there, or not all of them.
var ErrNotProvisioned = errors.New("bus: the streams of this release are not there yet; whoever may makes them at its start: layercache, or `pratique up`")

// Await answers nil when the streams, buckets and consumers of this release are there: what a process
// asks that may not Provision. ErrNotProvisioned otherwise.
func (b *Bus) Await(ctx context.Context) error {
	done, err := b.provisioned(ctx)
	switch {
	case errors.Is(err, jetstream.ErrBucketNotFound), err == nil && done < schema:
		return ErrNotProvisioned
	default:
		return err
	}
}

// provisioned reads the highest schema that was provisioned whole; 0 when none was.
func (b *Bus) provisioned(ctx context.Context) (int, error) {
	value, err := b.Setting(ctx, settingProvisioned)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return 0, nil //nolint:nilerr // nobody of ours wrote that
	}
	return n, nil
}

// Provision makes every stream, bucket and consumer that is missing, and updates those that were made
// with a lower schema. Everything else is left alone: an operator's changed limit stays, and so does
// what a newer release made. Safe to call from any number of processes at once, and again.
func (b *Bus) Provision(ctx context.Context) error {
	all, actx := provisioners(ctx)
	for _, c := range b.streamConfigs() {
		all.Go(func() error {
			err := b.provision(actx, func() error { return b.ensureStream(actx, c) })
			return wrapped("provision stream "+c.Name, err)
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	if err := b.provisionConsumers(ctx, consumers(b.cfg.Pools)); err != nil {
		return err
	}
	if done, err := b.provisioned(ctx); err != nil || done >= schema {
		return err
	}
	return b.PutSetting(ctx, settingProvisioned, strconv.Itoa(schema))
}

// provisionConsumers makes those of some consumers that are missing.
func (b *Bus) provisionConsumers(ctx context.Context, some []consumer) error {
	all, ctx := provisioners(ctx)
	for _, c := range some {
		all.Go(func() error {
			cfg := b.consumerConfig(c)
			err := b.provision(ctx, func() error { return b.ensureConsumer(ctx, b.name(c.stream), cfg) })
			return wrapped("provision consumer "+c.name+" of "+b.name(c.stream), err)
		})
	}
	return all.Wait()
}

// provisioners: some forty requests, a few at a time.
func provisioners(ctx context.Context) (*errgroup.Group, context.Context) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	return g, ctx
}

// provision tries again when another replica was faster with another configuration, which the server
// answers even to create-or-update, or when a consumer that was just deleted is still being removed.
func (b *Bus) provision(ctx context.Context, ensure func() error) error {
	var err error
	for range provisionAttempts {
		switch err = ensure(); apiCode(err) {
		case codeStreamExists, codeConsumerExists, codeConsumerInUse:
		case codeConsumerFailed:
			_ = sleep(ctx, removalPause) // what follows looks at ctx
		default:
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

func (b *Bus) ensureStream(ctx context.Context, want jetstream.StreamConfig) error {
	s, err := b.js.Stream(ctx, want.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return b.do(ctx, "create "+want.Name, func(ctx context.Context) error {
			_, err := b.js.CreateStream(ctx, want)
			return err
		})
	case err != nil:
		return err
	case schemaOf(s.CachedInfo().Config.Metadata) >= schema:
		return nil
	}
	return b.do(ctx, "update "+want.Name, func(ctx context.Context) error {
		_, err := b.js.UpdateStream(ctx, want)
		return err
	})
}

func (b *Bus) ensureConsumer(ctx context.Context, stream string, want jetstream.ConsumerConfig) error {
	c, err := b.js.Consumer(ctx, stream, want.Durable)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return b.createConsumer(ctx, stream, want)
	case err != nil:
		return err
	}
	have := c.CachedInfo().Config
	if schemaOf(have.Metadata) >= schema {
		return nil
	}
	if covers(have.FilterSubject, want.FilterSubject) {
		return b.do(ctx, "update "+stream+" "+want.Durable, func(ctx context.Context) error {
			_, err := b.js.UpdateConsumer(ctx, stream, want)
			return err
		})
	}
	// A filter added to an existing consumer never sees the messages before its position: they would
	// block their subjects for good. A new consumer gets everything; jobs in flight come back.
	err = b.do(ctx, "delete "+stream+" "+want.Durable, func(ctx context.Context) error {
		return b.js.DeleteConsumer(ctx, stream, want.Durable)
	})
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return err
	}
	return b.createConsumer(ctx, stream, want)
}

// covers tells whether every subject of the narrow filter is one of the wide filter. A consumer whose
// filter becomes narrower has not passed over anything that it should still see, so it keeps its
// position: on EVENTS a new one would hand out everything that is kept.
func covers(wide, narrow string) bool {
	w, n := strings.Split(wide, "."), strings.Split(narrow, ".")
	for i, token := range w {
		switch {
		case i >= len(n):
			return false
		case token == ">":
			return true
		case token != n[i] && (token != "*" || n[i] == ">"):
			return false
		}
	}
	return len(w) == len(n)
}

func (b *Bus) createConsumer(ctx context.Context, stream string, want jetstream.ConsumerConfig) error {
	return b.do(ctx, "create "+stream+" "+want.Durable, func(ctx context.Context) error {
		_, err := b.js.CreateConsumer(ctx, stream, want)
		return err
	})
}

// schemaOf is 0 for what was made by hand or by something older than the number.
func schemaOf(metadata map[string]string) int {
	n, err := strconv.Atoi(metadata[metadataSchema])
	if err != nil {
		return 0
	}
	return n
}

func wrapped(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("bus: %s: %w", what, err)
}
