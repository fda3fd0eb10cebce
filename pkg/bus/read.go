package bus

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
)

// rawMessage reads one stored message by its sequence.
func (b *Bus) rawMessage(ctx context.Context, name string, seq uint64) (*jetstream.RawStreamMsg, error) {
	s, err := b.stream(ctx, b.name(name))
	if err != nil {
		return nil, storeError("open "+name, err)
	}
	raw, err := s.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, storeError("read "+name, err)
	}
	return raw, nil
}
