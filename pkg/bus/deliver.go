package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/reason"
)

const (
	// settleTimeout bounds what follows a handler, also when its context has ended.
	settleTimeout = 10 * time.Second
	// The longest delays, in units of Config.Backoff. Being busy is no failure: the job that is in the
	// way is usually a matter of seconds.
	maxBackoff     = 300
	maxBusyBackoff = 10
	// maxHoldBack: a job that waits for the one it replaced is in no hurry, that one does its work.
	maxHoldBack = 2
	// handBack is how long a handler may take to notice that its context has ended. Then its message is
	// handed back without its answer: the process may be killed before there is one, and that would count
	// as an attempt that took it along.
	handBack = 2 * time.Second
)

// Outcomes of a delivery, as the metrics count them.
const (
	outcomeOK       = "ok"
	outcomeReplaced = "replaced" // a newer job on the key does it
	outcomeHeld     = "held"     // the job it replaces is still running
	outcomeRetry    = "retry"
	outcomePaused   = "paused" // its registry or receiver is; it was not tried
	outcomeBusy     = "busy"
	outcomeRefuse   = "refuse"
	outcomePoison   = "poison"
	outcomePanic    = "panic"
	outcomeDrained  = "drained"
)

var (
	// errPanic marks the error that a handler's panic became.
	errPanic = errors.New("handler panicked")
	// errLeft is the answer of a handler that goes on although its context has ended.
	errLeft = errors.New("handler did not end with its context")
)

// deliver runs the handler on one message and settles it. stopping is closed before ctx ends. A handler
// that does not end with ctx is left to running.
func (b *Bus) deliver(ctx context.Context, stopping <-chan struct{}, q queue, m *nats.Msg, ackWait time.Duration, h handler, running *sync.WaitGroup) {
	meta, err := m.Metadata()
	if err != nil { // the server sends none without; there is nothing to acknowledge
		b.log.ErrorContext(ctx, "read delivery failed", slog.String("queue", q.op), slog.Any("error", err))
		return
	}
	d := Delivery{Sequence: meta.Sequence.Stream, Attempt: int(meta.NumDelivered), Queued: meta.Timestamp, Stopping: stopping}
	d.Failed = d.Attempt - 1
	ctx, span := b.tracer.Start(extract(ctx, m.Header), "bus.consume "+q.op,
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attribute.Int64("messaging.nats.sequence", int64(d.Sequence)), attribute.Int("messaging.nats.attempt", d.Attempt)))
	defer span.End()

	start := time.Now()
	b.metrics.inFlight.WithLabelValues(q.op).Inc()
	defer b.metrics.inFlight.WithLabelValues(q.op).Dec()
	stop := b.keepAlive(m, ackWait)
	defer stop()

	outcome, err := b.attempt(ctx, q, m, d, h, running)
	b.metrics.handled.WithLabelValues(q.op, outcome).Inc()
	b.metrics.seconds.WithLabelValues(q.op).Observe(time.Since(start).Seconds())
	span.SetAttributes(attribute.String("outcome", outcome))
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
}

// keepAlive tells the server three times per AckWait that somebody works on the message.
func (b *Bus) keepAlive(m *nats.Msg, ackWait time.Duration) (stop func()) {
	done := make(chan struct{})
	go func() {
		t := time.NewTicker(ackWait / 3)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				_ = m.InProgress() // one that does not arrive is followed by the next
			case <-b.died:
				return
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// attempt runs the handler, if it is this message's turn, and settles the message by its error, which
// it returns for the span.
func (b *Bus) attempt(ctx context.Context, q queue, m *nats.Msg, d Delivery, h handler, running *sync.WaitGroup) (string, error) {
	j, isJob := parseJob(b.cfg.Root, m.Subject)
	var r records
	var err error
	if isJob {
		var t turn
		switch t, err = b.turnOf(ctx, j, d.Sequence, m.Header); {
		case err != nil:
		case t == stepAside:
			return outcomeReplaced, b.ack(ctx, q, m)
		case t == holdBack:
			return outcomeHeld, b.nak(ctx, q, m, b.backoff(d.Attempt, maxHoldBack))
		default:
			r, err = b.openRecords(ctx, j, q.attempts, &d)
		}
	}
	if err == nil {
		err = handle(ctx, h, m.Data, d, running)
	}
	if b.dead.Load() {
		return outcomeDrained, errDead
	}
	return b.settle(ctx, q, m, d, r, err), err
}

// handle waits for the handler, but not for one that does not notice that its context has ended.
func handle(ctx context.Context, h handler, body []byte, d Delivery, running *sync.WaitGroup) error {
	done := make(chan error, 1)
	running.Go(func() { done <- run(ctx, h, body, d) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	late := time.NewTimer(handBack)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return errLeft
	}
}

// run calls the handler and turns its panic into an error.
func run(ctx context.Context, h handler, body []byte, d Delivery) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack())
		}
	}()
	return h(ctx, body, d)
}

// settle acknowledges, hands back or buries a message. It is bounded but not cut short by the end of
// ctx: what was done must be said.
func (b *Bus) settle(ctx context.Context, q queue, m *nats.Msg, d Delivery, r records, err error) string {
	ended := ctx.Err() != nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	log := b.log.With(slog.String("queue", q.op), slog.Uint64("sequence", d.Sequence), slog.Int("attempt", d.Attempt))

	e := reason.Of(err)
	outcome, delay := outcomeOK, time.Duration(0)
	switch {
	case err == nil:
	case e.Kind != reason.Retry:
		outcome = outcomeRefuse
		if e.Kind == reason.Poison {
			outcome = outcomePoison
		}
		log.WarnContext(ctx, "message refused", slog.String("reason", string(e.Code)), slog.Any("error", err))
		if lerr := b.bury(ctx, q, m, d, e); lerr != nil {
			log.ErrorContext(ctx, "bury message failed", slog.Any("error", lerr))
			outcome, delay = outcomeRetry, b.backoff(d.Failed+1, maxBackoff)
		}
	case ended, errors.Is(err, ErrStopping):
		outcome = outcomeDrained
	case e.Code == reason.RegistryPaused || e.Code == reason.ReceiverPaused:
		outcome, delay = outcomePaused, e.RetryAfter
		log.DebugContext(ctx, "message handed back", slog.Duration("delay", delay), slog.Any("error", err))
	case errors.Is(err, ErrBusy):
		outcome, delay = outcomeBusy, b.backoff(d.Attempt, maxBusyBackoff)
	case errors.Is(err, errPanic):
		outcome, delay = outcomePanic, b.backoff(d.Failed+1, maxBackoff)
		log.ErrorContext(ctx, "handler panicked", slog.Any("error", err))
	default:
		tries := d.Failed + 1
		if e.Code.Untried() {
			tries = d.Attempt // no failure is counted, and yet it need not be asked as often as at first
		}
		outcome, delay = outcomeRetry, b.backoff(tries, maxBackoff)
		if e.RetryAfter > 0 {
			delay = e.RetryAfter
		}
		level := slog.LevelWarn
		if e.Code == reason.Internal {
			level = slog.LevelError
		}
		log.Log(ctx, level, "handle message failed, will retry",
			slog.String("reason", string(e.Code)), slog.Duration("delay", delay), slog.Any("error", err))
	}

	over := outcome == outcomeOK || outcome == outcomeRefuse || outcome == outcomePoison
	failed := outcome == outcomePanic || outcome == outcomeRetry && !e.Code.Untried()
	if aerr := b.closeRecords(ctx, r, d, over, failed); aerr != nil {
		log.WarnContext(ctx, "note attempt failed", slog.Any("error", aerr))
	}
	var serr error
	switch {
	case outcome == outcomeOK:
		serr = b.ack(ctx, q, m)
	case over:
		serr = b.do(ctx, "term "+q.op, func(context.Context) error { return m.Term() })
	default:
		serr = b.nak(ctx, q, m, delay)
	}
	if serr != nil && !b.dead.Load() { // the message comes back, and every handler is idempotent
		log.WarnContext(ctx, "settle message failed", slog.String("outcome", outcome), slog.Any("error", serr))
	}
	return outcome
}

// ack acknowledges. On WORK it waits until the server has removed the job: its key is published again
// next, and would be refused a moment longer.
func (b *Bus) ack(ctx context.Context, q queue, m *nats.Msg) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	return b.do(ctx, "ack "+q.op, func(ctx context.Context) error {
		if q.stream == streamWork {
			return m.AckSync(nats.Context(ctx))
		}
		return m.Ack()
	})
}

func (b *Bus) nak(ctx context.Context, q queue, m *nats.Msg, delay time.Duration) error {
	return b.do(ctx, "nak "+q.op, func(context.Context) error {
		if delay > 0 {
			return m.NakWithDelay(delay)
		}
		return m.Nak()
	})
}

// backoff doubles with each attempt, up to limit times the first delay, and is spread by a fifth, so
// that what failed together does not come back together.
func (b *Bus) backoff(attempt, limit int) time.Duration {
	d := b.cfg.Backoff
	for range attempt - 1 {
		if d *= 2; d >= b.cfg.Backoff*time.Duration(limit) {
			d = b.cfg.Backoff * time.Duration(limit)
			break
		}
	}
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}
