package demo

import (
	"encoding/json/v2"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

// endpoint takes notifications, refusing the first few.
type endpoint struct {
	mu     sync.Mutex
	refuse int
	got    []notification
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.refuse > 0 {
		e.refuse--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var env envelope
	if err := json.Unmarshal(body, &env); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	e.got = append(e.got, env.Events...)
}

func TestRegistryTellsOfEachManifest(t *testing.T) {
	e := &endpoint{refuse: 2}
	hook := httptest.NewServer(e)
	defer hook.Close()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	notifying := NewRegistry(RegistryConfig{
		Notify: hook.URL, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return at },
	})
	defer notifying.Close()
	registry := httptest.NewServer(notifying)
	defer registry.Close()
	host := strings.TrimPrefix(registry.URL, "http://")

	images, err := demodata.Images()
	if err != nil {
		t.Fatal(err)
	}
	if err := Push(t.Context(), host, images, nil); err != nil {
		t.Fatal(err)
	}

	// One for each tag, and one for each of the index's two children, which have none.
	var tagged, untagged int
	for _, n := range e.got {
		if n.Action != "push" || !n.Timestamp.Equal(at) || n.ID == "" || n.Request.Host != host {
			t.Errorf("event %+v", n)
		}
		if n.Target.Digest == "" || n.Target.MediaType == "" || len(n.Target.References) == 0 {
			t.Errorf("target %+v", n.Target)
		}
		if n.Target.Tag == "" {
			untagged++
		} else {
			tagged++
		}
	}
	if tagged != len(images) || untagged != 2 {
		t.Errorf("%d tagged and %d untagged events, want %d and 2", tagged, untagged, len(images))
	}
	i := slices.IndexFunc(e.got, func(n notification) bool { return n.Target.Repository == "tools/shell" })
	want, err := images[6].Image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if i < 0 || e.got[i].Target.Digest != want.String() || e.got[i].Target.Tag != "3.10" {
		t.Errorf("tools/shell: %+v, want digest %s", e.got, want)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, registry.URL+"/v2/tools/shell/manifests/3.10", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if last := e.got[len(e.got)-1]; answer.StatusCode != http.StatusAccepted || last.Action != "delete" || last.Target.Tag != "3.10" {
		t.Errorf("delete: %s, last event %+v", answer.Status, last)
	}
}

func TestManifestPath(t *testing.T) {
	for path, want := range map[string][2]string{
		"/v2/a/manifests/b":            {"a", "b"},
		"/v2/a/b/manifests/sha256:cc":  {"a/b", "sha256:cc"},
		"/v2/manifests/manifests/v1":   {"manifests", "v1"},
		"/v2/a/blobs/sha256:cc":        {},
		"/v2/manifests/x":              {},
		"/v2/a/manifests/":             {},
		"/v2/":                         {},
		"/other/a/manifests/b":         {},
		"/v2/a/manifests/b/more/deep/": {},
	} {
		repository, name, ok := manifestPath(path)
		if ok != (want[0] != "") || ok && (repository != want[0] || name != want[1]) {
			t.Errorf("%s: %q %q %v", path, repository, name, ok)
		}
	}
}
