package bus

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/wire"
)

// mirrorToken stands behind the root in the subjects of the JSON mirror.
const mirrorToken = "json"

// consumerMirror is the mirror's consumer of each stream that is mirrored, shared by all replicas.
const consumerMirror = "mirror"

const mirrorPull = 64

// Mirror publishes what FINDINGS, SCANS and SYSTEM store from now on as protobuf JSON on core NATS, on the
// same subject with "json" behind the root, until ctx ends. It is for those who have nothing but `nats sub`:
// who does not listen at the moment misses it. Replicas share the work, so each message comes once, but for
// one that was published when its mirror died.
func (b *Bus) Mirror(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, of := range []struct {
		stream, filter string
		json           func([]byte) ([]byte, error)
	}{
		{streamFindings, "finding.>", deltaJSON},
		{streamScans, "scan.v1.>", scanJSON},
		{streamSystem, "system.v1.>", noticeJSON},
	} {
		g.Go(func() error { return b.mirrorAgain(ctx, of.stream, of.filter, of.json) })
	}
	return g.Wait()
}

// mirrorAgain does it for one stream, whatever becomes of server and consumer.
func (b *Bus) mirrorAgain(ctx context.Context, stream, filter string, toJSON func([]byte) ([]byte, error)) error {
	for {
		err := b.mirror(ctx, stream, filter, toJSON)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end that was asked for
		}
		b.log.WarnContext(ctx, "mirror stream again", "stream", stream, "error", err)
		if err := sleep(ctx, followAgain); err != nil {
			return nil //nolint:nilerr // likewise
		}
	}
}

func (b *Bus) mirror(ctx context.Context, stream, filter string, toJSON func([]byte) ([]byte, error)) error {
	cfg := b.consumerConfig(consumer{name: consumerMirror, filter: filter})
	cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	c, err := b.js.Consumer(ctx, b.name(stream), consumerMirror)
	if err != nil {
		if c, err = b.js.CreateConsumer(ctx, b.name(stream), cfg); err != nil {
			return storeError("create consumer "+consumerMirror, err)
		}
	}
	iter, err := c.Messages(jetstream.PullMaxMessages(mirrorPull))
	if err != nil {
		return storeError("pull from "+consumerMirror, err)
	}
	defer iter.Stop()
	for {
		m, err := iter.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		body, err := toJSON(m.Data())
		if err != nil { // it would stop the mirror for good
			b.log.ErrorContext(ctx, "mirror message failed", "stream", stream, "subject", m.Subject(), "error", err)
		} else {
			out := nats.NewMsg(b.subject(mirrorToken) + strings.TrimPrefix(m.Subject(), b.cfg.Root))
			out.Header.Set(headerContentType, "application/json")
			out.Data = body
			if err := b.do(ctx, "mirror "+stream, func(context.Context) error { return b.nc.PublishMsg(out) }); err != nil {
				return fmt.Errorf("bus: publish on %s: %w", out.Subject, err)
			}
		}
		if err := m.Ack(); err != nil {
			return fmt.Errorf("bus: acknowledge mirrored message: %w", err)
		}
	}
}

func deltaJSON(b []byte) ([]byte, error) {
	d, err := wire.DecodeDelta(b)
	if err != nil {
		return nil, err
	}
	return wire.DeltaJSON(d)
}

func scanJSON(b []byte) ([]byte, error) {
	s, err := wire.DecodeScan(b)
	if err != nil {
		return nil, err
	}
	return wire.ScanJSON(s)
}

func noticeJSON(b []byte) ([]byte, error) {
	n, err := wire.DecodeNotice(b)
	if err != nil {
		return nil, err
	}
	return wire.NoticeJSON(n)
}
