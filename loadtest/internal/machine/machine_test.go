package machine_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/loadtest/internal/machine"
)

func TestPeak(t *testing.T) {
	n, err := machine.Peak(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if n < 1<<20 || n > 1<<40 {
		t.Errorf("%d bytes", n)
	}
	if _, err := machine.Peak(1 << 30); err == nil {
		t.Error("a process that is not there has memory")
	}
	if s := machine.Shape(); !strings.Contains(s, "core") || !strings.Contains(s, "GiB") {
		t.Errorf("shape %q", s)
	}
}

// A throttled connection sends no faster than it may: the lower bound is what a measurement rests on.
func TestThrottle(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const rate, size = 4 << 20, 1 << 20
	l = machine.Throttle(l, rate)
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write(make([]byte, size))
		_ = c.Close()
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	n, err := io.Copy(io.Discard, c)
	if err = errors.Join(err, c.Close()); err != nil || n != size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if took, least := time.Since(begin), time.Second*(size-64<<10)/rate; took < least {
		t.Errorf("took %v, at the rate it is %v at least", took, least)
	}
}

func TestRedis(t *testing.T) {
	address, stop, err := machine.Redis(t.Context(), t.TempDir())
	if errors.Is(err, machine.ErrNoRedis) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	stop()
	if c, err := net.Dial("tcp", address); err == nil {
		_ = c.Close()
		t.Error("still there after stop")
	}
}

func TestNATS(t *testing.T) {
	s, err := machine.NATS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := nc.RequestWithContext(ctx, "$JS.API.INFO", nil); err != nil {
		t.Errorf("JetStream: %v", err)
	}
	s.Stop()
}
