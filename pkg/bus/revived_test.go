package bus_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
)

// A nats-server that is killed does not bring back what an alert or a group was before it was removed.
// What is on disk while it runs is what a kill leaves.
func TestRemovedAlertsStayRemoved(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	b := bustest.On(t, bustest.Connect(t, serverOn(t, store)), bus.Config{}, bus.Options{})
	g := alertGroup("g1")
	write := func(revision uint64, ends time.Time) {
		t.Helper()
		m := alert.Member{Alert: alert.Alert{ID: "a1", Revision: 1, Starts: time.Now().UTC(), Ends: ends}}
		must(t, b.CommitAlerts(t.Context(), alert.Batch{
			Groups:  []alert.GroupWrite{{Group: g, Revision: revision}},
			Members: []alert.MemberWrite{{Group: g.ID, ID: "a1", Member: &m}},
		}))
	}
	revision := func() uint64 {
		t.Helper()
		_, r, err := b.AlertGroup(t.Context(), g.ID)
		must(t, err)
		return r
	}
	write(0, time.Time{})
	write(revision(), time.Now().UTC())
	held, err := b.AlertMember(t.Context(), g.ID, "a1")
	must(t, err)
	must(t, b.DropAlerts(t.Context(), held.Sequence))
	must(t, b.CommitAlerts(t.Context(), alert.Batch{Groups: []alert.GroupWrite{{Group: g, Revision: revision(), Remove: true}}}))

	after := t.TempDir()
	must(t, os.CopyFS(after, os.DirFS(store)))
	b = bustest.On(t, bustest.Connect(t, serverOn(t, after)), bus.Config{}, bus.Options{})
	if members, err := b.AlertMembers(t.Context(), g.ID); err != nil || len(members) > 0 {
		t.Errorf("after a kill the group has %+v, %v", members, err)
	}
	if back, _, err := b.AlertGroup(t.Context(), g.ID); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("after a kill the group is %+v, %v", back, err)
	}
}

func serverOn(t *testing.T, store string) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: store, MaxPayload: 8 << 20, JetStreamMaxStore: 1 << 40,
	})
	must(t, err)
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server is not ready")
	}
	return s
}
