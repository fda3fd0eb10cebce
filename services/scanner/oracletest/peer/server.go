package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"time"
)

// Server is a running `trivy server`.
type Server struct {
	URL string // "http://127.0.0.1:4954"

	cancel context.CancelFunc
	ended  chan struct{} // closed when it has
	err    error         // of its end
}

// ready bounds the start of a server, on a busy machine.
const ready = time.Minute

// Serve starts a server on a cache folder that Cache made, with layers and images kept in a Redis
// ("redis://127.0.0.1:6379"). It lives until Close, or until ctx ends.
func (t Trivy) Serve(ctx context.Context, cache, redis string) (*Server, error) {
	address, err := FreeAddress(ctx)
	if err != nil {
		return nil, fmt.Errorf("trivy server: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Server{URL: "http://" + address, cancel: cancel, ended: make(chan struct{})}
	cmd := exec.CommandContext(ctx, t.Path, "--cache-dir", cache, "--quiet", "server", "--listen", address,
		"--cache-backend", redis, "--skip-db-update")
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("trivy server: %w", err)
	}
	go func() {
		s.err = cmd.Wait()
		close(s.ended)
	}()
	if err := s.healthy(ctx); err != nil {
		s.Close() // and with it whoever writes to said
		return nil, fmt.Errorf("trivy server: %w\n%s", err, said.String())
	}
	return s, nil
}

// healthy waits until it answers.
func (s *Server) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if Answers(ctx, s.URL+"/healthz") {
				return nil
			}
		case <-s.ended:
			return fmt.Errorf("ended at its start: %w", s.err)
		case <-ctx.Done():
			return errors.New("not ready in time")
		}
	}
}

// Answers tells whether a GET is answered with 200.
func Answers(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

// Close ends the server.
func (s *Server) Close() {
	s.cancel()
	<-s.ended
}

// FreeAddress is a loopback address that was free a moment ago, for programs that want to be told one.
func FreeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
