package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/pratique-sec/pratique/pkg/service"
)

func TestLogsCarryTheTrace(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	provider, err := service.NewTracer(t.Context(), service.TraceConfig{Service: "test", Processor: spans})
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := provider.Tracer("test").Start(t.Context(), "work")
	var out bytes.Buffer
	log, err := service.NewLogger(&out, service.LogConfig{Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	log.With("a", 1).InfoContext(ctx, "hello")
	span.End()
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if want := span.SpanContext().TraceID().String(); line["trace_id"] != want || line["a"] != 1.0 {
		t.Errorf("log line %v, want trace_id %s", line, want)
	}
	if n := len(spans.Ended()); n != 1 {
		t.Errorf("%d spans recorded, want 1", n)
	}
	if _, err := service.NewLogger(&out, service.LogConfig{Format: "xml"}); err == nil {
		t.Error("an unknown format is accepted")
	}
}

func TestAdmin(t *testing.T) {
	var h service.Health
	s := httptest.NewServer(service.Admin(&h, service.NewRegistry()))
	defer s.Close()
	get := func(path string, status int, contains string) {
		t.Helper()
		resp, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != status || !strings.Contains(string(body), contains) {
			t.Errorf("GET %s = %d %q, want %d with %q", path, resp.StatusCode, body, status, contains)
		}
	}
	get("/readyz", 200, "ok")
	h.Set("database", errors.New("none loaded"))
	h.Set("nats", nil)
	get("/readyz", 503, "database: none loaded")
	get("/livez", 200, "ok")
	get("/metrics", 200, "go_goroutines")
	h.Set("database", nil)
	get("/readyz", 200, "ok")
}

// untilStopped is a task that does what it is told.
func untilStopped(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestRun(t *testing.T) {
	log, boom := slog.New(slog.DiscardHandler), errors.New("boom")
	t.Run("told to stop", func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := service.Run(ctx, log, time.Minute, service.Task{Name: "a", Run: untilStopped}, service.Task{Name: "b", Run: untilStopped}); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Run("one fails", func(t *testing.T) {
		err := service.Run(t.Context(), log, time.Minute, service.Task{Name: "a", Run: untilStopped},
			service.Task{Name: "b", Run: func(context.Context) error { return boom }})
		if !errors.Is(err, boom) || !strings.Contains(err.Error(), "b: boom") {
			t.Errorf("Run = %v, want b: boom", err)
		}
	})
	t.Run("one does not drain", func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		ctx, stop := context.WithCancel(t.Context())
		stop()
		err := service.Run(ctx, log, time.Millisecond, service.Task{Name: "slow", Run: func(context.Context) error { <-release; return nil }})
		if err == nil || !strings.Contains(err.Error(), "slow: still running") {
			t.Errorf("Run = %v, want it to name the task", err)
		}
	})
	t.Run("nothing to run", func(t *testing.T) {
		if err := service.Run(t.Context(), log, time.Minute); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestServeHTTPDrains(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		w.WriteHeader(http.StatusTeapot)
	})
	ctx, stop := context.WithCancel(t.Context())
	served, status := make(chan error, 1), make(chan int, 1)
	go func() {
		served <- service.ServeHTTP(ctx, l, h, service.TLSFiles{}, time.Minute, slog.New(slog.DiscardHandler))
	}()
	go func() {
		resp, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			status <- 0
			return
		}
		resp.Body.Close()
		status <- resp.StatusCode
	}()
	<-entered
	stop()
	close(release)
	if got := <-status; got != http.StatusTeapot {
		t.Errorf("the running request got %d, want its answer", got)
	}
	if err := <-served; err != nil {
		t.Errorf("ServeHTTP = %v", err)
	}
}

func TestNATSComesLateAndIsReady(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close() // free for the server that starts later
	var h service.Health
	nc, err := service.ConnectNATS(service.NATSConfig{URL: "nats://" + l.Addr().String()}, "test", &h,
		slog.New(slog.DiscardHandler), nats.ReconnectWait(5*time.Millisecond), nats.ReconnectJitter(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if h.Ready() == nil {
		t.Error("ready without a server")
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.Shutdown()
	eventually(t, func() bool { return h.Ready() == nil })
	s.Shutdown()
	eventually(t, func() bool { return h.Ready() != nil })
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it never came true")
		}
	}
}
