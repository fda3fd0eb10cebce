package subscriber_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/access/accesstest"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/subscriber"
)

// scene is an installation with one subscriber.
type scene struct {
	*testing.T
	server *accesstest.Server
	bus    *bus.Bus
	made   bus.Subscriber
	creds  string
}

func newScene(t *testing.T, severities ...report.Severity) *scene {
	t.Helper()
	return sceneOn(t, accesstest.Start(t), severities...)
}

func sceneOn(t *testing.T, server *accesstest.Server, severities ...report.Severity) *scene {
	t.Helper()
	s := &scene{T: t, server: server}
	s.bus = bustest.On(t, s.server.Connect(t, access.Admin), bus.Config{}, bus.Options{})
	var err error
	s.made, err = s.bus.AddSubscriber(t.Context(), bus.Subscription{
		Name: "a", Class: finding.ClassVuln, Scopes: []string{"registry.example/team"}, Severities: severities,
	})
	must(t, err)
	creds, err := s.server.Installation.SubscriberIssuer.Issue(access.User{
		Name: s.made.State, Permissions: access.ForSubscriber(access.Subscription{State: s.made.State, Findings: s.made.Findings}),
	})
	must(t, err)
	s.creds = filepath.Join(t.TempDir(), "a.creds")
	must(t, os.WriteFile(s.creds, creds, 0o600))
	t.Cleanup(func() {
		for _, v := range s.server.Violations() {
			t.Error(v)
		}
	})
	return s
}

// step takes a finding to a revision, in STATE and, if told, in FINDINGS; severity 0 resolves it.
func (s *scene) step(id string, revision uint64, severity report.Severity, told bool) {
	s.Helper()
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	a := finding.Asset{Host: "registry.example", Repository: "team/app", Track: "1", Platform: image.Platform{OS: "linux", Architecture: "amd64"}}
	state, rev, err := s.bus.State(s.Context(), finding.ClassVuln, a)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		s.Fatal(err)
	}
	f := finding.Finding{
		ID: id, Revision: revision, Class: finding.ClassVuln, Vulnerability: "CVE-2026-1", Type: "debian", Package: "openssl",
		Severity: severity, FirstSeen: at, Changed: at,
	}
	d := finding.Delta{EventID: finding.EventID(id, revision), Asset: a, Transition: finding.Opened, Finding: f, Cause: event.CausePush, Image: image.DigestOf(nil), At: at}
	i := slices.IndexFunc(state.Open, func(o finding.Finding) bool { return o.ID == id })
	if i >= 0 {
		old := state.Open[i]
		d.Transition, d.Old = finding.Changed, &old
		state.Open = slices.Delete(state.Open, i, i+1)
	}
	if severity != report.Unknown {
		state.Open = append(state.Open, f)
	} else {
		d.Transition, d.Resolution, d.Finding.Severity, d.Old = finding.Resolved, finding.Fixed, report.High, nil
		state.Resolved = map[string]uint64{id: revision}
	}
	state.Asset, state.Image, state.Outcome, state.Updated = a, image.DigestOf(nil), report.Findings, at
	_, err = s.bus.PutState(s.Context(), finding.ClassVuln, state, rev)
	must(s.T, err)
	if told {
		must(s.T, s.bus.PublishDelta(s.Context(), d))
	}
}

// run runs a subscriber until stop is called.
func (s *scene) run(cfg subscriber.Config, h subscriber.Handler) (stop func() error) {
	s.Helper()
	cfg.Retry, cfg.Logger = time.Millisecond, slog.New(slog.DiscardHandler)
	content, err := os.ReadFile(s.creds)
	must(s.T, err)
	sub, err := subscriber.Connect("", s.creds, cfg, s.server.OptionsOf(s.T, content)...)
	must(s.T, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sub.Run(ctx, h) }()
	s.Cleanup(cancel)
	return func() error {
		cancel()
		defer sub.Close()
		return receive(s.T, "the end of Run", ended)
	}
}

// diary writes down what it is told; refuse makes it refuse.
type diary struct {
	told   chan string
	refuse func(what string) error
}

func newDiary() *diary {
	return &diary{told: make(chan string, 100), refuse: func(string) error { return nil }}
}

func (d *diary) tell(what string) error {
	if err := d.refuse(what); err != nil {
		return err
	}
	d.told <- what
	return nil
}

func (d *diary) Snapshot(_ context.Context, s finding.State) error {
	var open []string
	for _, f := range s.Open {
		open = append(open, fmt.Sprintf("%s.%d", f.ID, f.Revision))
	}
	return d.tell("snapshot " + strings.Join(open, " "))
}

func (d *diary) Delta(_ context.Context, delta finding.Delta) error {
	return d.tell(fmt.Sprintf("%s %s.%d", delta.Transition, delta.Finding.ID, delta.Finding.Revision))
}

func (d *diary) wants(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := receive(t, w, d.told); got != w {
			t.Fatalf("told %q, want %q", got, w)
		}
	}
}

func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("never came: %s", what)
		panic("unreachable")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotThenFollow(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.step("a", 1, report.High, true) // in both
	s.step("b", 1, report.Low, true)
	d := newDiary()
	stop := s.run(subscriber.Config{}, d)
	d.wants(t, "snapshot a.1 b.1")
	s.step("a", 2, report.Critical, true)
	s.step("a", 3, report.Unknown, true)
	d.wants(t, "changed a.2", "resolved a.3")
	must(t, stop())

	// A new process knows nothing, and is told everything.
	s.step("c", 1, report.Low, true)
	d = newDiary()
	stop = s.run(subscriber.Config{}, d)
	d.wants(t, "snapshot b.1 c.1")
	must(t, stop())
	// One that keeps what it was told goes on.
	d = newDiary()
	stop = s.run(subscriber.Config{Resume: true}, d)
	s.step("d", 1, report.Low, true)
	got := receive(t, "d", d.told)
	if got == "opened c.1" { // the last run knew it from the snapshot, and may have ended before it came
		got = receive(t, "d", d.told)
	}
	if got != "opened d.1" && got != "snapshot b.1 c.1 d.1" { // it was quicker than the first look, or not
		t.Errorf("told %q", got)
	}
	must(t, stop())
}

func TestWhatAHandlerRefusesComesAgain(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.step("a", 1, report.High, false)
	d, refused := newDiary(), map[string]int{}
	d.refuse = func(what string) error {
		if refused[what]++; refused[what] < 3 {
			return errors.New("not now")
		}
		return nil
	}
	stop := s.run(subscriber.Config{}, d)
	d.wants(t, "snapshot a.1")
	var want []string
	for revision := uint64(2); revision < 12; revision++ {
		s.step("a", revision, report.Severity(1+revision%4), true)
		want = append(want, fmt.Sprintf("changed a.%d", revision))
	}
	d.wants(t, want...)
	must(t, stop())
}

func TestMissedDeltasAreASnapshot(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.step("a", 1, report.High, false)
	d := newDiary()
	stop := s.run(subscriber.Config{}, d)
	d.wants(t, "snapshot a.1")
	s.step("a", 2, report.Low, false) // as if FINDINGS had dropped it
	s.step("a", 3, report.High, true)
	d.wants(t, "snapshot a.3")
	s.step("a", 4, report.Low, true)
	d.wants(t, "changed a.4")
	must(t, stop())
}

func TestSeveritiesHoldForTheSnapshotToo(t *testing.T) {
	t.Parallel()
	s := newScene(t, report.Critical, report.High)
	s.step("a", 1, report.High, true)
	s.step("b", 1, report.Low, true)
	d := newDiary()
	stop := s.run(subscriber.Config{}, d)
	d.wants(t, "snapshot a.1")
	s.step("b", 2, report.Medium, true)
	s.step("b", 3, report.Critical, true)
	s.step("a", 2, report.Low, true) // leaves
	d.wants(t, "changed b.3", "changed a.2")
	must(t, stop())
}

func TestRemovedSubscriberEnds(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	must(t, s.bus.DropSubscriber(t.Context(), s.made))
	content, err := os.ReadFile(s.creds)
	must(t, err)
	sub, err := subscriber.Connect("", s.creds, subscriber.Config{Retry: time.Millisecond, Logger: slog.New(slog.DiscardHandler)}, s.server.OptionsOf(t, content)...)
	must(t, err)
	defer sub.Close()
	if err := sub.Run(t.Context(), newDiary()); err == nil || !strings.Contains(err.Error(), "ask for new credentials") {
		t.Error(err)
	}
	if _, err := subscriber.Connect("", filepath.Join(t.TempDir(), "none"), subscriber.Config{}); err == nil {
		t.Error("connected without credentials")
	}
}
