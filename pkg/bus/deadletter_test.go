package bus_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/work"
)

// letter waits for the only dead letter.
func letter(t *testing.T, b *bus.Bus) (seq uint64, l system.DeadLetter) {
	t.Helper()
	eventually(t, "a dead letter", func() bool {
		n := 0
		must(t, b.DeadLetters(t.Context(), func(s uint64, found system.DeadLetter) error {
			n, seq, l = n+1, s, found
			return nil
		}))
		if n > 1 {
			t.Fatalf("%d dead letters", n)
		}
		return n == 1
	})
	return seq, l
}

func TestRefusedJobs(t *testing.T) {
	t.Parallel()
	for _, kind := range []reason.Kind{reason.Refuse, reason.Poison} {
		b := bustest.New(t, bus.Config{}, bus.Options{})
		notices := make(chan system.Notice, 10)
		background(t, func(ctx context.Context) error {
			return b.WatchSystem(ctx, 1, func(_ uint64, n system.Notice) error {
				notices <- n
				return nil
			})
		})
		job := layerJob("a", work.Push, work.S)
		must(t, b.PublishLayer(t.Context(), job))
		refuse := true
		runs := make(chan int, 10)
		layers(t, b, 1, func(_ context.Context, _ work.LayerJob, d bus.Delivery) error {
			runs <- d.Attempt
			if refuse {
				return &reason.Error{Kind: kind, Code: reason.Truncated, Err: errors.New("ends after 3 bytes"), Verdicts: []string{"v1", "v2"}}
			}
			return nil
		})
		receive(t, "the job", runs)
		seq, l := letter(t, b)
		idle(t, b) // terminated: the key is free
		if l.Service != "scanner" || l.Reason != reason.Truncated || l.Detail != "truncated: ends after 3 bytes" ||
			!slices.Equal(l.Verdicts, []string{"v1", "v2"}) || l.Attempts != 1 || len(l.Data) == 0 {
			t.Errorf("dead letter %+v", l)
		}
		if n := receive(t, "a notice", notices); n.Kind != system.DeadLettered || n.Subject != l.Subject {
			t.Errorf("notice %+v", n)
		}
		if one, err := b.DeadLetter(t.Context(), seq); err != nil || one.ID != l.ID {
			t.Errorf("show: %+v, %v", one, err)
		}

		// Driven again: verdicts are forgotten first, then the same job runs, and the letter is gone.
		refuse = false
		var forgotten []string
		must(t, b.Redrive(t.Context(), seq, func(_ context.Context, keys ...string) error {
			if len(runs) > 0 {
				t.Error("the job ran before its verdicts were forgotten")
			}
			forgotten = append(forgotten, keys...)
			return nil
		}))
		if !slices.Equal(forgotten, []string{"v1", "v2"}) {
			t.Errorf("forgotten: %v", forgotten)
		}
		if attempt := receive(t, "the job again", runs); attempt != 1 {
			t.Errorf("attempt %d, want 1: it is a new message", attempt)
		}
		idle(t, b)
		if err := b.Redrive(t.Context(), seq, nil); !errors.Is(err, bus.ErrNotFound) {
			t.Errorf("driven twice: %v", err)
		}
	}
}

func TestRedriveWhileTheKeyIsBusyKeepsTheLetter(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	job := layerJob("a", work.Push, work.S)
	must(t, b.PublishLayer(t.Context(), job))
	stop := layers(t, b, 1, func(context.Context, work.LayerJob, bus.Delivery) error {
		return reason.Refusef(reason.Truncated, "short")
	})
	seq, _ := letter(t, b)
	idle(t, b)
	stop()
	must(t, b.PublishLayer(t.Context(), job))
	if err := b.Redrive(t.Context(), seq, nil); !errors.Is(err, bus.ErrBusy) {
		t.Errorf("redrive: %v, want ErrBusy", err)
	}
	must(t, b.DropDeadLetter(t.Context(), seq))
	if err := b.DropDeadLetter(t.Context(), seq); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("dropped twice: %v", err)
	}
}

// An event that is driven again is not swallowed by its own id.
func TestRedriveOfAnEvent(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	_, err := b.PublishEvent(t.Context(), pushEvent("a"))
	must(t, err)
	seen := make(chan uint64, 10)
	background(t, func(ctx context.Context) error {
		return b.ConsumeEvents(ctx, 1, func(_ context.Context, _ event.Event, d bus.Delivery) error {
			seen <- d.Sequence
			if d.Sequence == 1 {
				return reason.Refusef(reason.BadRequest, "no")
			}
			return nil
		})
	})
	receive(t, "the event", seen)
	seq, l := letter(t, b)
	if l.Service != "layercache" {
		t.Errorf("letter of %q", l.Service)
	}
	must(t, b.Redrive(t.Context(), seq, nil))
	if again := receive(t, "the event again", seen); again != 2 {
		t.Errorf("sequence %d, want a new message", again)
	}
}

// Bytes that are no job at all go the same way, and never reach a handler.
func TestMalformedMessages(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	js, err := jetstream.New(nc)
	must(t, err)
	m := nats.NewMsg("pratique.work.push.layer.default.s.abc")
	m.Data = []byte("\xff\xff nothing of ours")
	_, err = js.PublishMsg(t.Context(), m)
	must(t, err)
	layers(t, b, 1, func(context.Context, work.LayerJob, bus.Delivery) error {
		t.Error("a handler got it")
		return nil
	})
	if _, l := letter(t, b); l.Reason != reason.Malformed || string(l.Data) != string(m.Data) {
		t.Errorf("dead letter %+v", l)
	}
	idle(t, b)
}

// Dying anywhere between the refusal and the end of the message leaves one letter, not two.
func TestBuryingIsIdempotent(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"publish DEADLETTER", "publish SYSTEM", "term WORK.layer"} {
		for _, phase := range []bus.Phase{bus.Before, bus.After} {
			s := bustest.StartServer(t)
			cfg := bus.Config{AckWait: 200 * time.Millisecond}
			dying := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{Fault: killAt(op, phase)})
			must(t, dying.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
			refuse := func(context.Context, work.LayerJob, bus.Delivery) error {
				return reason.Refusef(reason.Truncated, "short")
			}
			if err := dying.ConsumeLayers(t.Context(), work.DefaultPool, 1, refuse); err == nil {
				t.Errorf("%s %s: nobody died", phase, op)
			}
			b := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{})
			layers(t, b, 1, refuse)
			idle(t, b)
			letter(t, b)
		}
	}
}
