package e2e

import (
	"cmp"
	"io"
	stdlog "log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/services/pratique/demo"
	"github.com/pratique-sec/pratique/services/pratique/e2e/processes"
)

// wiring starts an installation in one of the ways in which it is run, and ends it with the test. What a
// test then sees of it is the same.
type wiring func(t testing.TB, o options) *pipeline

// inBoth runs a test in each wiring: services in one process, and each service's process over a real
// nats-server and Redis.
func inBoth(t *testing.T, test func(t *testing.T, start wiring)) {
	t.Run("in one process", func(t *testing.T) { test(t, start) })
	t.Run("as processes", func(t *testing.T) {
		if testing.Short() {
			t.Skip("builds every service's program; leave -short away")
		}
		test(t, startProcesses)
	})
}

// startProcesses starts every service as a process. Faults, traces and stores of facts are a test's own
// and can not be given to another process.
func startProcesses(t testing.TB, o options) *pipeline {
	t.Helper()
	if o.fault != nil || o.tracer != nil || o.facts != nil {
		t.Fatal("faults, traces and stores can not be given to processes")
	}
	programs, err := processes.Present()
	if err != nil {
		t.Fatal(err)
	}
	p := &pipeline{t: t, opts: o, log: quiet(t), registry: &counting{blobs: map[string]int{}, analysed: map[string]int{}}}
	p.host = serve(t, p.registry)
	s := processes.Start(t, processes.Config{
		Programs: programs, Hosts: append([]string{p.host}, o.hosts...),
		Replicas: map[string]int{"layercache": o.planners, "scanner": o.scanners},
	})
	p.observe(s)
	p.api = s.APIs[0]
	if o.silent {
		p.registry.inner = silentRegistry()
	} else {
		p.registry.inner = demo.NewRegistry(demo.RegistryConfig{
			Notify: "http://" + p.api + "/v1/events/distribution", Logger: p.log, Now: now,
		})
	}
	if !o.noDatabase {
		p.load(cmp.Or(o.database, usual))
	}
	return p
}

// quiet logs errors alone.
func quiet(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(&testWriter{t: t}, &slog.HandlerOptions{Level: slog.LevelError}))
}

// silentRegistry notifies nobody.
func silentRegistry() http.Handler { return ggcr.New(ggcr.Logger(stdlog.New(io.Discard, "", 0))) }

// serve answers the address of a handler's server.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// observe connects the test to a system of processes.
func (p *pipeline) observe(s *processes.System) {
	p.t.Helper()
	nc := s.Connect(p.t)
	var err error
	if p.bus, err = bus.New(nc, bus.Config{}, bus.Options{Logger: p.log}); err != nil {
		p.t.Fatal(err)
	}
	if p.js, err = jetstream.New(nc); err != nil {
		p.t.Fatal(err)
	}
}
