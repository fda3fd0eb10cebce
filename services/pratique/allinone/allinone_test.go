package allinone

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/pkg/service"
)

func TestStateHasOneOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openState(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("second owner: %v", err)
	}
	if err := s.installation(); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(s.creds())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.announce(Endpoint{NATS: "nats://127.0.0.1:4", API: "http://127.0.0.1:5"}); err != nil {
		t.Fatal(err)
	}
	e, err := Find(dir)
	if err != nil || e.NATS != "nats://127.0.0.1:4" || e.API != "http://127.0.0.1:5" {
		t.Errorf("%+v, %v", e, err)
	}
	for _, name := range []string{e.Creds, e.Signer, filepath.Join(dir, endpointFile)} {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", name, st.Mode())
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after close: %v", err)
	}

	s, err = openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.installation(); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(s.creds()); err != nil || string(again) != string(first) {
		t.Errorf("other credentials after a restart: %v", err)
	}
}

// What an earlier release stored, whose server knew no accounts, is there afterwards.
func TestStreamsOfAnEarlierReleaseAreTakenOver(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	old, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: s.path(natsFolder), JetStreamMaxStore: maxStore})
	if err != nil {
		t.Fatal(err)
	}
	old.Start()
	if !old.ReadyForConnections(natsReady) {
		t.Fatal("not ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(old))
	if err != nil {
		t.Fatal(err)
	}
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	if err := errors.Join(b.PutSetting(t.Context(), "kept", "yes"), stopNATS(nc, old), s.close()); err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), Config{State: dir}, Deps{Logger: slog.New(slog.DiscardHandler)}, func(ctx context.Context, s *System) error {
		v, err := s.Bus.Setting(ctx, "kept")
		if v != "yes" {
			t.Errorf("the setting is %q", v)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestNATSIsForThisMachineAlone(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:4222": true,
		"0.0.0.0:4222": false, ":4222": false, "10.1.2.3:4222": false, "localhost:4222": false, "127.0.0.1": false, "127.0.0.1:x": false, "127.0.0.1:70000": false,
	} {
		if _, _, err := loopback(address); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// Ready means that the connection stands and every queue is taken from, neither before nor after.
func TestHealthFollowsTheQueues(t *testing.T) {
	health := &service.Health{}
	log := slog.New(slog.DiscardHandler)
	err := Run(t.Context(), Config{State: t.TempDir()}, Deps{Logger: log, Health: health}, func(ctx context.Context, s *System) error {
		eventually(t, "ready", func() bool { return health.Ready() == nil })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	state := health.Ready()
	if state == nil {
		t.Fatal("still ready")
	}
	for _, part := range append(bus.Queues(), bus.QueueManifests, "nats") {
		if !strings.Contains(state.Error(), part+": ") {
			t.Errorf("%s is still well: %v", part, state)
		}
	}
}

func TestHealthFollowsTheConnection(t *testing.T) {
	dir, log, health := filepath.Join(t.TempDir(), "state"), slog.New(slog.DiscardHandler), &service.Health{}
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := startNATS(s, "", log)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := connect(s, srv, health, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := health.Ready(); err != nil {
		t.Errorf("connected, but %v", err)
	}
	srv.Shutdown()
	eventually(t, "not ready", func() bool { return health.Ready() != nil })
	if err := errors.Join(stopNATS(nc, srv), s.close()); err != nil {
		t.Error(err)
	}
}

// A body that is done ends everything; what it answers is the answer.
func TestRunEndsWithItsBody(t *testing.T) {
	dir := t.TempDir()
	mine := errors.New("mine")
	err := Run(t.Context(), Config{State: dir, NATS: "127.0.0.1:0"}, Deps{Logger: slog.New(slog.DiscardHandler)},
		func(ctx context.Context, s *System) error {
			if !strings.HasPrefix(s.API, "http://127.0.0.1:") {
				t.Errorf("API at %q", s.API)
			}
			if _, err := s.Bus.Backlog(ctx); err != nil {
				t.Error(err)
			}
			if _, err := Find(dir); err != nil {
				t.Error(err)
			}
			return mine
		})
	if !errors.Is(err, mine) {
		t.Errorf("%v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		if f.Name() == endpointFile || f.Name() == workFolder {
			t.Errorf("%s is left", f.Name())
		}
	}
}

func TestRunNamesWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"nats":     {Config{NATS: "0.0.0.0:1"}, "only loopback"},
		"redis":    {Config{Redis: redisfacts.Config{URL: "http://x"}}, "redis://"},
		"database": {Config{Database: t.TempDir()}, "load vulndb"},
		"host":     {Config{Registries: registry.Config{Hosts: map[string]registry.Host{"https://x": {}}}}, "hosts"},
		"api":      {Config{API: "0.0.0.0:0"}, "no tokens"},
	} {
		c.cfg.State = t.TempDir()
		err := Run(t.Context(), c.cfg, Deps{Logger: slog.New(slog.DiscardHandler)}, func(context.Context, *System) error { return nil })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
	}
}
