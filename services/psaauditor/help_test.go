package psaauditor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/report"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// patience is how long a test waits for what must happen, on a busy machine.
const patience = 30 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serviceOn makes an auditor on a bus.
func serviceOn(t *testing.T, b Bus, cfg Config) *Service {
	t.Helper()
	s, err := New(cfg, Deps{
		Bus: b, Engine: report.Engine{Version: "test"}, Logger: slog.New(slog.DiscardHandler),
		Registerer: prometheus.NewRegistry(), Now: func() time.Time { return noon },
	})
	must(t, err)
	return s
}

// run runs a service until the test ends or stop is called, which waits for it.
func run(t *testing.T, s *Service) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func manifests(id, body string) event.Event {
	return event.Event{
		ID: id, Kind: event.KindManifest, Source: "api", Action: event.Request, Cause: event.CauseRequest, Received: noon,
		Manifests: event.Manifests{Cluster: "prod", Namespace: "default", Body: []byte(body)},
	}
}

// deployment has a pod spec's fields, beside those of a hardened one.
func deployment(name, fields string) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %s, namespace: team-a}
spec:
  template:
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - {name: a, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
      %s
`, name, fields)
}

func assetOf(name string) finding.Asset {
	return finding.Asset{Workload: finding.Workload{Cluster: "prod", Namespace: "team-a", Kind: "Deployment", Name: name}}
}

// watched collects what a watch sees until enough says so.
func watched[T any](t *testing.T, watch func(context.Context, uint64, func(uint64, T) error) error, enough func([]T) bool) []T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var all []T
	done := errors.New("enough")
	err := watch(ctx, 1, func(_ uint64, v T) error {
		if all = append(all, v); enough(all) {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatalf("saw %d, and not enough: %v", len(all), err)
	}
	return all
}

// deltasOf are a workload's, when it has as many as are waited for.
func deltasOf(t *testing.T, b *bus.Bus, name string, n int) []finding.Delta {
	t.Helper()
	var mine []finding.Delta
	watched(t, b.WatchDeltas, func(all []finding.Delta) bool {
		if d := all[len(all)-1]; d.Asset == assetOf(name) {
			mine = append(mine, d)
		}
		return len(mine) == n
	})
	return mine
}

func scansOf(t *testing.T, b *bus.Bus, name string, n int) []finding.Scan {
	t.Helper()
	var mine []finding.Scan
	watched(t, b.WatchScans, func(all []finding.Scan) bool {
		if s := all[len(all)-1]; s.Asset != nil && *s.Asset == assetOf(name) {
			mine = append(mine, s)
		}
		return len(mine) == n
	})
	return mine
}

// told says deltas in a few words: "opened high baseline/hostNamespaces r1".
func told(all []finding.Delta) (out []string) {
	for _, d := range all {
		f := d.Finding
		s := string(d.Transition) + " " + f.Severity.String() + " " + f.PodSecurity.Level + "/" + f.PodSecurity.Check + " r" + strconv.FormatUint(f.Revision, 10)
		if d.Resolution != "" {
			s += " " + string(d.Resolution)
		}
		out = append(out, s)
	}
	return out
}

func newBus(t *testing.T) *bus.Bus {
	t.Helper()
	return bustest.New(t, bus.Config{}, bus.Options{})
}
