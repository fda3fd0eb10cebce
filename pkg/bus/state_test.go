package bus_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/compact"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
)

func TestStateIsCompareAndSet(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	s := someState("main-*")
	_, rev, err := b.State(ctx, finding.ClassVuln, s.Asset)
	wantIs(t, "State", err, bus.ErrNotFound)
	first, err := b.PutState(ctx, finding.ClassVuln, s, rev)
	must(t, err)
	_, err = b.PutState(ctx, finding.ClassVuln, s, 0)
	wantIs(t, "PutState over one that is there", err, bus.ErrConflict)
	got, rev, err := b.State(ctx, finding.ClassVuln, s.Asset)
	must(t, err)
	if diff := cmp.Diff(s, got, cmpopts.EquateEmpty()); diff != "" || rev != first {
		t.Errorf("State at %d, want %d (-want +got):\n%s", rev, first, diff)
	}
	_, err = b.PutState(ctx, finding.ClassVuln, s, rev)
	must(t, err)
	_, err = b.PutState(ctx, finding.ClassVuln, s, rev)
	wantIs(t, "PutState over a newer one", err, bus.ErrConflict)
}

// The subject and headers are what docs/subscribing.md promises.
func TestStateMessage(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	s := someState("main-*")
	_, err := b.PutState(ctx, finding.ClassVuln, s, 0)
	must(t, err)
	m := stored(t, nc, "STATE", "pratique.state.v1.vuln.registry%2Eexample%3A5000.team.app.main-%2A.linux-amd64")
	if e := m.Header.Get("Content-Encoding"); e != "zstd" {
		t.Errorf("Content-Encoding: %q", e)
	}
	if c := m.Header.Get("Content-Type"); c != "application/protobuf; messageType="+wire.TypeState {
		t.Errorf("Content-Type: %q", c)
	}
	body, err := compact.Unpack(m.Data)
	must(t, err)
	_, err = wire.DecodeState(body)
	must(t, err)
}

func TestStateIsBounded(t *testing.T) {
	b := bustest.New(t, bus.Config{}, bus.Options{})
	s := someState("1")
	noise := make([]byte, 8<<20)
	_, _ = rand.Read(noise)
	s.Open[0].Title = hex.EncodeToString(noise)
	_, err := b.PutState(t.Context(), finding.ClassVuln, s, 0)
	if e := reason.Of(err); e.Kind != reason.Refuse || e.Code != reason.OverBound {
		t.Errorf("PutState: %v", err)
	}
	s.Open[0].Title = hex.EncodeToString(noise[:6<<20])
	_, err = b.PutState(t.Context(), finding.ClassVuln, s, 0)
	must(t, err)
	_, _, err = b.State(t.Context(), finding.ClassVuln, s.Asset)
	must(t, err)
	n := 0
	must(t, b.States(t.Context(), func(finding.State) error { n++; return nil }))
	if n != 1 {
		t.Errorf("States: %d, want 1", n)
	}
}

// A damaged state is an error: taken for absent, its findings would be opened a second time.
func TestDamagedState(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	good := someState("good")
	_, err := b.PutState(ctx, finding.ClassVuln, good, 0)
	must(t, err)
	js, err := jetstream.New(nc)
	must(t, err)
	for track, body := range map[string][]byte{"noise": []byte("noise"), "packed": compact.Pack(bytes.Repeat([]byte{0xff}, 64))} {
		_, err = js.Publish(ctx, "pratique.state.v1.vuln.registry%2Eexample%3A5000.team.app."+track+".linux-amd64", body)
		must(t, err)
		_, _, err = b.State(ctx, finding.ClassVuln, someAsset(track))
		if e := reason.Of(err); errors.Is(err, bus.ErrNotFound) || e.Kind != reason.Refuse || e.Code != reason.Malformed {
			t.Errorf("State %s: %v, want %s", track, err, reason.Malformed)
		}
	}
	var tracks []string
	must(t, b.States(ctx, func(s finding.State) error { tracks = append(tracks, s.Asset.Track); return nil }))
	if len(tracks) != 1 || tracks[0] != "good" {
		t.Errorf("States: %q", tracks)
	}
}

func TestStates(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	must(t, b.States(ctx, func(finding.State) error { return errors.New("there is none") }))
	want := map[string]bool{}
	for i := range 40 { // more than one pull
		s := someState(strconv.Itoa(i))
		rev, err := b.PutState(ctx, finding.ClassVuln, s, 0)
		must(t, err)
		if i%2 == 0 {
			_, err = b.PutState(ctx, finding.ClassVuln, s, rev)
			must(t, err)
		}
		want[s.Asset.Track] = true
	}
	must(t, b.States(ctx, func(s finding.State) error {
		if !want[s.Asset.Track] {
			t.Errorf("track %s came twice, or never was", s.Asset.Track)
		}
		delete(want, s.Asset.Track)
		return nil
	}))
	if len(want) != 0 {
		t.Errorf("missing: %v", want)
	}
	stop := errors.New("enough")
	wantIs(t, "States", b.States(ctx, func(finding.State) error { return stop }), stop)
	ctx, cancel := context.WithCancel(ctx)
	err := b.States(ctx, func(finding.State) error { cancel(); return nil })
	wantIs(t, "States that was cancelled", err, context.Canceled)
}

// What is replaced or removed while a snapshot runs does not make it wait for ever.
func TestStatesWhileTheyChange(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	for i := range 20 {
		_, err := b.PutState(ctx, finding.ClassVuln, someState(strconv.Itoa(i)), 0)
		must(t, err)
	}
	js, err := jetstream.New(nc)
	must(t, err)
	s, err := js.Stream(ctx, "STATE")
	must(t, err)
	n := 0
	must(t, b.States(ctx, func(finding.State) error {
		if n++; n == 1 {
			must(t, s.Purge(ctx, jetstream.WithPurgeSequence(0))) // all of it
			_, err := b.PutState(ctx, finding.ClassVuln, someState("new"), 0)
			must(t, err)
		}
		return nil
	}))
	if n < 1 || n > 20 {
		t.Errorf("%d states", n)
	}
}

// stored reads the last message of a subject as a subscriber would.
func stored(t *testing.T, nc *nats.Conn, stream, subject string) *jetstream.RawStreamMsg {
	t.Helper()
	js, err := jetstream.New(nc)
	must(t, err)
	s, err := js.Stream(t.Context(), stream)
	must(t, err)
	m, err := s.GetLastMsgForSubject(t.Context(), subject)
	if err != nil {
		info, _ := s.Info(t.Context(), jetstream.WithSubjectFilter(">"))
		t.Fatalf("%s: %v; there are %v", subject, err, info.State.Subjects)
	}
	return m
}

// objects counts the objects of a store.
func objects(t *testing.T, nc *nats.Conn, bucket string) int {
	t.Helper()
	js, err := jetstream.New(nc)
	must(t, err)
	store, err := js.ObjectStore(t.Context(), bucket)
	must(t, err)
	list, err := store.List(t.Context())
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return 0
	}
	must(t, err)
	return len(list)
}

func natsMessage(subject, body string, header map[string]string) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Data = []byte(body)
	for k, v := range header {
		m.Header.Set(k, v)
	}
	return m
}
