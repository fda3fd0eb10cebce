package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/key"
	"github.com/pratique-sec/pratique/pkg/system"
)

// nearlyFull is the share of a size limit, in percent, from which a stream is told of. One that drops
// its oldest stays just below the limit: how far is up to the size of its messages.
const nearlyFull = 95

// Troubles looks at what the server keeps for this installation, and answers what somebody should look
// at: streams and buckets that are full, and consumers that were changed in a way that loses jobs. A
// trouble that lasts has the same id for a day.
func (b *Bus) Troubles(ctx context.Context) ([]system.Notice, error) {
	var all []system.Notice
	for _, want := range b.streamConfigs() {
		s, err := b.js.Stream(ctx, want.Name)
		if err != nil {
			return nil, storeError("ask "+want.Name, err)
		}
		if n, full := b.full(s.CachedInfo()); full {
			all = append(all, n)
		}
	}
	for _, name := range []string{b.name(streamEvents), b.name(streamWork)} {
		s, err := b.stream(ctx, name)
		if err != nil {
			return nil, storeError("open "+name, err)
		}
		list := s.ListConsumers(ctx)
		for c := range list.Info() {
			if n, wrong := b.misconfigured(c); wrong {
				all = append(all, n)
			}
		}
		if err := list.Err(); err != nil {
			return nil, storeError("list consumers of "+name, err)
		}
	}
	return all, nil
}

// full tells of a stream by its limit as it is in the server, which may be an operator's.
func (b *Bus) full(s *jetstream.StreamInfo) (system.Notice, bool) {
	limit := s.Config.MaxBytes
	if limit <= 0 || s.State.Bytes < uint64(limit)/100*nearlyFull {
		return system.Notice{}, false
	}
	then := "it drops its oldest"
	if s.Config.Discard == refuses {
		then = "when it is full it takes nothing more"
	}
	return b.trouble(system.StreamFull, s.Config.Name, fmt.Sprintf(
		"%s holds %d of its %d bytes, and %s: give it more (nats stream edit %s --max-bytes=…)",
		s.Config.Name, s.State.Bytes, limit, then, s.Config.Name)), true
}

// misconfigured tells of a consumer of ours whose jobs can get lost: with a limit of deliveries a job that
// reached it is never delivered again and blocks its key, and without explicit acknowledgement a job is gone
// as soon as it is handed out.
func (b *Bus) misconfigured(c *jetstream.ConsumerInfo) (system.Notice, bool) {
	_, ours := c.Config.Metadata[metadataSchema]
	if !ours || c.Config.MaxDeliver == -1 && c.Config.AckPolicy == jetstream.AckExplicitPolicy {
		return system.Notice{}, false
	}
	return b.trouble(system.ConsumerMisconfigured, c.Stream+"/"+c.Name, fmt.Sprintf(
		"consumer %s of %s has max deliveries %d and acknowledgement %q instead of -1 and \"explicit\": it loses jobs; set them back, or delete it to have it made again",
		c.Name, c.Stream, c.Config.MaxDeliver, c.Config.AckPolicy)), true
}

// trouble is a notice that is one for a whole day.
func (b *Bus) trouble(k system.Kind, subject, message string) system.Notice {
	now := b.now().UTC()
	return system.Notice{
		ID:   key.Of("notice."+string(k)+".v1", subject, now.Format(time.DateOnly)),
		Kind: k, Subject: subject, Message: message, At: now,
	}
}
