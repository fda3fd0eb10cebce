package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// metadataSchema is the metadata key that holds the schema number.
const metadataSchema = "pratique-schema"

func metadata() map[string]string { return map[string]string{metadataSchema: strconv.Itoa(schema)} }

// provisionAttempts bounds the retries after losing a race with another replica: each round somebody
// made progress.
const provisionAttempts = 10

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
	return b.provisionConsumers(ctx, b.cfg.Pools)
}

// provisionConsumers makes the consumers of EVENTS and WORK for some pools.
func (b *Bus) provisionConsumers(ctx context.Context, pools []string) error {
	all, ctx := provisioners(ctx)
	for _, c := range consumers(pools) {
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

// provision tries again when another replica was faster with another configuration: the server
// answers that even to create-or-update.
func (b *Bus) provision(ctx context.Context, ensure func() error) error {
	var err error
	for range provisionAttempts {
		switch err = ensure(); apiCode(err) {
		case codeStreamExists, codeConsumerExists, codeConsumerInUse:
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
	if have.FilterSubject == want.FilterSubject {
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
