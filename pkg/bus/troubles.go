package bus

import (
	"context"
	"errors"
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
	behind, err := b.behind(ctx)
	return append(all, behind...), err
}

// nearlyGone is how much of a stream's age or size limit, in percent, is behind a message that goes soon.
const nearlyGone = 80

// behind tells of subscribers before what they have not read expires.
func (b *Bus) behind(ctx context.Context) ([]system.Notice, error) {
	s, err := b.js.Stream(ctx, b.name(streamFindings))
	if err != nil {
		return nil, storeError("ask "+streamFindings, err)
	}
	var all []system.Notice
	told := map[string]bool{}
	err = b.eachConsumer(ctx, b.name(streamFindings), func(c *jetstream.ConsumerInfo) error {
		who, ok := subscriberOf(c)
		if !ok || told[who.Name] || c.NumPending == 0 && c.NumAckPending == 0 {
			return nil
		}
		next, err := b.unread(ctx, s, c)
		if err != nil || next == nil || !b.soonGone(s.CachedInfo(), next) {
			return err
		}
		told[who.Name] = true
		all = append(all, b.trouble(system.SubscriberBehind, who.Name, fmt.Sprintf(
			"subscriber %s has not read %d findings, the oldest of %s, which expires soon: start it, or remove it (pratique subscriber remove %s); one that missed some takes the snapshot again",
			who.Name, c.NumPending+uint64(max(c.NumAckPending, 0)), next.Time.UTC().Format(time.RFC3339), who.Name)))
		return nil
	})
	return all, err
}

// unread is the first message that a consumer has not acknowledged; nil when there is none any more.
func (b *Bus) unread(ctx context.Context, s jetstream.Stream, c *jetstream.ConsumerInfo) (*jetstream.RawStreamMsg, error) {
	filters := c.Config.FilterSubjects
	if c.Config.FilterSubject != "" {
		filters = []string{c.Config.FilterSubject}
	}
	var first *jetstream.RawStreamMsg
	for _, filter := range filters {
		m, err := s.GetMsg(ctx, max(c.AckFloor.Stream+1, c.Config.OptStartSeq), jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, storeError("read "+streamFindings, err)
		}
		if first == nil || m.Sequence < first.Sequence {
			first = m
		}
	}
	return first, nil
}

// soonGone: the message is old for what the stream keeps, or among its oldest while the stream is nearly full.
func (b *Bus) soonGone(s *jetstream.StreamInfo, m *jetstream.RawStreamMsg) bool {
	age, limit := b.now().Sub(m.Time), s.Config.MaxAge
	if limit > 0 && age >= limit/100*nearlyGone {
		return true
	}
	size, held := s.Config.MaxBytes, s.State.LastSeq-s.State.FirstSeq
	full := size > 0 && s.State.Bytes >= uint64(size)/100*nearlyGone
	return full && m.Sequence < s.State.LastSeq-held/100*nearlyGone
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
// as soon as it is handed out. One that is paused hands out nothing, without a word to whoever asks.
func (b *Bus) misconfigured(c *jetstream.ConsumerInfo) (system.Notice, bool) {
	_, ours := c.Config.Metadata[metadataSchema]
	if ours && c.Paused {
		return b.trouble(system.ConsumerMisconfigured, c.Stream+"/"+c.Name, fmt.Sprintf(
			"consumer %s of %s is paused for another %s: its jobs wait; nats consumer resume %s %s",
			c.Name, c.Stream, c.PauseRemaining.Round(time.Second), c.Stream, c.Name)), true
	}
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
