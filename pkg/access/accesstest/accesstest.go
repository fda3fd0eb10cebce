// Package accesstest gives tests a NATS server in operator mode, and connections with the credentials that a
// real installation hands out.
package accesstest

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/access"
)

// ready bounds the start of a server on a busy machine.
const ready = time.Minute

// Server is an embedded one, configured by the file that access.Installation.ServerConfig writes.
type Server struct {
	*server.Server
	Installation *access.Installation
	Root         string // of the roles' permissions; "" is the default one

	mu      sync.Mutex
	refused []string
}

// Start runs a server with its store in the test's temporary directory. Nothing listens: connections are made
// in memory.
func Start(t testing.TB) *Server {
	t.Helper()
	return start(t, func(o *server.Options) { o.DontListen = true })
}

// Listen runs one that other processes reach at its ClientURL.
func Listen(t testing.TB) *Server {
	t.Helper()
	return start(t, func(o *server.Options) { o.Host, o.Port = "127.0.0.1", server.RANDOM_PORT })
}

func start(t testing.TB, change func(*server.Options)) *Server {
	t.Helper()
	in, err := access.NewInstallation("test", "")
	if err != nil {
		t.Fatalf("accesstest: %v", err)
	}
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, in.ServerConfig(t.TempDir()), 0o600); err != nil {
		t.Fatalf("accesstest: %v", err)
	}
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatalf("accesstest: %v", err)
	}
	opts.NoSigs, opts.NoLog, opts.JetStreamMaxStore = true, true, 16<<30
	change(opts)
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatalf("accesstest: %v", err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(ready) {
		t.Fatal("accesstest: server is not ready")
	}
	return &Server{Server: s, Installation: in}
}

// Connect opens a connection as a role.
func (s *Server) Connect(t testing.TB, r access.Role) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("", s.Options(t, r)...)
	if err != nil {
		t.Fatalf("accesstest: connect as %s: %v", r, err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// Options are what a connection as a role is made with.
func (s *Server) Options(t testing.TB, r access.Role) []nats.Option {
	t.Helper()
	creds, err := s.Installation.Issuer.IssueRole(s.Root, r)
	if err != nil {
		t.Fatalf("accesstest: %v", err)
	}
	return s.OptionsOf(t, creds)
}

// OptionsOf are what a connection with some credentials is made with.
func (s *Server) OptionsOf(t testing.TB, creds []byte) []nats.Option {
	t.Helper()
	inbox, err := access.InboxOf(creds)
	if err != nil {
		t.Fatalf("accesstest: %v", err)
	}
	return []nats.Option{
		nats.InProcessServer(s.Server), nats.UserCredentialBytes(creds), nats.CustomInboxPrefix(inbox),
		nats.MaxReconnects(-1), nats.ReconnectWait(10 * time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if !errors.Is(err, nats.ErrPermissionViolation) {
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.refused = append(s.refused, err.Error())
		}),
	}
}

// Violations are what the server refused to any of the connections.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refused)
}
