package machine

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	natsReady = 30 * time.Second
	// The settings that the all-in-one gives its own server.
	natsPayload = 8 << 20
	natsStore   = 1 << 40
	natsSync    = time.Second
)

// Server is a NATS server in this process that others reach.
type Server struct {
	URL    string // "nats://127.0.0.1:4222"
	server *server.Server
}

// NATS runs a server with JetStream on a loopback port, its store in dir.
func NATS(dir string) (*Server, error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "loadtest", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: dir, JetStreamMaxStore: natsStore, MaxPayload: natsPayload, SyncInterval: natsSync,
	})
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(natsReady) {
		s.Shutdown()
		return nil, errors.New("nats: not ready in time")
	}
	return &Server{URL: "nats://" + s.Addr().String(), server: s}, nil
}

// Stop ends the server.
func (s *Server) Stop() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}
