// Package bustest gives tests a real JetStream: an embedded server of their own, which starts in
// milliseconds and leaves nothing behind. There is no fake.
package bustest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/bus"
)

// ready bounds the start of a server and the provisioning of a bus, on a busy machine.
const ready = time.Minute

// Start runs a server without a listener, with its store in the test's temporary directory, and
// answers a connection to it.
func Start(t testing.TB) *nats.Conn {
	t.Helper()
	return Connect(t, StartServer(t))
}

// StartServer runs the server alone, for tests with several connections.
func StartServer(t testing.TB) *server.Server {
	t.Helper()
	return startServer(t, &server.Options{DontListen: true})
}

// Listen runs a server that others than this test reach, processes that the test starts, and answers its
// URL.
func Listen(t testing.TB) string {
	t.Helper()
	return startServer(t, &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT}).ClientURL()
}

func startServer(t testing.TB, opts *server.Options) *server.Server {
	t.Helper()
	opts.NoSigs, opts.NoLog = true, true
	opts.JetStream, opts.StoreDir, opts.MaxPayload = true, t.TempDir(), 8<<20
	opts.JetStreamMaxStore = 1 << 40 // limits are reserved; nothing near them is written
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatalf("bustest: %v", err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(ready) {
		t.Fatal("bustest: server is not ready")
	}
	return s
}

// Connect opens a connection of its own: a second process, as far as the server can tell.
func Connect(t testing.TB, s *server.Server) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatalf("bustest: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// New answers a provisioned bus on a server of its own. What cfg and opts leave open is set for tests:
// short waits, small limits, no logs.
func New(t testing.TB, cfg bus.Config, opts bus.Options) *bus.Bus {
	t.Helper()
	return On(t, Start(t), cfg, opts)
}

// On is New on a connection that is there already, to put several buses on one server.
func On(t testing.TB, nc *nats.Conn, cfg bus.Config, opts bus.Options) *bus.Bus {
	t.Helper()
	if cfg.AckWait == 0 {
		cfg.AckWait = 2 * time.Second
	}
	if cfg.Poll == 0 {
		cfg.Poll = 20 * time.Millisecond
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = 20 * time.Millisecond
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 256 << 20
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	b, err := bus.New(nc, cfg, opts)
	if err != nil {
		t.Fatalf("bustest: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), ready)
	defer cancel()
	if err := b.Provision(ctx); err != nil {
		t.Fatalf("bustest: %v", err)
	}
	return b
}
