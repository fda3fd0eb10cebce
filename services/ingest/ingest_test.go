package ingest_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/service"
	"github.com/pratique-sec/pratique/pkg/tlstest"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/ingest"
	"github.com/pratique-sec/pratique/services/ingest/door"
)

// start runs ingest on a real bus until the test ends.
func start(t *testing.T, cfg ingest.Config) (*bus.Bus, string) {
	t.Helper()
	b := bustest.New(t, bus.Config{}, bus.Options{Logger: slog.New(slog.DiscardHandler)})
	s, err := ingest.New(cfg, ingest.Deps{Bus: b, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ran; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return b, "http://" + s.Addr()
}

func post(t *testing.T, url, body string, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestWhatWasAcceptedIsInTheStream(t *testing.T) {
	b, url := start(t, ingest.Config{})
	const note = `{"events":[{"id":"%d","action":"push","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","repository":"team/app","tag":"v%d"},"request":{"host":"registry.example"}}]}`
	for _, i := range []int{1, 2, 1} { // the last is sent again
		if resp := post(t, url+"/v1/events/distribution", fmt.Sprintf(note, i, i)); resp.StatusCode != http.StatusAccepted {
			t.Fatalf("status %s", resp.Status)
		}
	}
	resp := post(t, url+"/v1/scans", `{"reference":"registry.example/team/app:v1"}`)
	var got struct {
		ID        string `json:"id"`
		StatusURL string `json:"statusUrl"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatalf("status %s, %v", resp.Status, err)
	}

	for seq, want := range map[uint64]struct {
		action event.Action
		tag    string
	}{1: {event.Push, "v1"}, 2: {event.Push, "v2"}, 3: {event.Request, "v1"}} {
		e, err := b.Event(t.Context(), seq)
		if err != nil || e.Action != want.action || e.Reference.Tag != want.tag {
			t.Errorf("event %d is %s of %s, %v", seq, e.Action, e.Reference, err)
		}
		if want.action == event.Request && got.ID != fate.RequestID(seq, e.ID) {
			t.Errorf("request id %s does not name event %d", got.ID, seq)
		}
	}
	status, err := http.Get(url + got.StatusURL)
	if err != nil {
		t.Fatal(err)
	}
	defer status.Body.Close()
	if status.StatusCode != http.StatusOK {
		t.Errorf("status of a request that nobody looked at yet: %s", status.Status)
	}
}

func TestTokensAreAskedFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("a-token-of-some-length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, url := start(t, ingest.Config{TokenFiles: []string{file}})
	if resp := post(t, url+"/v1/scans", `{"reference":"nginx"}`); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %s", resp.Status)
	}
	if resp := post(t, url+"/v1/scans", `{"reference":"nginx"}`, "Authorization", "Bearer a-token-of-some-length"); resp.StatusCode != http.StatusAccepted {
		t.Errorf("with the token: %s", resp.Status)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  ingest.Config
		want string
	}{
		"open to the world":   {ingest.Config{Listen: "0.0.0.0:0"}, "listen"},
		"open by name":        {ingest.Config{Listen: ":0"}, "listen"},
		"no port":             {ingest.Config{Listen: "127.0.0.1"}, "listen"},
		"half a certificate":  {ingest.Config{TLS: service.TLSFiles{Cert: "c"}}, "tls.cert: "},
		"negative drain":      {ingest.Config{Drain: -time.Second}, "drain"},
		"no such token file":  {ingest.Config{TokenFiles: []string{"/nonexistent/tokens"}}, "/nonexistent/tokens"},
		"port that is no one": {ingest.Config{Listen: "127.0.0.1:99999"}, "listen"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := ingest.New(tc.cfg, ingest.Deps{Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				_ = s.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error does not name %s: %v", tc.want, err)
			}
		})
	}
}

func TestAnonymousIsWarnedOf(t *testing.T) {
	var out strings.Builder
	s, err := ingest.New(ingest.Config{Listen: "127.0.0.1:0", AllowAnonymous: true}, ingest.Deps{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if !strings.Contains(out.String(), "level=WARN") {
		t.Errorf("no warning: %q", out.String())
	}
}

func TestServesTLS(t *testing.T) {
	a := tlstest.New(t)
	cert, key := a.Issue(t, "127.0.0.1")
	_, url := start(t, ingest.Config{TLS: service.TLSFiles{Cert: cert, Key: key}})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.Pool}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https" + strings.TrimPrefix(url, "http") + "/v1/scans/1-0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("status %s", resp.Status)
	}
	if _, err := ingest.New(ingest.Config{TLS: service.TLSFiles{Cert: cert, Key: "/nonexistent"}}, ingest.Deps{Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "tls.key: ") {
		t.Errorf("a key that is not there: %v", err)
	}
}

func TestReload(t *testing.T) {
	secret := func(s string) string {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(s+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	token := func(name, s string) door.Token {
		return door.Token{Name: name, File: secret(s), Submit: door.Submit{Scans: []string{"*"}}}
	}
	b := bustest.New(t, bus.Config{}, bus.Options{})
	cfg := ingest.Config{Tokens: []door.Token{token("old", "old-token-0123456789")}}
	s, err := ingest.New(cfg, ingest.Deps{Bus: b, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	status := func(secret string) int {
		r := httptest.NewRequest(http.MethodPost, "/v1/scans", strings.NewReader(`{"reference":"nginx"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+secret)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		return w.Code
	}
	for name, change := range map[string]func(*ingest.Config){
		"listen": func(c *ingest.Config) { c.Listen = "127.0.0.1:1" }, "no such file": func(c *ingest.Config) {
			c.Tokens = []door.Token{{Name: "x", File: "/nonexistent", Read: []string{"*"}}}
		},
		"nothing": func(c *ingest.Config) { c.Tokens = []door.Token{{}} }, "no tokens, others can reach it": func(c *ingest.Config) { c.Listen, c.Tokens = ":0", nil },
	} {
		next := cfg
		change(&next)
		if err := s.Reload(next); err == nil {
			t.Errorf("%s: taken over", name)
		}
		if got := status("old-token-0123456789"); got != http.StatusAccepted {
			t.Errorf("%s: status %d after a refused reload", name, got)
		}
	}
	cfg.Tokens = []door.Token{token("new", "new-token-0123456789")}
	if err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if o, n := status("old-token-0123456789"), status("new-token-0123456789"); o != http.StatusUnauthorized || n != http.StatusAccepted {
		t.Errorf("after the reload the old token gets %d, the new one %d", o, n)
	}
}

// Who may read a report is known to the bus, across restarts of whoever asks.
func TestReportsOfSharedImages(t *testing.T) {
	secret := func(s string) string {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(s+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	b, url := start(t, ingest.Config{Tokens: []door.Token{
		{Name: "a", File: secret("token-of-team-a-0123"), Read: []string{"registry.example:5000/team-a"}},
		{Name: "b", File: secret("token-of-team-b-0123"), Read: []string{"registry.example:5000/team-b"}},
		{Name: "c", File: secret("token-of-team-c-0123"), Read: []string{"registry.example:5000/team-c"}},
	}})
	digest := image.DigestOf([]byte("a manifest"))
	for _, team := range []string{"team-a/x", "team-b/deep/y"} { // the last is who had it judged
		if err := b.PutSource(t.Context(), digest, "registry.example:5000", team); err != nil {
			t.Fatal(err)
		}
		err := b.PutReport(t.Context(), &report.Report{
			Outcome: report.Clean, Created: time.Unix(1, 0).UTC(),
			Image: image.Image{
				Reference: image.Reference{Host: "registry.example:5000", Repository: team, Tag: "of-" + team[:6], Digest: digest},
				Platform:  image.Platform{OS: "linux", Architecture: "amd64"},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for token, want := range map[string]string{"token-of-team-a-0123": "team-a/x", "token-of-team-b-0123": "team-b/deep/y", "token-of-team-c-0123": ""} {
		req, err := http.NewRequest(http.MethodGet, url+"/v1/reports/"+string(digest), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if want == "" {
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %s %s", token, resp.Status, body)
			}
			continue
		}
		rep, err := wire.ReportFromJSON(body)
		if err != nil || rep.Image.Repository != want || want == "team-a/x" && strings.Contains(string(body), "team-b") {
			t.Errorf("%s: %s %s (%v), want the report as of %s", token, resp.Status, body, err, want)
		}
	}
}
