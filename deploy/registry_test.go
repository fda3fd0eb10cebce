package deploy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"go.yaml.in/yaml/v3"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/services/ingest"
	"github.com/pratique-sec/pratique/services/ingest/door"
)

const registrySecret = "change-me-0123456789abcdef" // as docs/registries.md has it

// notifications are the lines of docs/registries.md that make a registry notify.
func notifications(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../docs/registries.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```yaml\n(notifications:.*?)```").FindSubmatch(page)
	if m == nil {
		t.Fatal("docs/registries.md shows no notifications")
	}
	return string(m[1])
}

// strictly decodes YAML into v, and fails at a key that v does not know: the registry itself would ignore it.
func strictly(t *testing.T, name, text string, v any) {
	t.Helper()
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// What the pages tell an administrator to write is what the registry's own configuration knows.
func TestRegistryConfigurationIsKnown(t *testing.T) {
	var page struct {
		Notifications configuration.Notifications `yaml:"notifications"`
	}
	strictly(t, "docs/registries.md", notifications(t), &page)
	compose, err := os.ReadFile("compose/registry.yaml")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := configuration.Parse(bytes.NewReader(compose))
	if err != nil {
		t.Fatalf("compose/registry.yaml: %v", err)
	}
	var raw struct {
		Notifications configuration.Notifications `yaml:"notifications"`
		Rest          map[string]any              `yaml:",inline"`
	}
	strictly(t, "compose/registry.yaml", string(compose), &raw)
	for name, endpoints := range map[string][]configuration.Endpoint{
		"docs/registries.md": page.Notifications.Endpoints, "compose/registry.yaml": parsed.Notifications.Endpoints,
	} {
		if len(endpoints) != 1 {
			t.Fatalf("%s: %d endpoints, want 1", name, len(endpoints))
		}
		e := endpoints[0]
		u, err := url.Parse(e.URL)
		if err != nil || u.Path != "/v1/events/distribution" {
			t.Errorf("%s: url %q", name, e.URL)
		}
		if e.Disabled || e.Timeout <= 0 || e.Threshold <= 0 || e.Backoff <= 0 || !strings.HasPrefix(e.Headers.Get("Authorization"), "Bearer ") {
			t.Errorf("%s: endpoint %+v", name, e)
		}
	}
}

// answered is what ingest told the registry.
type answered struct {
	status int
	body   string
}

// A push to a registry that is configured by these lines becomes an event, by way of HTTP and a token that
// reaches no further than this registry.
func TestAPushBecomesAnEvent(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{Logger: slog.New(slog.DiscardHandler)})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := listener.Addr().String()

	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(registrySecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := ingest.New(ingest.Config{Tokens: []door.Token{{Name: "registry", File: secret, Submit: door.Submit{Events: []string{host}}}}},
		ingest.Deps{Bus: b, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	answers := make(chan answered, 100)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		in.Handler().ServeHTTP(rec, r)
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
		answers <- answered{rec.Code, rec.Body.String()}
	}))
	defer api.Close()

	text := "version: 0.1\nlog: {level: error}\nstorage: {inmemory: {}, delete: {enabled: true}}\nhttp: {addr: " + host + ", secret: of-the-test}\n" +
		strings.Replace(notifications(t), "https://ingest.example:8420", api.URL, 1)
	cfg, err := configuration.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	registryCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	registry := httptest.NewUnstartedServer(handlers.NewApp(registryCtx, cfg))
	_ = registry.Listener.Close()
	registry.Listener = listener
	registry.Start()
	defer registry.Close()

	manifest := push(t, registry.URL, "team-a/api", "v1")
	got := next(t, answers)
	if got.status != http.StatusAccepted || !strings.Contains(got.body, `"accepted":1`) {
		t.Fatalf("ingest answered %d %s", got.status, got.body)
	}
	e, err := b.Event(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := image.Reference{Host: host, Repository: "team-a/api", Tag: "v1", Digest: manifest}
	if e.Reference != want || e.Action != event.Push || e.Source != "distribution" || e.Claimed.IsZero() || len(e.Unusable) > 0 {
		t.Errorf("event %+v, want a push of %s", e, want)
	}

	// Pulls are not sent at all; a delete is, of the manifest and of each tag that it had.
	send(t, http.MethodGet, registry.URL+"/v2/team-a/api/manifests/v1", nil, "", http.StatusOK)
	send(t, http.MethodDelete, registry.URL+"/v2/team-a/api/manifests/"+string(manifest), nil, "", http.StatusAccepted)
	push(t, registry.URL, "team-a/api", "v2") // and nothing is between these
	var told []string
	for seq := uint64(2); seq <= 4; seq++ {
		if got = next(t, answers); got.status != http.StatusAccepted {
			t.Fatalf("ingest answered %d %s", got.status, got.body)
		}
		if e, err = b.Event(ctx, seq); err != nil {
			t.Fatal(err)
		}
		told = append(told, string(e.Action)+" "+e.Reference.String())
	}
	name := host + "/team-a/api"
	wanted := []string{"delete " + name + "@" + string(manifest), "delete " + name + ":v1", "push " + name + ":v2@" + string(manifest)}
	if !slices.Equal(told, wanted) {
		t.Errorf("told %q, want %q", told, wanted)
	}
}

func next(t *testing.T, answers <-chan answered) answered {
	t.Helper()
	select {
	case a := <-answers:
		return a
	case <-time.After(time.Minute):
		t.Fatal("the registry sent nothing")
		return answered{}
	}
}

// push stores a small image as clients do, and answers its manifest's digest.
func push(t *testing.T, registry, repository, tag string) image.Digest {
	t.Helper()
	var blobs [2]string
	for i, b := range []string{`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, "a layer"} {
		blobs[i] = fmt.Sprintf(`"digest":"sha256:%x","size":%d`, sha256.Sum256([]byte(b)), len(b))
		resp := send(t, http.MethodPost, registry+"/v2/"+repository+"/blobs/uploads/", nil, "", http.StatusAccepted)
		to, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		q := to.Query()
		q.Set("digest", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(b))))
		to.RawQuery = q.Encode()
		send(t, http.MethodPut, to.String(), []byte(b), "application/octet-stream", http.StatusCreated)
	}
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	manifest := `{"schemaVersion":2,"mediaType":"` + mediaType + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json",` + blobs[0] +
		`},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar",` + blobs[1] + `}]}`
	send(t, http.MethodPut, registry+"/v2/"+repository+"/manifests/"+tag, []byte(manifest), mediaType, http.StatusCreated)
	return image.DigestOf([]byte(manifest))
}

func send(t *testing.T, method, to string, body []byte, mediaType string, want int) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, to, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		t.Fatalf("%s %s: %s %s (%v), want %d", method, to, resp.Status, said, err, want)
	}
	return resp
}
