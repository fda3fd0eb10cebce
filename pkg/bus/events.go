package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/compact"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/reason"
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
	m := message(ctx, subject, wire.TypeEvent, body)
	if e.Kind == event.KindManifest {
		m.Data = compact.Pack(body)
		m.Header.Set(headerEncoding, encodingZstd)
	}
	ack, err := b.publish(ctx, streamEvents, m, jetstream.WithMsgID(e.ID))
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
	return decodeEvent(raw.Data)
}

// ConsumeManifests hands every event of posted manifests to h, as ConsumeEvents does those of registries.
func (b *Bus) ConsumeManifests(ctx context.Context, slots int, h func(context.Context, event.Event, Delivery) error) error {
	q := queue{
		stream: streamEvents, op: QueueManifests, service: "psaauditor",
		lanes: [][]string{{consumerManifests}}, pools: b.cfg.Pools, wake: b.subject("wake", "event", string(event.KindManifest), ">"),
	}
	return b.consume(ctx, q, slots, decoded(decodeEvent, h))
}

// decodeEvent reads an event that is packed, or that is not: nothing else begins as a zstd frame does.
func decodeEvent(body []byte) (event.Event, error) {
	if compact.Packed(body) {
		var err error
		if body, err = compact.Unpack(body); err != nil {
			return event.Event{}, reason.Refusef(reason.Malformed, "%w", err)
		}
	}
	return wire.DecodeEvent(body)
}
