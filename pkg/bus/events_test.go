package bus_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/reason"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	first, err := b.PublishEvent(t.Context(), pushEvent("a"))
	must(t, err)
	second, err := b.PublishEvent(t.Context(), pushEvent("b"))
	must(t, err)
	again, err := b.PublishEvent(t.Context(), pushEvent("a"))
	must(t, err)
	if again != first || second == first {
		t.Errorf("sequences %d, %d, and %d for the first again", first, second, again)
	}
	got, err := b.Event(t.Context(), second)
	must(t, err)
	if diff := cmp.Diff(pushEvent("b"), got); diff != "" {
		t.Errorf("event changed on its way (-want +got):\n%s", diff)
	}
	if _, err := b.Event(t.Context(), 99); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("absent event: %v", err)
	}

	seen := make(chan uint64, 10)
	background(t, func(ctx context.Context) error {
		return b.ConsumeEvents(ctx, 1, func(_ context.Context, e event.Event, d bus.Delivery) error {
			seen <- d.Sequence
			return nil
		})
	})
	if one, two := receive(t, "first event", seen), receive(t, "second event", seen); one != first || two != second {
		t.Errorf("delivered %d, %d, want %d, %d", one, two, first, second)
	}
}

// A full EVENTS refuses, so that ingest can answer 503; it never drops what it has accepted.
func TestEventsWhenFull(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{MaxBytes: 64 << 10}, bus.Options{})
	big := pushEvent("0")
	big.Actor = strings.Repeat("x", 10<<10)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		big.ID = string(rune('a' + i))
		_, err = b.PublishEvent(t.Context(), big)
	}
	if e := reason.Of(err); err == nil || e.Kind != reason.Retry || e.Code != reason.BusUnavailable {
		t.Fatalf("full stream: %v", err)
	}
	if _, err := b.Event(t.Context(), 1); err != nil {
		t.Errorf("the first event is gone: %v", err)
	}
}
