package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/work"
)

// states is a bus.Health that tells each change.
type states chan state

type state struct {
	part string
	err  error
}

func (s states) Set(part string, err error) { s <- state{part, err} }

func TestHealthFollowsConsuming(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	health := make(states, 100)
	b := bustest.On(t, bustest.Connect(t, s), bus.Config{}, bus.Options{Health: health})
	stop := background(t, func(ctx context.Context) error {
		return b.ConsumeMatches(ctx, 1, func(context.Context, work.MatchJob, bus.Delivery) error { return nil })
	})
	next := func(well bool) {
		t.Helper()
		select {
		case got := <-health:
			if got.part != "WORK.match" || (got.err == nil) != well {
				t.Fatalf("health %+v, want well: %v", got, well)
			}
		case <-time.After(patience):
			t.Fatalf("health never told, want well: %v", well)
		}
	}
	next(true)
	must(t, s.DisableJetStream()) // it is there and answers nobody
	next(false)
	stop()
	next(false)
}
