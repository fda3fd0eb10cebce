package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// PublishDelta stores a delta in FINDINGS, once: the same event id within the window is stored already,
// which is no error.
func (b *Bus) PublishDelta(ctx context.Context, d finding.Delta) error {
	body, err := wire.EncodeDelta(d)
	if err != nil {
		return fmt.Errorf("bus: publish delta %s: %w", d.EventID, err)
	}
	// The higher severity, so that a filter on "critical" sees a finding leave it.
	severity := d.Finding.Severity
	if d.Old != nil {
		severity = max(severity, d.Old.Severity)
	}
	prefix := "finding.v1." + Token(string(d.Finding.Class)) + "." + Token(string(d.Transition)) + "." + severity.String()
	m := message(ctx, b.subjectOf(prefix, assetTokens(d.Asset)...), wire.TypeDelta, body)
	_, err = b.publish(ctx, streamFindings, m, jetstream.WithMsgID(d.EventID))
	return storeError("publish "+streamFindings, err)
}

// WatchDeltas calls fn with each delta from a sequence of FINDINGS on (0: only new ones, 1: all that
// are kept) until ctx ends, which is no error, or fn fails. ErrTrimmed when FINDINGS no longer reaches
// back that far.
func (b *Bus) WatchDeltas(ctx context.Context, from uint64, fn func(seq uint64, d finding.Delta) error) error {
	if from > 1 {
		first, _, err := b.bounds(ctx, b.name(streamFindings))
		if err != nil {
			return err
		}
		if first > from {
			return fmt.Errorf("bus: FINDINGS begins at %d, not %d: %w", first, from, ErrTrimmed)
		}
	}
	return watch(ctx, b, streamFindings, "finding.v1.>", from, wire.DecodeDelta, fn)
}

// LastDelta is the last sequence of FINDINGS; 0 when nothing was ever stored. Note it, read States,
// then watch from the next: nothing is missed.
func (b *Bus) LastDelta(ctx context.Context) (uint64, error) {
	_, last, err := b.bounds(ctx, b.name(streamFindings))
	return last, err
}
