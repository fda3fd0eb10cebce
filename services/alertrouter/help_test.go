package alertrouter_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/alertrouter"
)

// patience is how long a test waits for what must happen, on a busy machine.
const patience = time.Minute

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never happened: %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// post is one webhook message as a receiver reads it.
type post struct {
	Key               string
	Version           string            `json:"version"`
	GroupKey          string            `json:"groupKey"`
	Status            string            `json:"status"`
	Receiver          string            `json:"receiver"`
	Reason            string            `json:"notification_reason"`
	TruncatedAlerts   int               `json:"truncatedAlerts"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	Alerts            []struct {
		Status      string            `json:"status"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
		StartsAt    time.Time         `json:"startsAt"`
		EndsAt      time.Time         `json:"endsAt"`
		Fingerprint string            `json:"fingerprint"`
	} `json:"alerts"`
}

// says is "firing:CVE-1 resolved:CVE-2", sorted.
func (p post) says() string {
	var all []string
	for _, a := range p.Alerts {
		name := a.Labels["vulnerability"] + a.Labels["check"] + a.Labels["notice"]
		all = append(all, a.Status+":"+name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// hook is a receiver.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	posts  []post
	answer func(w http.ResponseWriter, r *http.Request) // nil: 200
	taken  func()                                       // called before the answer; nil: nothing
}

func newHook(t testing.TB) *hook {
	t.Helper()
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // cut off
		}
		var p post
		if err := json.Unmarshal(body, &p); err != nil {
			t.Errorf("posted no JSON: %v", err)
		}
		p.Key = r.Header.Get("Idempotency-Key")
		h.mu.Lock()
		answer, taken := h.answer, h.taken
		if answer == nil {
			h.posts = append(h.posts, p)
		}
		h.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
		if taken != nil {
			taken()
		}
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) all() []post {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.posts)
}

func (h *hook) set(answer func(http.ResponseWriter, *http.Request)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = answer
}

// wait waits for so many posts, and answers all.
func (h *hook) wait(t testing.TB, n int) []post {
	t.Helper()
	eventually(t, fmt.Sprintf("%d posts", n), func() bool { return len(h.all()) >= n })
	return h.all()
}

// last waits until the last post says something.
func (h *hook) last(t testing.TB, want string) post {
	t.Helper()
	var p post
	defer func() {
		if t.Failed() {
			for _, p := range h.all() {
				t.Logf("posted %s %s %s", p.Reason, p.says(), p.Key)
			}
		}
	}()
	eventually(t, "last post says "+want, func() bool {
		all := h.all()
		if len(all) == 0 {
			return false
		}
		p = all[len(all)-1]
		return p.says() == want
	})
	return p
}

// file writes a configuration.
func file(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "alertmanager.yml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// quick is a route's timing in tests: what JetStream's timers resolve.
const quick = "group_wait: 300ms\n  group_interval: 300ms\n  repeat_interval: 1h"

// simple is a configuration with one receiver and a group for each repository.
func simple(h *hook) string {
	return "route:\n  receiver: team\n  group_by: [repository]\n  " + quick + "\nreceivers:\n- name: team\n  webhook_configs: [{url: '" + h.URL + "'}]\n"
}

// router is a running service.
type router struct {
	*alertrouter.Service
	stop func()
}

func start(t testing.TB, b *bus.Bus, cfg alertrouter.Config) *router {
	t.Helper()
	if cfg.Backoff == 0 {
		cfg.Backoff = 50 * time.Millisecond
	}
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = 400 * time.Millisecond
	}
	s, err := alertrouter.New(cfg, alertrouter.Deps{Bus: b, Logger: logger(t)})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx) // ends with ctx, or because the test killed it
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return &router{s, stop}
}

func logger(t testing.TB) *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return slog.New(slog.DiscardHandler)
}

var began = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// delta is a transition of a vulnerability of a repository.
func delta(repository, vulnerability string, revision uint64, transition finding.Transition) finding.Delta {
	asset := finding.Asset{Host: "registry.example", Repository: repository, Track: "main", Platform: image.Platform{OS: "linux", Architecture: "amd64"}}
	id := finding.ID(asset, finding.ClassVuln, vulnerability, "debian", "liblzma5", "")
	d := finding.Delta{
		EventID: finding.EventID(id, revision), Asset: asset, Transition: transition, Cause: event.CausePush,
		Finding: finding.Finding{
			ID: id, Revision: revision, Class: finding.ClassVuln, Vulnerability: vulnerability, Type: "debian", Package: "liblzma5",
			Versions: []string{"5.6.0"}, Fixed: "5.6.2", Severity: report.Critical, Title: "a backdoor", URL: "https://avd.example/" + vulnerability,
			FirstSeen: began, Changed: began.Add(time.Duration(revision) * time.Second),
		},
		At: began.Add(time.Duration(revision) * time.Second),
	}
	if transition == finding.Resolved {
		d.Resolution = finding.Fixed
	}
	return d
}

func publish(t testing.TB, b *bus.Bus, deltas ...finding.Delta) {
	t.Helper()
	for _, d := range deltas {
		must(t, b.PublishDelta(t.Context(), d))
	}
}
