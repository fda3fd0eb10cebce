package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// PublishSystem tells one of our own troubles on SYSTEM, once for each notice id.
func (b *Bus) PublishSystem(ctx context.Context, n system.Notice) error {
	body, err := wire.EncodeNotice(n)
	if err != nil {
		return fmt.Errorf("bus: publish notice %s: %w", n.ID, err)
	}
	m := message(ctx, b.subjectOf("system.v1", string(n.Kind)), wire.TypeNotice, body)
	_, err = b.publish(ctx, streamSystem, m, jetstream.WithMsgID(n.ID))
	return storeError("publish "+streamSystem, err)
}

// WatchSystem calls fn with each notice from a sequence of SYSTEM on (0: only new ones, 1: all that are
// kept) until ctx ends, which is no error, or fn fails.
func (b *Bus) WatchSystem(ctx context.Context, from uint64, fn func(seq uint64, n system.Notice) error) error {
	return watch(ctx, b, streamSystem, "system.v1.>", from, wire.DecodeNotice, fn)
}
