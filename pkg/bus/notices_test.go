package bus_test

import (
	"testing"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/work"
)

func TestNotices(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	nc := bustest.Connect(t, s)
	planner := bustest.On(t, nc, bus.Config{}, bus.Options{})
	worker := bustest.On(t, bustest.Connect(t, s), bus.Config{}, bus.Options{})

	got, gaps := make(chan work.Notice, 10), make(chan struct{}, 10)
	stop, err := planner.Notices(t.Context(), func(n work.Notice) { got <- n }, func() { gaps <- struct{}{} })
	must(t, err)
	// The subscription is at the server when Notices returns: nothing sent from now on is missed.
	must(t, worker.Notify(t.Context(), work.Notice{Key: "k1", Failed: true}))
	if n := receive(t, "a notice", got); n != (work.Notice{Key: "k1", Failed: true}) {
		t.Errorf("notice %+v", n)
	}

	must(t, nc.ForceReconnect())
	receive(t, "a gap after the reconnect", gaps)
	must(t, worker.Notify(t.Context(), work.Notice{Key: "k2"}))
	if n := receive(t, "a notice after the gap", got); n.Key != "k2" {
		t.Errorf("notice %+v", n)
	}

	stop()
	stop() // twice is harmless
	must(t, worker.Notify(t.Context(), work.Notice{Key: "k3"}))
	must(t, nc.Flush())
	if len(got) > 0 {
		t.Errorf("notice %+v after the end", <-got)
	}
}
