package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

const (
	askTimeout = 3 * time.Second
	maxReasons = 4 << 10 // bytes of an answer that are shown
)

// askReady asks the process whose health is served at listen ("host:port") whether it can work.
func askReady(ctx context.Context, listen string) error {
	address, err := reachable(listen)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("admin.listen: %w", err)
	}
	transport := &http.Transport{DisableKeepAlives: true} // no proxy, whatever the environment says
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("not alive: %w", err)
	}
	defer resp.Body.Close()
	reasons, err := io.ReadAll(io.LimitReader(resp.Body, maxReasons))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", strings.TrimSpace(string(reasons)))
	}
	return err
}

// reachable is where a process that listens on listen answers from within the same container: one that
// listens on every address does so on loopback.
func reachable(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("admin.listen: %w", err)
	}
	if port == "0" {
		return "", errors.New("admin.listen: port 0 is another one each time; name one to be asked at")
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}
