package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// PublishScan stores the outcome of an evaluation in SCANS, once for each scan id.
func (b *Bus) PublishScan(ctx context.Context, s finding.Scan) error {
	body, err := wire.EncodeScan(s)
	if err != nil {
		return fmt.Errorf("bus: publish scan %s: %w", s.ID, err)
	}
	m := message(ctx, b.subjectOf("scan.v1."+Token(string(s.Outcome)), scanTokens(s)...), wire.TypeScan, body)
	_, err = b.publish(ctx, streamScans, m, jetstream.WithMsgID(s.ID))
	return storeError("publish "+streamScans, err)
}

// scanTokens is scope and leaf of an evaluation. Without a track, what was asked for stands in its
// place: the digest, or the tag while there is none.
func scanTokens(s finding.Scan) []string {
	if s.Asset != nil {
		return assetTokens(*s.Asset)
	}
	a := finding.Asset{Host: s.Reference.Host, Repository: s.Reference.Repository, Track: string(s.Reference.Digest), Platform: s.Platform}
	if a.Track == "" {
		a.Track = s.Reference.Tag
	}
	return assetTokens(a)
}

// WatchScans calls fn with each scan from a sequence of SCANS on (0: only new ones, 1: all that are
// kept) until ctx ends, which is no error, or fn fails.
func (b *Bus) WatchScans(ctx context.Context, from uint64, fn func(seq uint64, s finding.Scan) error) error {
	return watch(ctx, b, streamScans, "scan.v1.>", from, wire.DecodeScan, fn)
}

// LastScan is the sequence of the newest scan that SCANS has held; 0 when there was none.
func (b *Bus) LastScan(ctx context.Context) (uint64, error) {
	_, last, err := b.bounds(ctx, b.name(streamScans))
	return last, err
}
