package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// PublishEvent stores an event and answers its sequence in EVENTS. The same event sent again within
// the duplicate window answers the sequence of the first.
func (b *Bus) PublishEvent(ctx context.Context, e event.Event) (uint64, error) {
	body, err := wire.EncodeEvent(e)
	if err != nil {
		return 0, fmt.Errorf("bus: event: %w", err)
	}
	subject := b.subject("event", Token(string(e.Kind)), Token(e.Source), Token(string(e.Action)))
	ack, err := b.publish(ctx, streamEvents, message(ctx, subject, wire.TypeEvent, body), jetstream.WithMsgID(e.ID))
	if err != nil {
		return 0, storeError("publish event", err)
	}
	return ack.Sequence, nil
}

// Event reads one event. ErrNotFound when there is none with this sequence, or not any more.
func (b *Bus) Event(ctx context.Context, seq uint64) (event.Event, error) {
	raw, err := b.rawMessage(ctx, streamEvents, seq)
	if err != nil {
		return event.Event{}, err
	}
	return wire.DecodeEvent(raw.Data)
}
