package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"time"
)

// ErrNoRedis says that redis-server is not installed.
var ErrNoRedis = errors.New("redis-server is not installed (apt-get install redis-server, or the like)")

// redisReady bounds the start of a server, on a busy machine.
const redisReady = 30 * time.Second

// Redis runs an empty redis-server without persistence on a loopback port, until stop is called.
func Redis(ctx context.Context, dir string) (address string, stop func(), err error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return "", nil, ErrNoRedis
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("redis-server: %w", err)
	}
	address = l.Addr().String()
	if err := l.Close(); err != nil {
		return "", nil, fmt.Errorf("redis-server: %w", err)
	}
	_, port, _ := net.SplitHostPort(address)
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, binary, "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "", "--appendonly", "no")
	if err := cmd.Start(); err != nil {
		cancel()
		return "", nil, fmt.Errorf("redis-server: %w", err)
	}
	stop = func() {
		cancel()
		_ = cmd.Wait() // killed
	}
	if err := answers(ctx, address); err != nil {
		stop()
		return "", nil, fmt.Errorf("redis-server: %w", err)
	}
	return address, stop, nil
}

func answers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, redisReady)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %w", err)
		}
	}
}
