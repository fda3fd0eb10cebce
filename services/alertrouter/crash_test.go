package alertrouter_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/services/alertrouter"
)

// point is a moment at which a router can die.
type point struct {
	op    string
	phase bus.Phase
}

func (p point) String() string {
	return strings.ReplaceAll(p.op, " ", "-") + "/" + string(p.phase)
}

// points counts how often each point is passed, and kills the router that passes one of them for the nth
// time, once.
type points struct {
	mu     sync.Mutex
	passed map[point]int
	kill   point // zero: nobody
	nth    int
	died   chan struct{} // closed then
}

var errKilled = errors.New("killed by the test")

func (ps *points) fault(op string, phase bus.Phase) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	at := point{op, phase}
	ps.passed[at]++
	if ps.kill != at || ps.passed[at] != ps.nth {
		return nil
	}
	close(ps.died)
	return errKilled
}

// TestAnyStepMayDie kills the router at each point that an undisturbed run passes, starts another one, and
// wants of each run what the receiver knew after the undisturbed one.
func TestAnyStepMayDie(t *testing.T) {
	undisturbed := &points{passed: map[point]int{}}
	t.Run("undisturbed", func(t *testing.T) { story(t, undisturbed) }) // its router has stopped at the end
	all := slices.SortedFunc(maps.Keys(undisturbed.passed), func(a, b point) int { return cmp.Compare(a.String(), b.String()) })
	for _, op := range []string{"commit ALERTS", "publish ALERTS.attempt", "delete ALERTS", "ack FINDINGS.alerts", "ack ALERTS.due", "ack ALERTS.out"} {
		if !slices.Contains(all, point{op, bus.Before}) {
			t.Fatalf("%s is not among the points %v", op, all)
		}
	}
	for _, at := range all {
		if strings.HasPrefix(at.op, "create ") { // Provision's
			continue
		}
		for _, nth := range slices.Compact([]int{1, 1 + undisturbed.passed[at]/3, 1 + undisturbed.passed[at]*2/3}) {
			if testing.Short() && nth > 1 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", at, nth), func(t *testing.T) {
				t.Parallel()
				story(t, &points{passed: map[point]int{}, kill: at, nth: nth, died: make(chan struct{})})
			})
		}
	}
}

// story opens two findings, resolves one, opens another and resolves the rest; the receiver must know of
// each step, and be told nothing twice but what nobody saw it take, under the same key.
func story(t *testing.T, ps *points) {
	t.Helper()
	srv := bustest.StartServer(t)
	keep := bustest.On(t, bustest.Connect(t, srv), bus.Config{}, bus.Options{}) // the publisher's; it provisions without faults
	h := newHook(t)
	cfg := alertrouter.Config{Config: file(t, simple(h))}
	routers := func(fault bus.Fault) *router {
		return start(t, bustest.On(t, bustest.Connect(t, srv), bus.Config{AckWait: time.Second}, bus.Options{Fault: fault, Logger: logger(t)}), cfg)
	}
	first := routers(ps.fault)
	if ps.died != nil {
		killed := make(chan struct{})
		t.Cleanup(func() { <-killed })
		go func() { // the next process
			defer close(killed)
			select {
			case <-ps.died:
				first.stop()
				routers(nil)
			case <-t.Context().Done():
			}
		}()
	}
	api := func(n int, revision uint64, transition finding.Transition) {
		publish(t, keep, delta("team/api", fmt.Sprintf("CVE-%d", n), revision, transition))
	}
	api(1, 1, finding.Opened)
	api(2, 1, finding.Opened)
	h.knows(t, "CVE-1 CVE-2")
	api(1, 2, finding.Resolved)
	h.knows(t, "CVE-2")
	api(3, 1, finding.Opened)
	h.knows(t, "CVE-2 CVE-3")
	api(2, 2, finding.Resolved)
	api(3, 2, finding.Resolved)
	h.knows(t, "")
	h.consistent(t)
	empty(t, keep)

	kills := 0
	if ps.died != nil {
		select {
		case <-ps.died:
			kills = 1
		default:
			if ps.nth == 1 {
				t.Error("the point was never passed")
			}
		}
	}
	keys := map[string]int{}
	for _, p := range h.all() {
		keys[p.Key]++
	}
	repeats := len(h.all()) - len(keys)
	if repeats > kills {
		t.Errorf("%d posts of %d notifications, and %d kills", len(h.all()), len(keys), kills)
	}
}

// knows waits until the receiver believes that just these fire.
func (h *hook) knows(t *testing.T, want string) {
	t.Helper()
	var got string
	defer func() {
		if t.Failed() {
			t.Logf("the receiver believes that %q fire", got)
			for _, p := range h.all() {
				t.Logf("posted %s: %s, key %.8s", p.Reason, p.says(), p.Key)
			}
		}
	}()
	eventually(t, "the receiver knows that these fire: "+want, func() bool {
		fires := map[string]bool{}
		for _, p := range h.all() {
			for _, a := range p.Alerts {
				fires[a.Labels["vulnerability"]+a.Labels["notice"]] = a.Status == "firing"
			}
		}
		maps.DeleteFunc(fires, func(_ string, f bool) bool { return !f })
		got = strings.Join(slices.Sorted(maps.Keys(fires)), " ")
		return got == want
	})
}

// consistent fails when two posts of one key differ, or one that is no repeat tells no news.
func (h *hook) consistent(t *testing.T) {
	t.Helper()
	byKey := map[string]string{}
	told := map[string]string{} // last status by alert
	for _, p := range h.all() {
		if p.Key == "" {
			t.Fatal("a post without an Idempotency-Key")
		}
		if was, ok := byKey[p.Key]; ok {
			if was != p.says() {
				t.Errorf("key %s says %q and %q", p.Key, was, p.says())
			}
			continue
		}
		byKey[p.Key] = p.says()
		news := 0
		for _, a := range p.Alerts {
			if told[a.Fingerprint] != a.Status {
				news++
			}
			told[a.Fingerprint] = a.Status
		}
		if news == 0 && p.Reason != "repeat interval elapsed" {
			t.Errorf("a post without news: %q", p.says())
		}
	}
}

// empty waits until nothing is left of groups in the store.
func empty(t *testing.T, b *bus.Bus) {
	t.Helper()
	eventually(t, "the store is empty", func() bool {
		left, err := b.Notifications(t.Context())
		if err != nil || left > 0 {
			return false
		}
		groups := 0
		must(t, b.AlertGroups(t.Context(), func(alert.Group) error { groups++; return nil }))
		return groups == 0
	})
}

func TestReplicasShareTheWork(t *testing.T) {
	t.Parallel()
	srv := bustest.StartServer(t)
	keep := bustest.On(t, bustest.Connect(t, srv), bus.Config{}, bus.Options{})
	h := newHook(t)
	cfg := alertrouter.Config{Config: file(t, simple(h))}
	for range 3 {
		start(t, bustest.On(t, bustest.Connect(t, srv), bus.Config{}, bus.Options{Logger: logger(t)}), cfg)
	}
	const repositories, each = 8, 6
	for n := range each {
		for r := range repositories {
			publish(t, keep, delta(fmt.Sprintf("team/api-%d", r), fmt.Sprintf("CVE-%d-%d", r, n), 1, finding.Opened))
		}
	}
	var all []string
	for r := range repositories {
		for n := range each {
			all = append(all, fmt.Sprintf("CVE-%d-%d", r, n))
		}
	}
	slices.Sort(all)
	h.knows(t, strings.Join(all, " "))
	for n := range each {
		for r := range repositories {
			publish(t, keep, delta(fmt.Sprintf("team/api-%d", r), fmt.Sprintf("CVE-%d-%d", r, n), 2, finding.Resolved))
		}
	}
	h.knows(t, "")
	h.consistent(t)
	empty(t, keep)
	keys := map[string]bool{}
	for _, p := range h.all() {
		if keys[p.Key] {
			t.Errorf("key %s was posted twice, and nobody died", p.Key)
		}
		keys[p.Key] = true
	}
}

// Timers and what is to be sent are the server's: they live through its restart.
func TestNATSRestartsWithTimersPending(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv := serve(t, dir, -1)
	port := srv.Addr().(*net.TCPAddr).Port
	keep := bustest.On(t, dial(t, srv.ClientURL()), bus.Config{}, bus.Options{})
	h := newHook(t)
	text := strings.Replace(simple(h), "group_wait: 300ms", "group_wait: 2s", 1)
	start(t, bustest.On(t, dial(t, srv.ClientURL()), bus.Config{}, bus.Options{Logger: logger(t)}), alertrouter.Config{Config: file(t, text)})
	publish(t, keep, delta("team/api", "CVE-1", 1, finding.Opened))
	eventually(t, "the group waits", func() bool {
		n := 0
		must(t, keep.AlertGroups(t.Context(), func(alert.Group) error { n++; return nil }))
		return n == 1
	})
	srv.Shutdown()
	srv.WaitForShutdown()
	if n := len(h.all()); n > 0 {
		t.Fatalf("%d posts before its time", n)
	}
	serve(t, dir, port)
	h.knows(t, "CVE-1")
	h.consistent(t)
}

func serve(t *testing.T, dir string, port int) *server.Server {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir, JetStreamMaxStore: 16 << 30, MaxPayload: 8 << 20,
	})
	must(t, err)
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(patience) {
		t.Fatal("nats-server is not ready")
	}
	return srv
}

func dial(t *testing.T, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	must(t, err)
	t.Cleanup(nc.Close)
	return nc
}
