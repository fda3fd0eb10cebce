package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/compact"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// maxState is how large one asset's compressed state may be, in bytes: what fits a message under our
// max_payload of 8 MB, with room for headers.
const maxState = 7 << 20

func (b *Bus) stateSubject(c finding.Class, a finding.Asset) string {
	return b.subjectOf("state.v1."+Token(string(c)), assetTokens(a)...)
}

// State reads an asset's state and its revision; ErrNotFound when it has none. One that can not be
// read is an error, not absent: to begin it anew would repeat revisions that subscribers have seen.
func (b *Bus) State(ctx context.Context, c finding.Class, a finding.Asset) (finding.State, uint64, error) {
	subject := b.stateSubject(c, a)
	m, err := b.last(ctx, b.name(streamState), subject)
	if err != nil {
		return finding.State{}, 0, fmt.Errorf("bus: state %s: %w", subject, err)
	}
	s, err := decodeState(m.Data)
	if err != nil {
		return finding.State{}, 0, fmt.Errorf("bus: state %s: %w", subject, err)
	}
	return s, m.Sequence, nil
}

// PutState replaces the state that has revision rev (0: there must be none) and returns the new
// revision; ErrConflict when it has another.
func (b *Bus) PutState(ctx context.Context, c finding.Class, s finding.State, rev uint64) (uint64, error) {
	subject := b.stateSubject(c, s.Asset)
	body, err := wire.EncodeState(s)
	if err != nil {
		return 0, fmt.Errorf("bus: put state %s: %w", subject, err)
	}
	body = compact.Pack(body)
	if len(body) > maxState {
		return 0, reason.Refusef(reason.OverBound, "bus: put state %s: %d bytes compressed, more than %d: %d open findings, %d pending",
			subject, len(body), maxState, len(s.Open), len(s.Pending))
	}
	m := message(ctx, subject, wire.TypeState, body)
	m.Header.Set(headerEncoding, encodingZstd)
	var ack *jetstream.PubAck
	err = b.do(ctx, "put "+streamState, func(ctx context.Context) error {
		ack, err = b.js.PublishMsg(ctx, m, expect(rev))
		return err
	})
	if isConflict(err) {
		return 0, fmt.Errorf("bus: put state %s: %w", subject, ErrConflict)
	}
	if err != nil {
		return 0, storeError("put "+streamState, err)
	}
	return ack.Sequence, nil
}

// States calls fn with every asset's state, of all classes; one that is written meanwhile may come twice,
// the newer one last. One that can not be read is logged and left out.
func (b *Bus) States(ctx context.Context, fn func(finding.State) error) error {
	return b.snapshot(ctx, b.name(streamState), b.subject("state.v1.>"), false, func(m jetstream.Msg, seq uint64) error {
		s, err := decodeState(m.Data())
		if err != nil {
			b.log.ErrorContext(ctx, "read state failed", "subject", m.Subject(), "sequence", seq, "error", err)
			return nil
		}
		return fn(s)
	})
}

func decodeState(packed []byte) (finding.State, error) {
	body, err := compact.Unpack(packed)
	if err != nil {
		return finding.State{}, reason.Refusef(reason.Malformed, "%w", err)
	}
	return wire.DecodeState(body)
}
