package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/key"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// maxDetail bounds what a letter says about its error, in bytes.
const maxDetail = 4 << 10

// bury stores a refused message as a dead letter and tells SYSTEM. Doing it again changes nothing.
func (b *Bus) bury(ctx context.Context, q queue, m *nats.Msg, d Delivery, e *reason.Error) error {
	l, seq, err := b.storeDeadLetter(ctx, q, m, d, e)
	if err != nil {
		return err
	}
	return b.PublishSystem(ctx, system.Notice{
		ID: l.ID, Kind: system.DeadLettered, Subject: l.Subject, At: l.At,
		Message: fmt.Sprintf("%s refused a message (%s): see `pratique deadletter show %d`", l.Service, l.Reason, seq),
	})
}

// storeDeadLetter stores a refused message as a dead letter. Doing it again changes nothing.
func (b *Bus) storeDeadLetter(ctx context.Context, q queue, m *nats.Msg, d Delivery, e *reason.Error) (system.DeadLetter, uint64, error) {
	l := system.DeadLetter{
		ID:      key.Of("deadletter.v1", m.Subject, strconv.FormatUint(d.Sequence, 10), string(e.Code)),
		Service: q.service, Reason: e.Code, Detail: strings.ToValidUTF8(e.Error(), "\uFFFD"),
		Subject: m.Subject, Headers: m.Header, Data: m.Data,
		Verdicts: e.Verdicts, Attempts: d.Attempt, At: b.now().UTC(),
	}
	if len(l.Detail) > maxDetail {
		l.Detail = strings.ToValidUTF8(l.Detail[:maxDetail], "")
	}
	if s := trace.SpanContextFromContext(ctx); s.HasTraceID() {
		l.TraceID = s.TraceID().String()
	}
	seq, err := b.publishDeadLetter(ctx, l)
	if errors.Is(err, nats.ErrMaxPayload) {
		// A message at the server's limit does not fit into a letter. Keeping only what was said about
		// it beats blocking its key for good.
		l.Data = nil
		seq, err = b.publishDeadLetter(ctx, l)
	}
	return l, seq, err
}

func (b *Bus) publishDeadLetter(ctx context.Context, l system.DeadLetter) (uint64, error) {
	body, err := wire.EncodeDeadLetter(l)
	if err != nil {
		return 0, fmt.Errorf("bus: dead letter: %w", err)
	}
	subject := b.subject("deadletter", Token(l.Service), Token(string(l.Reason)))
	ack, err := b.publish(ctx, streamDeadLetters, message(ctx, subject, wire.TypeDeadLetter, body), jetstream.WithMsgID(l.ID))
	if err != nil {
		return 0, storeError("publish dead letter", err)
	}
	return ack.Sequence, nil
}

// DeadLetters calls fn with every dead letter, oldest first, until fn fails. A letter that can not be
// read is logged and passed over: DropDeadLetter takes it away.
func (b *Bus) DeadLetters(ctx context.Context, fn func(seq uint64, l system.DeadLetter) error) error {
	return b.snapshot(ctx, b.name(streamDeadLetters), b.subject("deadletter", ">"), false, func(m jetstream.Msg, seq uint64) error {
		l, err := wire.DecodeDeadLetter(m.Data())
		if err != nil {
			b.log.ErrorContext(ctx, "read dead letter failed", slog.Uint64("sequence", seq), slog.Any("error", err))
			return nil
		}
		return fn(seq, l)
	})
}

// DeadLetter reads one. ErrNotFound.
func (b *Bus) DeadLetter(ctx context.Context, seq uint64) (system.DeadLetter, error) {
	raw, err := b.rawMessage(ctx, streamDeadLetters, seq)
	if err != nil {
		return system.DeadLetter{}, err
	}
	return wire.DecodeDeadLetter(raw.Data)
}

// Redrive publishes a letter's original message again, on its subject and under the same guard, after
// forget has dropped the remembered verdicts that would refuse it at once; then the letter is gone.
// ErrBusy: a job with the key is there; the letter stays. Dying in between repeats the message, which
// every handler bears.
func (b *Bus) Redrive(ctx context.Context, seq uint64, forget func(ctx context.Context, keys ...string) error) error {
	l, err := b.DeadLetter(ctx, seq)
	if err != nil {
		return err
	}
	if len(l.Data) == 0 {
		return reason.Refusef(reason.OverBound, "bus: dead letter %d holds no message: the original was too large to keep", seq)
	}
	m := nats.NewMsg(l.Subject)
	m.Data = l.Data
	for name, values := range l.Headers {
		// Ids and guards of the first publish would swallow or refuse this one.
		if !strings.HasPrefix(name, "Nats-") && name != headerReplaces {
			m.Header[name] = slices.Clone(values)
		}
	}
	j, isJob := parseJob(b.cfg.Root, l.Subject)
	isEvent := strings.HasPrefix(l.Subject, b.subject("event")+".")
	if !isJob && !isEvent {
		return reason.Refusef(reason.Malformed, "bus: dead letter %d: nothing takes messages on %q in this installation", seq, l.Subject)
	}
	if forget != nil && len(l.Verdicts) > 0 {
		if err := forget(ctx, l.Verdicts...); err != nil {
			return fmt.Errorf("bus: redrive dead letter %d: forget verdicts: %w", seq, err)
		}
	}
	if isJob {
		err = b.guarded(ctx, j, m, 0)
	} else if _, err = b.publish(ctx, streamEvents, m); err != nil {
		err = storeError("publish event", err)
	}
	if err != nil {
		return err
	}
	return b.DropDeadLetter(ctx, seq)
}

// DropDeadLetter removes a letter for good. ErrNotFound.
func (b *Bus) DropDeadLetter(ctx context.Context, seq uint64) error {
	if _, err := b.rawMessage(ctx, streamDeadLetters, seq); err != nil {
		return err
	}
	s, err := b.stream(ctx, b.name(streamDeadLetters))
	if err != nil {
		return storeError("open "+streamDeadLetters, err)
	}
	err = b.do(ctx, "delete "+streamDeadLetters, func(ctx context.Context) error { return s.DeleteMsg(ctx, seq) })
	return storeError("drop dead letter", err)
}
