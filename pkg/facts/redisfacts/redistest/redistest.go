// Package redistest gives tests a real redis-server of their own. Where the binary is missing they are
// skipped, and say so.
package redistest

import (
	"bufio"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
)

// ready bounds the start of a server, on a busy machine.
const ready = 30 * time.Second

// Server is a running redis-server.
type Server struct {
	Client *redis.Client
	cmd    *exec.Cmd
}

// Start runs a server on a Unix socket in the test's temporary directory, so that no port can be taken,
// and answers it with a connected client.
func Start(t testing.TB) *Server {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed: apt-get install redis-server, or the like, to run this test")
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(binary, "--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--appendonly", "no", "--daemonize", "no")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("redistest: %v", err)
	}
	s := &Server{cmd: cmd}
	t.Cleanup(s.Stop)

	listening := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(out)
		open := true
		for lines.Scan() { // to the end: a full pipe would stop the server
			if open && strings.Contains(lines.Text(), "eady to accept connections") {
				open = false
				close(listening)
			}
		}
	}()
	select {
	case <-listening:
	case <-time.After(ready):
		t.Fatal("redistest: server is not ready")
	}
	if s.Client, err = redisfacts.Connect(redisfacts.Config{URL: "unix://" + socket}); err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(func() { _ = s.Client.Close() })
	if err := s.Client.Ping(context.Background()).Err(); err != nil {
		t.Fatalf("redistest: %v", err)
	}
	return s
}

// Stop kills the server; a second time it does nothing.
func (s *Server) Stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}
