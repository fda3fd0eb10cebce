package bus_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
)

// reign is told when a candidate begins to lead; ended is closed when it does not any more.
type reign struct {
	who   int
	ended chan struct{}
}

// candidates run for a role, each on a bus of its own.
func candidates(t *testing.T, buses ...*bus.Bus) (reigns chan reign, stop []func()) {
	t.Helper()
	reigns = make(chan reign, 100)
	for i, b := range buses {
		stop = append(stop, background(t, func(ctx context.Context) error {
			return b.Lead(ctx, "test", func(ctx context.Context) error {
				r := reign{i, make(chan struct{})}
				reigns <- r
				<-ctx.Done()
				close(r.ended)
				return ctx.Err()
			})
		}))
	}
	return reigns, stop
}

func TestOneLeadsAndIsFollowed(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	cfg := bus.Config{Lease: 600 * time.Millisecond}
	var all []*bus.Bus
	for range 3 {
		all = append(all, bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{}))
	}
	reigns, stop := candidates(t, all...)
	first := receive(t, "a leader", reigns)
	select {
	case second := <-reigns:
		t.Fatalf("%d leads beside %d", second.who, first.who)
	case <-time.After(3 * cfg.Lease):
	}
	stop[first.who]()
	receive(t, "the end of the first", first.ended)
	if second := receive(t, "another leader", reigns); second.who == first.who {
		t.Error("who was stopped leads again")
	}
}

func TestLeaderThatDiedIsFollowed(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	cfg := bus.Config{Lease: 600 * time.Millisecond}
	var killed atomic.Bool
	dying := bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{Fault: func(string, bus.Phase) error {
		if killed.Load() {
			return errKilled
		}
		return nil
	}})
	reigns, _ := candidates(t, dying)
	first := receive(t, "a leader", reigns)
	next, _ := candidates(t, bustest.On(t, bustest.Connect(t, s), cfg, bus.Options{}))
	killed.Store(true)
	receive(t, "the end of the first", first.ended)
	receive(t, "another leader", next)
}

// A leader that can not reach the bus does not go on for longer than its lease.
func TestLeaderThatIsCutOffStops(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	b := bustest.On(t, bustest.Connect(t, s), bus.Config{Lease: 600 * time.Millisecond}, bus.Options{})
	reigns, _ := candidates(t, b)
	first := receive(t, "a leader", reigns)
	s.Shutdown()
	receive(t, "its end", first.ended)
}

// A leader whose work ends by itself, or fails, begins again.
func TestLeaderBeginsAgain(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{Lease: 300 * time.Millisecond}, bus.Options{})
	begun := make(chan struct{}, 100)
	background(t, func(ctx context.Context) error {
		return b.Lead(ctx, "test", func(context.Context) error {
			begun <- struct{}{}
			return errors.New("tired")
		})
	})
	for range 3 {
		receive(t, "work", begun)
	}
}
