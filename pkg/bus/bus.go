// Package bus is the only place that knows JetStream: streams, subjects, consumers, acknowledgements,
// buckets. It speaks the pipeline's own values (event, work, finding, …) to everybody else, so that a
// handler never sees a message. What JetStream really does, and why each call is as it is, is written
// beside the call.
//
// Promises: a publish that returned nil is stored; a handler that returned nil has its message
// acknowledged after everything it published; a message whose handler failed comes back or becomes a
// dead letter. It keeps no state that a restart would miss.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/work"
)

var (
	// ErrBusy: a job with this key is queued or being worked on, in some lane. It means "one was there
	// a moment ago", never "somebody will do it": keep your own message and ask again.
	ErrBusy = errors.New("bus: a job with this key is already there")
	// ErrConflict: the record changed since it was read. Read again.
	ErrConflict = errors.New("bus: record was changed by somebody else")
	// ErrStopping is what a handler answers that saw Delivery.Stopping and gives its message back for
	// somebody else to begin again. It is no failure.
	ErrStopping = errors.New("bus: this process stops")
	// ErrNotFound: no such record or message.
	ErrNotFound = errors.New("bus: not found")
)

// Config of a bus. The zero value is a single-node installation with the root "pratique".
type Config struct {
	Root     string // first token of every subject; several installations can share one NATS
	Replicas int    // 1 on one node, 3 on three

	// AckWait is how long a message may go without a sign of life before it is given to somebody else;
	// a running handler gives one every third of it.
	AckWait time.Duration
	// Poll is how often an idle consumer looks for work although nothing woke it (a Nak wakes nobody).
	Poll time.Duration
	// Backoff is the delay before the second attempt at a message whose handler failed; it doubles with
	// each further one, up to maxBackoff times as long.
	Backoff time.Duration
	// Drain is how long handlers may go on after the end of the context of their Consume call. What has
	// not ended by then is handed back. At 0 they are told to end at once. The process that was told to
	// stop must live a few seconds longer.
	Drain time.Duration
	// Lease is how long nobody leads after a leader died without a word (15 s). See Lead.
	Lease time.Duration
	// MaxBytes is the size limit of each stream and bucket that has no smaller one in streams.go. The
	// server reserves every limit when it makes the stream: its own store limit must be above the sum,
	// which is 12 times this and some 6 GiB more (at most 19 times, where this is small).
	MaxBytes int64
	// Pools are the scanner pools that layer jobs can be published to; DefaultPool when empty.
	Pools []string
}

func (c Config) withDefaults() Config {
	if c.Root == "" {
		c.Root = "pratique"
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.AckWait == 0 {
		c.AckWait = 30 * time.Second
	}
	if c.Poll == 0 {
		c.Poll = time.Second
	}
	if c.Backoff == 0 {
		c.Backoff = time.Second
	}
	if c.Lease == 0 {
		c.Lease = 15 * time.Second
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 4 << 30
	}
	if len(c.Pools) == 0 {
		c.Pools = []string{work.DefaultPool}
	}
	return c
}

// Phase is a moment of an operation at which a process can die.
type Phase string

const (
	Before Phase = "before"
	After  Phase = "after"
)

// Fault is called around every publish, write and acknowledgement. When it returns an error the bus is
// dead, as if its process had been killed at that moment: nothing leaves it any more, acks included.
type Fault func(op string, phase Phase) error

// Health is told how each of Queues is worked on: nil while it is, else why not. Only changes are told.
// *service.Health is one.
type Health interface {
	Set(part string, state error)
}

// Options are what a bus is given beside its configuration. Only Logger is required.
type Options struct {
	Logger     *slog.Logger
	Now        func() time.Time      // nil: time.Now
	Registerer prometheus.Registerer // nil: metrics are counted and shown nowhere
	Tracer     trace.TracerProvider  // nil: OpenTelemetry's global one
	Health     Health                // nil: nobody asks
	Fault      Fault                 // nil: none; tests only
}

// Bus is one process's connection to the pipeline's streams and buckets. Safe for concurrent use.
type Bus struct {
	cfg     Config
	nc      *nats.Conn
	js      jetstream.JetStream
	handles handles
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
	tracer  trace.Tracer
	health  Health
	fault   Fault
	dead    atomic.Bool
	died    chan struct{} // closed when dead becomes true
}

// New wraps a connection. It does not talk to the server: call Provision before anything else.
func New(nc *nats.Conn, cfg Config, opts Options) (*Bus, error) {
	cfg = cfg.withDefaults()
	if !validRoot(cfg.Root) {
		return nil, fmt.Errorf("bus: root %q: only letters, digits, - and _ are allowed", cfg.Root)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	m, err := newMetrics(opts.Registerer)
	if err != nil {
		return nil, fmt.Errorf("bus: register metrics: %w", err)
	}
	b := &Bus{cfg: cfg, nc: nc, js: js, log: opts.Logger, now: opts.Now, metrics: m, health: opts.Health, fault: opts.Fault, died: make(chan struct{})}
	if b.now == nil {
		b.now = time.Now
	}
	if opts.Tracer == nil {
		opts.Tracer = otel.GetTracerProvider()
	}
	b.tracer = opts.Tracer.Tracer("github.com/pratique-sec/pratique/pkg/bus")
	return b, nil
}

// errDead is what every operation of a bus answers after a fault.
var errDead = errors.New("bus: this process is dead (injected fault)")

// do runs one operation that changes something outside this process, between its two faults. Every
// publish, put, delete and ack goes through it: the crash tests enumerate its calls.
func (b *Bus) do(ctx context.Context, op string, fn func(context.Context) error) error {
	if b.dead.Load() {
		return errDead
	}
	if b.fault == nil {
		return fn(ctx)
	}
	if b.fault(op, Before) != nil {
		b.die()
		return errDead
	}
	err := fn(ctx)
	if b.fault(op, After) != nil {
		b.die()
		return errDead
	}
	return err
}

// die makes this bus as good as a killed process.
func (b *Bus) die() {
	if b.dead.CompareAndSwap(false, true) {
		close(b.died)
	}
}

// subject joins tokens below the root.
func (b *Bus) subject(tokens ...string) string {
	s := b.cfg.Root
	for _, t := range tokens {
		s += "." + t
	}
	return s
}

// name is a stream's, bucket's or consumer's name in this installation: the plain one for the default
// root, so that the documented names are true, and a suffixed one for every other.
func (b *Bus) name(n string) string {
	if b.cfg.Root == "pratique" {
		return n
	}
	return n + "_" + b.cfg.Root
}
