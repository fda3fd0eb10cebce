package bus_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/reason"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestBucketRevisions(t *testing.T) {
	ctx := t.Context()
	k := bustest.New(t, bus.Config{}, bus.Options{}).Bucket("tracks")
	_, _, err := k.Get(ctx, "a")
	wantIs(t, "Get of an absent key", err, bus.ErrNotFound)
	must(t, k.Delete(ctx, "a"))
	_, err = k.Update(ctx, "a", []byte("0"), 7)
	wantIs(t, "Update of an absent key", err, bus.ErrConflict)

	first, err := k.Create(ctx, "a", []byte("1"))
	must(t, err)
	_, err = k.Create(ctx, "a", []byte("2"))
	wantIs(t, "Create of a key that is there", err, bus.ErrConflict)
	_, err = k.Update(ctx, "a", []byte("2"), 0)
	wantIs(t, "Update from nothing of a key that is there", err, bus.ErrConflict)
	second, err := k.Update(ctx, "a", []byte("2"), first)
	must(t, err)
	_, err = k.Update(ctx, "a", []byte("3"), first)
	wantIs(t, "Update of an old revision", err, bus.ErrConflict)
	value, rev, err := k.Get(ctx, "a")
	must(t, err)
	if string(value) != "2" || rev != second {
		t.Errorf("Get: %q at %d, want \"2\" at %d", value, rev, second)
	}

	must(t, k.Drop(ctx, "a", first)) // somebody wrote since
	_, _, err = k.Get(ctx, "a")
	must(t, err)
	must(t, k.Drop(ctx, "a", second))
	_, _, err = k.Get(ctx, "a")
	wantIs(t, "Get of a dropped key", err, bus.ErrNotFound)
	_, err = k.Create(ctx, "a", []byte("4"))
	must(t, err)
	must(t, k.Delete(ctx, "a"))
	_, err = k.Create(ctx, "a", []byte("5"))
	must(t, err)
}

// Keys of outside origin can not reach other keys, and none is removed by what looks like a filter.
func TestBucketKeys(t *testing.T) {
	ctx := t.Context()
	k := bustest.New(t, bus.Config{}, bus.Options{}).Bucket("tracks")
	hostile := []string{"", " ", ".", "..", "*", ">", "a.b", "%", "=", "=41", "é", "\x00", "a/b", strings.Repeat("x", 300)}
	want := []string{"plain"}
	for _, h := range hostile {
		want = append(want, bus.Key("h", h))
	}
	for _, key := range want {
		_, err := k.Create(ctx, key, []byte(key))
		must(t, err)
	}
	got, err := k.Keys(ctx, "")
	must(t, err)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("Keys: got %q, want %q", got, want)
	}
	below, err := k.Keys(ctx, "h")
	must(t, err)
	if len(below) != len(hostile) {
		t.Errorf("Keys of h: got %q", below)
	}
	for _, key := range []string{"*", ">", "h.*", "h.>", ".", "", "a b"} {
		for name, err := range map[string]error{"Delete": k.Delete(ctx, key), "Drop": k.Drop(ctx, key, 1000)} {
			if err != nil && reason.Of(err).Kind != reason.Refuse {
				t.Errorf("%s of %q: %v", name, key, err)
			}
		}
		if _, err := k.Put(ctx, key, nil); reason.Of(err).Code != reason.Malformed {
			t.Errorf("Put of %q: %v, want %s", key, err, reason.Malformed)
		}
	}
	if left, err := k.Keys(ctx, ""); err != nil || len(left) != len(want) {
		t.Errorf("%d of %d keys are left, %v", len(left), len(want), err)
	}
	for _, key := range want {
		value, _, err := k.Get(ctx, key)
		must(t, err)
		if string(value) != key {
			t.Errorf("Get of %q: %q", key, value)
		}
	}
}

// A delete of a repository lists its tracks while planners write them: one that is passed over stays as if
// it were still in the registry.
func TestEachMissesNothingThatIsReplacedMeanwhile(t *testing.T) {
	ctx := t.Context()
	k := bustest.New(t, bus.Config{}, bus.Options{}).Bucket("tracks")
	for _, key := range []string{"a", "b", "c"} {
		_, err := k.Put(ctx, key, []byte("old"))
		must(t, err)
	}
	replaced := false
	seen := map[string]string{}
	must(t, k.Each(ctx, ">", func(key string, value []byte, _ uint64) error {
		if seen[key] = string(value); replaced {
			return nil
		}
		replaced = true
		for _, key := range []string{"a", "c"} {
			if _, err := k.Put(ctx, key, []byte("new")); err != nil {
				return err
			}
		}
		return nil
	}))
	if want := map[string]string{"a": "new", "b": "old", "c": "new"}; !maps.Equal(seen, want) {
		t.Errorf("seen %v, want %v", seen, want)
	}
}

// A record that is written all the time does not hold up who lists, and is listed.
func TestEachEnds(t *testing.T) {
	ctx := t.Context()
	k := bustest.New(t, bus.Config{}, bus.Options{}).Bucket("tracks")
	_, err := k.Put(ctx, "a", nil)
	must(t, err)
	times := 0
	must(t, k.Each(ctx, ">", func(string, []byte, uint64) error {
		times++
		_, err := k.Put(ctx, "a", nil)
		return err
	}))
	if times == 0 {
		t.Error("never listed")
	}
}

// What `nats kv del` leaves behind is no record.
func TestBucketMarkersAreAbsent(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	k := bustest.On(t, nc, bus.Config{}, bus.Options{}).Bucket("tracks")
	_, err := k.Put(ctx, "a", []byte("1"))
	must(t, err)
	js, err := jetstream.New(nc)
	must(t, err)
	kv, err := js.KeyValue(ctx, "tracks")
	must(t, err)
	must(t, kv.Delete(ctx, "a"))
	_, _, err = k.Get(ctx, "a")
	wantIs(t, "Get", err, bus.ErrNotFound)
	keys, err := k.Keys(ctx, "")
	must(t, err)
	if len(keys) != 0 {
		t.Errorf("Keys: %q", keys)
	}
	_, err = k.Create(ctx, "a", []byte("2"))
	must(t, err)
}

// An outage is a retry, never absence.
func TestOutageIsRetry(t *testing.T) {
	server := bustest.StartServer(t)
	b := bustest.On(t, bustest.Connect(t, server), bus.Config{}, bus.Options{})
	k := b.Bucket("tracks")
	_, err := k.Put(t.Context(), "a", []byte("1"))
	must(t, err)
	server.Shutdown()
	server.WaitForShutdown()

	calls := map[string]func(context.Context) error{
		"Get":    func(ctx context.Context) error { _, _, err := k.Get(ctx, "a"); return err },
		"Put":    func(ctx context.Context) error { _, err := k.Put(ctx, "a", nil); return err },
		"Create": func(ctx context.Context) error { _, err := k.Create(ctx, "b", nil); return err },
		"Delete": func(ctx context.Context) error { return k.Delete(ctx, "a") },
		"Keys":   func(ctx context.Context) error { _, err := k.Keys(ctx, ""); return err },
		"Object": func(ctx context.Context) error { _, err := b.Object(ctx, "vulndb", "a"); return err },
		"Report": func(ctx context.Context) error { _, err := b.Reports(ctx, digest("a")); return err },
	}
	for name, call := range calls {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := call(ctx)
		cancel()
		if e := reason.Of(err); err == nil || e.Kind != reason.Retry || e.Code != reason.BusUnavailable {
			t.Errorf("%s: got %v, want a retry with %s", name, err, reason.BusUnavailable)
		}
		if errors.Is(err, bus.ErrNotFound) {
			t.Errorf("%s: an outage looks like absence: %v", name, err)
		}
	}
}

// The crash tests find every write by its name, and a bus that died in one writes nothing more.
func TestWritesGoThroughFaults(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	bustest.On(t, nc, bus.Config{}, bus.Options{})
	var ops []string
	var fatal string
	fault := func(op string, phase bus.Phase) error {
		if phase == bus.Before {
			ops = append(ops, op)
			if op == fatal {
				return errors.New("killed")
			}
		}
		return nil
	}
	b, err := bus.New(nc, bus.Config{}, bus.Options{Logger: quiet(), Fault: fault})
	must(t, err)
	writes := []struct {
		op   string
		call func() error
	}{
		{"publish REPORTS", func() error { return b.PutReport(ctx, someReport("a")) }},
		{"put STATE", func() error { _, err := b.PutState(ctx, "vuln", someState("1"), 0); return err }},
		{"publish FINDINGS", func() error { return b.PublishDelta(ctx, someDelta("a", 1)) }},
		{"publish SCANS", func() error { return b.PublishScan(ctx, someScan("a")) }},
		{"publish SYSTEM", func() error { return b.PublishSystem(ctx, someNotice("a")) }},
		{"create tracks", func() error { return b.PutTrack(ctx, someTrack("team/app", "1"), 0) }},
		{"create images", func() error { return b.PutImage(ctx, someMatch("1", 1)) }},
		{"delete images", func() error { return b.DropImage(ctx, someMatch("1", 1)) }},
		{"create fates", func() error { return b.UpdateFate(ctx, "id.1", planning) }},
		{"put settings", func() error { return b.PutSetting(ctx, "rematched", "x") }},
		{"create settings", func() error { _, err := b.PutPointer(ctx, somePointer("a")); return err }},
		{"put object vulndb", func() error { return b.PutObject(ctx, "vulndb", "a", strings.NewReader("a")) }},
		{"delete object vulndb", func() error { return b.DropObject(ctx, "vulndb", "a") }},
	}
	var want []string
	for _, w := range writes {
		must(t, w.call())
		want = append(want, w.op)
	}
	if !slices.Equal(ops, want) {
		t.Errorf("operations:\n got %q\nwant %q", ops, want)
	}

	fatal = "put settings"
	if err := b.PutSetting(ctx, "rematched", "y"); err == nil {
		t.Error("a write of a bus that was killed succeeded")
	}
	ops = nil
	if err := b.PutSetting(ctx, "other", "y"); err == nil || len(ops) != 0 {
		t.Errorf("a dead bus still writes: %v, %q", err, ops)
	}
	alive := bustest.On(t, nc, bus.Config{}, bus.Options{})
	if v, err := alive.Setting(ctx, "rematched"); err != nil || v != "x" {
		t.Errorf("setting: %q, %v", v, err)
	}
}

func wantIs(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: got %v, want %v", what, err, target)
	}
}
