package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/registry"
)

const (
	repo         = "team/app"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
)

// serve starts a plain HTTP server and returns its host:port.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// client allows hosts by name, over plain HTTP.
func client(t *testing.T, hosts ...string) *registry.Client {
	t.Helper()
	cfg := registry.Config{Hosts: map[string]registry.Host{}}
	for _, h := range hosts {
		cfg.Hosts[h] = registry.Host{Plain: true}
	}
	return newClient(t, cfg, registry.Options{})
}

func newClient(t *testing.T, cfg registry.Config, opts registry.Options) *registry.Client {
	t.Helper()
	c, err := registry.New(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantReason fails unless err carries the kind and code, and answers how long it asks to wait.
func wantReason(t *testing.T, err error, kind reason.Kind, code reason.Code) time.Duration {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", code)
	}
	e := reason.Of(err)
	if e.Kind != kind || e.Code != code {
		t.Fatalf("error is kind %d, code %s, want %d, %s: %v", e.Kind, e.Code, kind, code, err)
	}
	return e.RetryAfter
}

// put stores a blob or manifest in a registry that takes pushes.
func put(t *testing.T, url, contentType string, body []byte) {
	t.Helper()
	method := http.MethodPut
	if strings.Contains(url, "/blobs/") {
		method = http.MethodPost
	}
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s", method, url, resp.Status)
	}
}

func TestReadsARealRegistry(t *testing.T) {
	host := serve(t, ggcr.New())
	blob := []byte("the bytes of a layer")
	config := []byte(`{"architecture":"amd64","os":"linux"}`)
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":%d,"digest":%q},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":%d,"digest":%q}]}`,
		manifestType, len(config), image.DigestOf(config), len(blob), image.DigestOf(blob))
	base := "http://" + host + "/v2/" + repo
	put(t, base+"/blobs/uploads/?digest="+string(image.DigestOf(blob)), "application/octet-stream", blob)
	put(t, base+"/blobs/uploads/?digest="+string(image.DigestOf(config)), "application/octet-stream", config)
	put(t, base+"/manifests/v1", manifestType, manifest)

	c, ctx := client(t, host), t.Context()
	d, err := c.Resolve(ctx, host, repo, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if want := (registry.Descriptor{Digest: image.DigestOf(manifest), MediaType: manifestType, Size: int64(len(manifest))}); d != want {
		t.Errorf("Resolve = %+v, want %+v", d, want)
	}
	body, mt, err := c.Manifest(ctx, host, repo, d.Digest)
	if err != nil || !bytes.Equal(body, manifest) || mt != manifestType {
		t.Errorf("Manifest = %d bytes, %q, %v", len(body), mt, err)
	}
	got, err := c.Config(ctx, host, repo, image.DigestOf(config), int64(len(config)))
	if err != nil || !bytes.Equal(got, config) {
		t.Errorf("Config = %q, %v", got, err)
	}
	has, err := c.HasBlob(ctx, host, repo, image.DigestOf(blob))
	if err != nil || !has {
		t.Errorf("HasBlob = %v, %v", has, err)
	}
	r, err := c.Blob(ctx, host, repo, image.DigestOf(blob), int64(len(blob)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, blob) {
		t.Errorf("Blob = %q, %v", got, err)
	}

	absent := image.DigestOf([]byte("never pushed"))
	if has, err := c.HasBlob(ctx, host, repo, absent); err != nil || has {
		t.Errorf("HasBlob of an absent blob = %v, %v", has, err)
	}
	_, err = c.Resolve(ctx, host, repo, "v2")
	wantReason(t, err, reason.Refuse, reason.NotFound)
	_, _, err = c.Manifest(ctx, host, repo, absent)
	wantReason(t, err, reason.Refuse, reason.NotFound)
	_, err = c.Blob(ctx, host, repo, absent, 1)
	wantReason(t, err, reason.Refuse, reason.BlobMissing)
	_, err = c.Config(ctx, host, repo, absent, registry.MaxConfig+1)
	wantReason(t, err, reason.Refuse, reason.OverBound)
}

// mux answers /v2/ and what the handler adds below it.
func mux(paths map[string]http.HandlerFunc) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/v2/{$}", func(http.ResponseWriter, *http.Request) {})
	for p, h := range paths {
		m.HandleFunc("/v2/"+repo+"/"+p, h)
	}
	return m
}

func TestStatusesBecomeDecisions(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name   string
		status int
		after  string
		kind   reason.Kind
		code   reason.Code
		wait   time.Duration
	}{
		{"unauthorized", 401, "", reason.Refuse, reason.Denied, 0},
		{"forbidden", 403, "", reason.Refuse, reason.Denied, 0},
		{"not found", 404, "", reason.Refuse, reason.NotFound, 0},
		{"teapot", 418, "", reason.Retry, reason.Unreachable, 0},
		{"too many", 429, "17", reason.Retry, reason.RateLimited, 17 * time.Second},
		{"too many until", 429, now.Add(time.Minute).Format(http.TimeFormat), reason.Retry, reason.RateLimited, time.Minute},
		{"too many for ever", 429, "999999999", reason.Retry, reason.RateLimited, 6 * time.Hour},
		{"too many, nonsense", 429, "soon", reason.Retry, reason.RateLimited, 0},
		{"broken", 500, "", reason.Retry, reason.Unreachable, 0},
		{"unavailable", 503, "5", reason.Retry, reason.Unreachable, 5 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			answer := func(w http.ResponseWriter, _ *http.Request) {
				if tc.after != "" {
					w.Header().Set("Retry-After", tc.after)
				}
				w.WriteHeader(tc.status)
				fmt.Fprint(w, `{"errors":[{"code":"SOME","message":"text\u001b[31m"}]}`)
			}
			host := serve(t, mux(map[string]http.HandlerFunc{"manifests/": answer}))
			c := newClient(t, registry.Config{Hosts: map[string]registry.Host{host: {Plain: true}}},
				registry.Options{Now: func() time.Time { return now }})
			_, err := c.Resolve(t.Context(), host, repo, "v1")
			if wait := wantReason(t, err, tc.kind, tc.code); wait != tc.wait {
				t.Errorf("RetryAfter = %v, want %v", wait, tc.wait)
			}
			_, _, err = c.Manifest(t.Context(), host, repo, image.DigestOf(nil))
			wantReason(t, err, tc.kind, tc.code)
			if strings.Contains(err.Error(), "\x1b") {
				t.Errorf("the registry's text reaches the terminal: %q", err)
			}
		})
	}
}

func TestResolveWithoutHead(t *testing.T) {
	manifest := []byte(`{"schemaVersion":2,"mediaType":"` + manifestType + `"}`)
	for name, head := range map[string]http.HandlerFunc{
		"head is refused":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) },
		"head is unknown":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotImplemented) },
		"no digest header": func(http.ResponseWriter, *http.Request) {},
		"a lying digest header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", "sha512:whatever")
		},
	} {
		t.Run(name, func(t *testing.T) {
			host := serve(t, mux(map[string]http.HandlerFunc{"manifests/v1": func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					head(w, r)
					return
				}
				w.Header().Set("Content-Type", "text/plain; charset=utf-8")
				_, _ = w.Write(manifest)
			}}))
			d, err := client(t, host).Resolve(t.Context(), host, repo, "v1")
			if err != nil {
				t.Fatal(err)
			}
			if want := (registry.Descriptor{Digest: image.DigestOf(manifest), MediaType: manifestType, Size: int64(len(manifest))}); d != want {
				t.Errorf("Resolve = %+v, want %+v", d, want)
			}
		})
	}
}

func TestHostsThatAreNotConfiguredGetNoByte(t *testing.T) {
	var hits atomic.Int32
	host := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	_, port, _ := strings.Cut(host, ":")
	for name, tc := range map[string]struct {
		hosts map[string]registry.Host
		host  string
		code  reason.Code
	}{
		"nothing configured":        {nil, host, reason.HostNotAllowed},
		"another port":              {map[string]registry.Host{"127.0.0.1:1": {Plain: true}}, host, reason.HostNotAllowed},
		"any host, but loopback":    {map[string]registry.Host{"*": {Plain: true}}, host, reason.HostNotAllowed},
		"a name that is loopback":   {map[string]registry.Host{"local*:" + port: {Plain: true}}, "localhost:" + port, reason.HostNotAllowed},
		"an address in other words": {map[string]registry.Host{"*": {Plain: true}}, "[::ffff:127.0.0.1]:" + port, reason.HostNotAllowed},
		"plain is not allowed":      {map[string]registry.Host{host: {}}, host, reason.HostNotAllowed},
		"userinfo":                  {map[string]registry.Host{"*": {Plain: true}}, "u:p@" + host, reason.Malformed},
		"a path":                    {map[string]registry.Host{"*": {Plain: true}}, host + "/x", reason.Malformed},
		"nothing":                   {map[string]registry.Host{"*": {Plain: true}}, "", reason.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			hits.Store(0)
			c := newClient(t, registry.Config{Hosts: tc.hosts}, registry.Options{})
			_, err := c.Resolve(t.Context(), tc.host, repo, "v1")
			wantReason(t, err, reason.Refuse, tc.code)
			if n := hits.Load(); n != 0 {
				t.Errorf("%d requests were sent", n)
			}
		})
	}
}

func TestNamesThatAreNotNamesAreRefused(t *testing.T) {
	var hits atomic.Int32
	host := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	c := client(t, host)
	for _, r := range []string{"", "../../etc", "team//app", "team/app?x=1", "team/app#f", "TEAM", strings.Repeat("a", 300)} {
		_, err := c.Resolve(t.Context(), host, r, "v1")
		wantReason(t, err, reason.Refuse, reason.Malformed)
	}
	for _, tag := range []string{"", "../v1", "a b", "sha256:1"} {
		_, err := c.Resolve(t.Context(), host, repo, tag)
		wantReason(t, err, reason.Refuse, reason.Malformed)
	}
	_, _, err := c.Manifest(t.Context(), host, repo, "sha256:../../x")
	wantReason(t, err, reason.Refuse, reason.Malformed)
	_, err = c.Blob(t.Context(), host, repo, image.DigestOf(nil), -1)
	wantReason(t, err, reason.Refuse, reason.Malformed)
	if n := hits.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestLyingBytes(t *testing.T) {
	right, wrong := []byte("right"), []byte("wrong")
	host := serve(t, mux(map[string]http.HandlerFunc{
		"manifests/": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(wrong) },
		"blobs/":     func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(wrong) },
	}))
	c, ctx := client(t, host), t.Context()
	_, _, err := c.Manifest(ctx, host, repo, image.DigestOf(right))
	wantReason(t, err, reason.Refuse, reason.DigestMismatch)
	_, err = c.Config(ctx, host, repo, image.DigestOf(right), int64(len(right)))
	wantReason(t, err, reason.Refuse, reason.DigestMismatch)
	_, err = c.Blob(ctx, host, repo, image.DigestOf(wrong), int64(len(wrong))+1)
	wantReason(t, err, reason.Refuse, reason.SizeMismatch)
}

// flood writes for as long as somebody reads.
func flood(w http.ResponseWriter, _ *http.Request) {
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func TestEndlessBodies(t *testing.T) {
	d := image.DigestOf(nil)
	host := serve(t, mux(map[string]http.HandlerFunc{"manifests/": flood, "blobs/": flood}))
	c, ctx := client(t, host), t.Context()
	_, _, err := c.Manifest(ctx, host, repo, d)
	wantReason(t, err, reason.Refuse, reason.OverBound)
	_, err = c.Config(ctx, host, repo, d, 100)
	wantReason(t, err, reason.Refuse, reason.SizeMismatch)
	r, err := c.Blob(ctx, host, repo, d, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	wantReason(t, err, reason.Refuse, reason.SizeMismatch)
	if n != 100_000 {
		t.Errorf("%d bytes were passed on, want what the manifest says", n)
	}

	everywhere := serve(t, http.HandlerFunc(flood)) // the answer to /v2/ too
	_, _, err = client(t, everywhere).Manifest(ctx, everywhere, repo, d)
	wantReason(t, err, reason.Refuse, reason.OverBound)
}

func TestCutOffStreams(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 1000)
	for name, tc := range map[string]struct {
		header string
		kind   reason.Kind
		code   reason.Code
	}{
		"length known":      {"Content-Length: 1000\r\n", reason.Retry, reason.Unreachable},
		"length not known":  {"Connection: close\r\n", reason.Retry, reason.Unreachable},
		"shorter by itself": {"Content-Length: 500\r\n", reason.Refuse, reason.SizeMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			host := serve(t, mux(map[string]http.HandlerFunc{"blobs/": func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					panic(err)
				}
				defer func() { _ = conn.Close() }()
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n%s\r\n%s", tc.header, body[:500])
			}}))
			r, err := client(t, host).Blob(t.Context(), host, repo, image.DigestOf(body), int64(len(body)))
			if err == nil {
				defer r.Close()
				_, err = io.ReadAll(r)
			}
			wantReason(t, err, tc.kind, tc.code)
			if tc.kind == reason.Retry && !strings.Contains(err.Error(), "truncated after 500 of 1000") {
				t.Errorf("error does not say where it was cut: %v", err)
			}
		})
	}
}

func TestAStalledBlobEnds(t *testing.T) {
	release := make(chan struct{})
	host := serve(t, mux(map[string]http.HandlerFunc{"blobs/": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		fmt.Fprint(w, "12345")
		_ = http.NewResponseController(w).Flush()
		<-release
	}}))
	t.Cleanup(func() { close(release) })
	c := newClient(t, registry.Config{Hosts: map[string]registry.Host{host: {Plain: true}}}, registry.Options{Stall: 50 * time.Millisecond})
	r, err := c.Blob(t.Context(), host, repo, image.DigestOf(nil), 10)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = io.ReadAll(r)
	wantReason(t, err, reason.Retry, reason.Unreachable)
	if !strings.Contains(err.Error(), "stopped sending") {
		t.Errorf("error does not say that it stalled: %v", err)
	}
}

func TestRedirects(t *testing.T) {
	blob := []byte("the bytes")
	d, size := image.DigestOf(blob), int64(len(blob))
	var stored atomic.Int32
	storage := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stored.Add(1)
		for _, h := range []string{"Authorization", "Referer"} {
			if v := r.Header.Get(h); v != "" {
				t.Errorf("storage got %s: %s", h, v)
			}
		}
		if r.Method == http.MethodHead { // signed for GET
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write(blob)
	}))
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "me" || p != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, "http://"+storage+"/signed?key=1", http.StatusTemporaryRedirect)
		}
	}))
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(h registry.Host) *registry.Client {
		h.Plain, h.Username, h.PasswordFile = true, "me", secret
		return newClient(t, registry.Config{Hosts: map[string]registry.Host{host: h, storage: {Plain: true}}}, registry.Options{})
	}

	_, err := with(registry.Host{}).Blob(t.Context(), host, repo, d, size)
	wantReason(t, err, reason.Refuse, reason.HostNotAllowed)
	_, err = with(registry.Host{Realms: []string{"127.0.0.1:1"}}).HasBlob(t.Context(), host, repo, d)
	wantReason(t, err, reason.Refuse, reason.HostNotAllowed)
	if n := stored.Load(); n != 0 {
		t.Fatalf("a host that is not configured for this registry got %d requests", n)
	}

	c := with(registry.Host{Blobs: []string{storage}})
	r, err := c.Blob(t.Context(), host, repo, d, size)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, blob) {
		t.Errorf("Blob = %q, %v", got, err)
	}
	if has, err := c.HasBlob(t.Context(), host, repo, d); err != nil || !has {
		t.Errorf("HasBlob behind a redirect signed for GET = %v, %v", has, err)
	}
}

func TestARedirectLoopEnds(t *testing.T) {
	host := serve(t, mux(map[string]http.HandlerFunc{"blobs/": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
	}}))
	_, err := client(t, host).Blob(t.Context(), host, repo, image.DigestOf(nil), 1)
	wantReason(t, err, reason.Refuse, reason.HostNotAllowed)
}

// tokenServer gives tokens to whoever knows the password.
func tokenServer(t *testing.T, hits *atomic.Int32) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		if want := "repository:" + repo + ":pull"; r.URL.Query().Get("scope") != want {
			t.Errorf("scope %q, want %q", r.URL.Query().Get("scope"), want)
		}
		if u, p, _ := r.BasicAuth(); u != "me" || p != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"access_token": "the token"})
	})
}

func TestTokenRealms(t *testing.T) {
	var asked atomic.Int32
	realm := serve(t, tokenServer(t, &asked))
	realm = strings.Replace(realm, "127.0.0.1", "localhost", 1) // another host by name
	manifest := []byte("{}")
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer the token" {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s",scope="repository:%s:pull"`, realm, repo))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write(manifest)
	}))
	config := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(config, fmt.Appendf(nil, `{"auths":{%q:{"username":"me","password":"secret"}}}`, host), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(h registry.Host, docker string) *registry.Client {
		h.Plain = true
		return newClient(t, registry.Config{Hosts: map[string]registry.Host{host: h, realm: {Plain: true}}, DockerConfig: docker}, registry.Options{})
	}
	d := image.DigestOf(manifest)

	for name, h := range map[string]registry.Host{
		"elsewhere":                         {},
		"a blob host is no realm":           {Blobs: []string{realm}},
		"allowed for another registry only": {Realms: []string{"127.0.0.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := with(h, config).Manifest(t.Context(), host, repo, d)
			wantReason(t, err, reason.Refuse, reason.HostNotAllowed)
		})
	}
	t.Run("a pattern allows public addresses only", func(t *testing.T) {
		h := registry.Host{Plain: true, Realms: []string{"local*:" + realm[strings.Index(realm, ":")+1:]}}
		c := newClient(t, registry.Config{Hosts: map[string]registry.Host{host: h}, DockerConfig: config}, registry.Options{})
		_, _, err := c.Manifest(t.Context(), host, repo, d)
		wantReason(t, err, reason.Refuse, reason.HostNotAllowed)
	})
	if n := asked.Load(); n != 0 {
		t.Fatalf("a realm that is not configured got %d requests", n)
	}

	known := registry.Host{Realms: []string{realm}}
	c := with(known, config)
	for range 3 {
		if body, _, err := c.Manifest(t.Context(), host, repo, d); err != nil || !bytes.Equal(body, manifest) {
			t.Fatalf("Manifest = %q, %v", body, err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("logged in %d times for three reads, want once", n)
	}
	_, _, err := with(known, "").Manifest(t.Context(), host, repo, d)
	wantReason(t, err, reason.Refuse, reason.Denied)
}

func TestAWrongPasswordIsReadAgain(t *testing.T) {
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "me" || p != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "{}")
	}))
	file := filepath.Join(t.TempDir(), "password")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	c := newClient(t, registry.Config{Hosts: map[string]registry.Host{host: {Plain: true, Username: "me", PasswordFile: file}}}, registry.Options{})
	_, _, err := c.Manifest(t.Context(), host, repo, image.DigestOf([]byte("{}")))
	wantReason(t, err, reason.Refuse, reason.Denied)
	if strings.Contains(err.Error(), "old") {
		t.Errorf("the error tells the password: %v", err)
	}
	write("secret")
	if _, _, err := c.Manifest(t.Context(), host, repo, image.DigestOf([]byte("{}"))); err != nil {
		t.Fatal(err)
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(mux(map[string]http.HandlerFunc{"manifests/": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }}))
	t.Cleanup(s.Close)
	host, d := strings.TrimPrefix(s.URL, "https://"), image.DigestOf([]byte("{}"))
	strict := newClient(t, registry.Config{Hosts: map[string]registry.Host{host: {}}}, registry.Options{})
	_, _, err := strict.Manifest(t.Context(), host, repo, d)
	wantReason(t, err, reason.Refuse, reason.HostNotAllowed)
	lax := newClient(t, registry.Config{Hosts: map[string]registry.Host{host: {Insecure: true, Plain: true}}}, registry.Options{})
	if _, _, err := lax.Manifest(t.Context(), host, repo, d); err != nil {
		t.Fatal(err)
	}
}

func TestARegistryThatIsAway(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	host := strings.TrimPrefix(s.URL, "http://")
	_, err := client(t, host).Resolve(t.Context(), host, repo, "v1")
	wantReason(t, err, reason.Retry, reason.Unreachable) // no registry at /v2/: it says nothing about the tag
	s.Close()
	for _, plain := range []bool{true, false} {
		c := newClient(t, registry.Config{Hosts: map[string]registry.Host{host: {Plain: plain}}}, registry.Options{})
		_, err = c.Resolve(t.Context(), host, repo, "v1")
		wantReason(t, err, reason.Retry, reason.Unreachable)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = client(t, host).Resolve(ctx, host, repo, "v1")
	wantReason(t, err, reason.Retry, reason.Unreachable)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call does not say so: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	_, err := registry.New(registry.Config{Hosts: map[string]registry.Host{
		"https://a.example": {},
		"b.example":         {Username: "me"},
		"c.example":         {Realms: []string{"C.example/x"}, Blobs: []string{""}},
		"*":                 {Username: "me", PasswordFile: "p"},
	}}, registry.Options{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"https://a.example", "hosts[b.example]", "hosts[c.example].realms", "hosts[c.example].blobs", "hosts[*]"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}
