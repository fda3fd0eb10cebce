package bus_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
)

// Subjects are API: they are what docs/subscribing.md says.
func TestPublishedSubjects(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	scope := "registry%2Eexample%3A5000.team.app.1%2E2.linux-amd64"

	live, err := nc.SubscribeSync("pratique.live.>")
	must(t, err)
	must(t, b.PublishDelta(ctx, someDelta("a", 1)))
	stored(t, nc, "FINDINGS", "pratique.finding.v1.vuln.opened.high."+scope)
	if m, err := live.NextMsg(patience); err != nil || m.Subject != "pratique.live.v1.vuln.opened.high."+scope {
		t.Errorf("live: %v, %v", m, err)
	}
	// A filter on "critical" sees a finding leave it.
	d, old := someDelta("a", 2), someFinding("a", 1)
	old.Severity, d.Finding.Severity, d.Transition, d.Old = report.Critical, report.Low, finding.Changed, &old
	must(t, b.PublishDelta(ctx, d))
	stored(t, nc, "FINDINGS", "pratique.finding.v1.vuln.changed.critical."+scope)

	must(t, b.PublishScan(ctx, someScan("a")))
	stored(t, nc, "SCANS", "pratique.scan.v1.clean."+scope)
	untracked := someScan("b")
	untracked.Asset = nil
	must(t, b.PublishScan(ctx, untracked))
	stored(t, nc, "SCANS", "pratique.scan.v1.clean.registry%2Eexample.team.app.sha256%3A"+digest("image").Hex()+".linux-amd64")
	unresolved := someScan("c")
	unresolved.Asset, unresolved.Reference.Digest, unresolved.Platform.OS, unresolved.Platform.Architecture = nil, "", "", ""
	unresolved.Outcome = report.Failed
	must(t, b.PublishScan(ctx, unresolved))
	stored(t, nc, "SCANS", "pratique.scan.v1.failed.registry%2Eexample.team.app.1.unresolved")

	must(t, b.PublishSystem(ctx, someNotice("a")))
	stored(t, nc, "SYSTEM", "pratique.system.v1.database-stale")
}

// The same delta, scan or notice twice, as after a crash, is stored once.
func TestPublishedOnce(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	for range 3 {
		must(t, errors.Join(b.PublishDelta(ctx, someDelta("a", 1)), b.PublishScan(ctx, someScan("a")), b.PublishSystem(ctx, someNotice("a"))))
	}
	must(t, b.PublishDelta(ctx, someDelta("a", 2)))
	last, err := b.LastDelta(ctx)
	if err != nil || last != 2 {
		t.Errorf("LastDelta: %d, %v, want 2", last, err)
	}
	js, err := jetstream.New(nc)
	must(t, err)
	for _, name := range []string{"SCANS", "SYSTEM"} {
		s, err := js.Stream(ctx, name)
		must(t, err)
		if n := s.CachedInfo().State.Msgs; n != 1 {
			t.Errorf("%s holds %d messages, want 1", name, n)
		}
	}
}

func TestWatchDeltas(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	want := someDelta("a", 1)
	must(t, b.PublishDelta(ctx, want))

	all := watchDeltas(t, b, 1)
	if got := receive(t, "the first delta", all); got.seq != 1 {
		t.Errorf("the first delta is at %d", got.seq)
	} else if diff := cmp.Diff(want, got.delta, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("delta (-want +got):\n%s", diff)
	}
	fromSecond := watchDeltas(t, b, 2)
	must(t, b.PublishDelta(ctx, someDelta("a", 2)))
	for name, c := range map[string]<-chan seenDelta{"all": all, "from the second": fromSecond} {
		if got := receive(t, name, c); got.seq != 2 || got.delta.Finding.Revision != 2 {
			t.Errorf("%s: got %d, revision %d", name, got.seq, got.delta.Finding.Revision)
		}
	}

	stop := errors.New("enough")
	wantIs(t, "WatchDeltas", b.WatchDeltas(ctx, 1, func(uint64, finding.Delta) error { return stop }), stop)
}

// From 0, only what comes after the call began is seen.
func TestWatchOnlyNew(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	must(t, b.PublishDelta(ctx, someDelta("old", 1)))
	seen := watchDeltas(t, b, 0)
	var revision uint64
	eventually(t, "a new delta is seen", func() bool { // the watcher may not have begun when the first is published
		revision++
		must(t, b.PublishDelta(ctx, someDelta("new", revision)))
		select {
		case got := <-seen:
			if got.delta.Finding.ID != "new" {
				t.Fatalf("saw %q, which was there before", got.delta.Finding.ID)
			}
			return true
		default:
			return false
		}
	})
}

// A position that FINDINGS no longer holds is told: the subscriber has missed deltas.
func TestWatchDeltasTrimmed(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	for i := range 4 {
		must(t, b.PublishDelta(ctx, someDelta("a", uint64(i+1))))
	}
	js, err := jetstream.New(nc)
	must(t, err)
	s, err := js.Stream(ctx, "FINDINGS")
	must(t, err)
	must(t, s.Purge(ctx, jetstream.WithPurgeSequence(4)))
	wantIs(t, "WatchDeltas", b.WatchDeltas(ctx, 2, func(uint64, finding.Delta) error { return nil }), bus.ErrTrimmed)
	for _, from := range []uint64{1, 4} {
		if got := receive(t, "what is kept", watchDeltas(t, b, from)); got.seq != 4 {
			t.Errorf("from %d: got %d, want 4", from, got.seq)
		}
	}
}

// Bytes that are no delta do not stop a watcher.
func TestWatchPassesOverNoise(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	js, err := jetstream.New(nc)
	must(t, err)
	_, err = js.Publish(ctx, "pratique.finding.v1.vuln.opened.high.x", []byte("\xffnoise"))
	must(t, err)
	must(t, b.PublishDelta(ctx, someDelta("a", 1)))
	if got := receive(t, "the delta behind the noise", watchDeltas(t, b, 1)); got.seq != 2 {
		t.Errorf("got %d, want 2", got.seq)
	}
}

// A watcher outlives its consumer: nothing is lost and nothing comes twice.
func TestWatchSurvivesItsConsumer(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	seen := watchDeltas(t, b, 1)
	js, err := jetstream.New(nc)
	must(t, err)
	s, err := js.Stream(ctx, "FINDINGS")
	must(t, err)
	for i := range uint64(3) {
		must(t, b.PublishDelta(ctx, someDelta("a", i+1)))
		if got := receive(t, "delta "+strconv.FormatUint(i+1, 10), seen); got.seq != i+1 {
			t.Fatalf("got %d, want %d", got.seq, i+1)
		}
		names := s.ConsumerNames(ctx)
		for name := range names.Name() {
			_ = s.DeleteConsumer(ctx, name)
		}
		must(t, names.Err())
	}
}

func TestWatchScansAndSystem(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := bustest.New(t, bus.Config{}, bus.Options{})
	scan, notice := someScan("a"), someNotice("a")
	must(t, errors.Join(b.PublishScan(ctx, scan), b.PublishSystem(ctx, notice)))
	must(t, b.WatchScans(ctx, 1, func(seq uint64, got finding.Scan) error {
		if diff := cmp.Diff(scan, got, cmpopts.EquateEmpty()); diff != "" || seq != 1 {
			t.Errorf("scan at %d (-want +got):\n%s", seq, diff)
		}
		cancel() // which ends the watch without an error
		return nil
	}))
	ctx, cancel = context.WithCancel(t.Context())
	must(t, b.WatchSystem(ctx, 1, func(seq uint64, got system.Notice) error {
		if diff := cmp.Diff(notice, got); diff != "" || seq != 1 {
			t.Errorf("notice at %d (-want +got):\n%s", seq, diff)
		}
		cancel()
		return nil
	}))
}

type seenDelta struct {
	seq   uint64
	delta finding.Delta
}

func watchDeltas(t *testing.T, b *bus.Bus, from uint64) <-chan seenDelta {
	seen := make(chan seenDelta, 100)
	background(t, func(ctx context.Context) error {
		return b.WatchDeltas(ctx, from, func(seq uint64, d finding.Delta) error {
			seen <- seenDelta{seq, d}
			return nil
		})
	})
	return seen
}

// A watcher outlives its server: it carries on behind what it has seen.
func TestWatchSurvivesItsServer(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	start := func(port int) *server.Server {
		s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir, JetStreamMaxStore: 16 << 30})
		must(t, err)
		s.Start()
		t.Cleanup(s.Shutdown)
		if !s.ReadyForConnections(patience) {
			t.Fatal("server is not ready")
		}
		return s
	}
	first := start(server.RANDOM_PORT)
	nc, err := nats.Connect(first.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	must(t, err)
	t.Cleanup(nc.Close)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	seen := watchDeltas(t, b, 1)
	settings := make(chan string, 10)
	background(t, func(ctx context.Context) error {
		return b.WatchSetting(ctx, "rematched", func(v string) { settings <- v })
	})
	must(t, b.PublishDelta(ctx, someDelta("a", 1)))
	must(t, b.PutSetting(ctx, "rematched", "1"))
	receive(t, "the first delta", seen)
	receive(t, "the first setting", settings)

	port := first.Addr().(*net.TCPAddr).Port
	first.Shutdown()
	first.WaitForShutdown()
	start(port)
	eventually(t, "a delta is published after the restart", func() bool { return b.PublishDelta(ctx, someDelta("a", 2)) == nil })
	must(t, b.PutSetting(ctx, "rematched", "2"))
	if got := receive(t, "the second delta", seen); got.seq != 2 {
		t.Errorf("got %d, want 2", got.seq)
	}
	if got := receive(t, "the second setting", settings); got != "2" {
		t.Errorf("got %q, want 2", got)
	}
}
