package registry_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/pkg/tlstest"
)

// body is what every repository of these tests holds.
var body = []byte("{}")

func bodyDigest() image.Digest { return image.DigestOf(body) }

// locked is a registry that tells who asks for what, and asks for Basic credentials.
type locked struct {
	mu   sync.Mutex
	seen []string // "user:password repository"
	take func(user, password, repository string) bool
}

func (l *locked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	repository, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	if r.URL.Path == "/v2/" {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	l.mu.Lock()
	l.seen = append(l.seen, user+":"+password+" "+repository)
	l.mu.Unlock()
	if l.take != nil && !l.take(user, password, repository) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = w.Write(body)
}

func (l *locked) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.seen) == 0 {
		return ""
	}
	return l.seen[len(l.seen)-1]
}

func secretFile(t *testing.T, s string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCredentialsOfARepository(t *testing.T) {
	l := &locked{}
	host := serve(t, l)
	c := newClient(t, registry.Config{Hosts: map[string]registry.Host{host: {
		Plain: true, Username: "host", PasswordFile: secretFile(t, "h\n"),
		Repositories: map[string]registry.Credentials{
			"team-a":         {Username: "a", PasswordFile: secretFile(t, "pa")},
			"team-a/special": {Username: "special", PasswordFile: secretFile(t, "ps")},
		},
	}}}, registry.Options{})
	for repository, want := range map[string]string{
		"team-a": "a:pa", "team-a/app": "a:pa", "team-a/x/y": "a:pa", "team-a/special": "special:ps", "team-a/special/z": "special:ps",
		"team-a/special2": "a:pa", "team-ab": "host:h", "team-b/team-a": "host:h", "x": "host:h",
	} {
		if _, _, err := c.Manifest(t.Context(), host, repository, bodyDigest()); err != nil {
			t.Fatal(err)
		}
		if got := l.last(); got != want+" "+repository {
			t.Errorf("%s was asked for as %s, want %s", repository, got, want)
		}
	}
}

func dockerConfig(t *testing.T, format string, args ...any) string {
	t.Helper()
	return secretFile(t, fmt.Sprintf(format, args...))
}

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

func TestDockerConfig(t *testing.T) {
	helpersIn(t, "fake")
	l := &locked{}
	host := serve(t, l)
	for name, tc := range map[string]struct {
		file, repository, want string
	}{
		"host":                   {fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, basic("me", "p")), "x/y", "me:p"},
		"as a URL":               {fmt.Sprintf(`{"auths":{"http://%s/v2/":{"auth":%q}}}`, host, basic("me", "p")), "x/y", "me:p"},
		"prefix before host":     {fmt.Sprintf(`{"auths":{%q:{"auth":%q},"%s/x":{"auth":%q}}}`, host, basic("me", "p"), host, basic("x", "px")), "x/y", "x:px"},
		"prefix of another":      {fmt.Sprintf(`{"auths":{%q:{"auth":%q},"%s/x":{"auth":%q}}}`, host, basic("me", "p"), host, basic("x", "px")), "xx", "me:p"},
		"user and password":      {fmt.Sprintf(`{"auths":{%q:{"username":"me","password":"p"}}}`, host), "x", "me:p"},
		"nothing for this host":  {`{"auths":{"other.example":{"auth":"bWU6cA=="}}}`, "x", ":"},
		"helper of the host":     {fmt.Sprintf(`{"credHelpers":{%q:"fake"},"auths":{%q:{"auth":%q}}}`, host, host, basic("me", "p")), "x", "helper:secret of " + host},
		"helper of another":      {`{"credHelpers":{"other.example":"fake"}}`, "x", ":"},
		"store":                  {fmt.Sprintf(`{"credsStore":"fake","auths":{%q:{}}}`, host), "x", "helper:secret of " + host},
		"file before store":      {fmt.Sprintf(`{"credsStore":"fake","auths":{%q:{"auth":%q}}}`, host, basic("me", "p")), "x", "me:p"},
		"store that knows not":   {`{"credsStore":"none"}`, "x", ":"},
		"prefix helper":          {fmt.Sprintf(`{"credHelpers":{"%s/x":"fake"}}`, host), "x/y", "helper:secret of " + host + "/x"},
		"prefix before a helper": {fmt.Sprintf(`{"credHelpers":{%q:"fake"},"auths":{"%s/x":{"auth":%q}}}`, host, host, basic("x", "px")), "x/y", "x:px"},
	} {
		c := newClient(t, registry.Config{DockerConfig: secretFile(t, tc.file), Hosts: map[string]registry.Host{host: {Plain: true}}}, registry.Options{})
		if _, _, err := c.Manifest(t.Context(), host, tc.repository, bodyDigest()); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := l.last(); got != tc.want+" "+tc.repository {
			t.Errorf("%s: asked as %q, want %q", name, got, tc.want)
		}
	}
	own := newClient(t, registry.Config{
		DockerConfig: dockerConfig(t, `{"auths":{%q:{"auth":%q}}}`, host, basic("me", "p")),
		Hosts:        map[string]registry.Host{host: {Plain: true, Username: "own", PasswordFile: secretFile(t, "po")}},
	}, registry.Options{})
	if _, _, err := own.Manifest(t.Context(), host, "x", bodyDigest()); err != nil || l.last() != "own:po x" {
		t.Errorf("asked as %q (%v), want what is configured", l.last(), err)
	}
}

// helpersIn makes the test binary several credential helpers, and the PATH lead to them; TestMain tells
// which it is.
func helpersIn(t *testing.T, names ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, n := range append(names, "none") {
		if err := os.Symlink(self, filepath.Join(dir, "docker-credential-"+n)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

// helper is what the test binary does under a credential helper's name.
func helper(name string, out io.Writer) int {
	server, _ := io.ReadAll(os.Stdin)
	if len(os.Args) != 2 || os.Args[1] != "get" {
		return 99
	}
	switch name {
	case "fake":
		fmt.Fprintf(out, `{"ServerURL":%q,"Username":"helper","Secret":"secret of %s"}`, server, server)
	case "none":
		fmt.Fprint(out, "credentials not found in native keychain\n")
		return 1
	case "fails":
		fmt.Fprint(out, "hunter2")
		fmt.Fprint(os.Stderr, "hunter2")
		return 7
	case "garbage":
		fmt.Fprint(out, "hunter2")
	case "empty":
		fmt.Fprint(out, `{"Username":"hunter2"}`)
	case "endless":
		for {
			if _, err := fmt.Fprint(out, strings.Repeat("hunter2", 1000)); err != nil {
				return 1
			}
		}
	case "hangs":
		select {}
	}
	return 0
}

func TestMain(m *testing.M) {
	if name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), "docker-credential-"); ok {
		os.Exit(helper(name, os.Stdout))
	}
	os.Exit(m.Run())
}

// A helper that fails is the operator's matter: the work waits, the error says what to do, and never
// anything of what the helper said.
func TestHelpersFail(t *testing.T) {
	helpersIn(t, "fails", "garbage", "empty", "endless")
	l := &locked{}
	host := serve(t, l)
	for name, want := range map[string]string{
		"fails": "exit status 7", "garbage": "not the JSON", "empty": "no secret", "endless": "more than", "missing": "not installed", "../fails": "want the part of its name",
	} {
		c := newClient(t, registry.Config{
			DockerConfig: dockerConfig(t, `{"credHelpers":{%q:%q}}`, host, name), Hosts: map[string]registry.Host{host: {Plain: true}},
		}, registry.Options{})
		_, _, err := c.Manifest(t.Context(), host, "x", bodyDigest())
		wantReason(t, err, reason.Retry, reason.Denied)
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "docker config ") {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if len(l.seen) != 0 {
		t.Errorf("the registry was asked without the credentials: %v", l.seen)
	}
	for name, file := range map[string]string{"no JSON": `{"auths":{"hunter2"`, "no base64": `{"auths":{"x":{"auth":"hunter2"}}}`} {
		c := newClient(t, registry.Config{DockerConfig: secretFile(t, file), Hosts: map[string]registry.Host{host: {Plain: true}}}, registry.Options{})
		_, _, err := c.Manifest(t.Context(), host, "x", bodyDigest())
		wantReason(t, err, reason.Retry, reason.Denied)
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
}

// secure is a registry behind TLS with a certificate for a name, on an address of its own.
func secure(t *testing.T, a *tlstest.Authority, h http.Handler, change func(*tls.Config), names ...string) (address string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = a.Server(t, names...)
	if change != nil {
		change(s.TLS)
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func plainBody(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v2/" {
		_, _ = w.Write(body)
	}
}

func TestAuthorities(t *testing.T) {
	ours, others := tlstest.New(t), tlstest.New(t)
	host := secure(t, ours, http.HandlerFunc(plainBody), nil, "127.0.0.1")
	for name, tc := range map[string]struct {
		cfg  registry.Config
		good bool
	}{
		"of the system only": {registry.Config{Hosts: map[string]registry.Host{host: {}}}, false},
		"another":            {registry.Config{CA: others.File, Hosts: map[string]registry.Host{host: {}}}, false},
		"of all hosts":       {registry.Config{CA: ours.File, Hosts: map[string]registry.Host{host: {}}}, true},
		"of the host":        {registry.Config{Hosts: map[string]registry.Host{host: {CA: ours.File}}}, true},
		"of both":            {registry.Config{CA: others.File, Hosts: map[string]registry.Host{host: {CA: ours.File}}}, true},
		"of another host":    {registry.Config{Hosts: map[string]registry.Host{host: {}, "other.example": {CA: ours.File}}}, false},
	} {
		_, _, err := newClient(t, tc.cfg, registry.Options{}).Manifest(t.Context(), host, "x", bodyDigest())
		if tc.good && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !tc.good {
			wantReason(t, err, reason.Refuse, reason.HostNotAllowed)
			if !strings.Contains(err.Error(), "set ca for the host") {
				t.Errorf("%s: the error does not say what to set: %v", name, err)
			}
		}
	}
	for name, cfg := range map[string]registry.Config{
		"hosts[a.example].ca: ":   {Hosts: map[string]registry.Host{"a.example": {CA: "/nonexistent"}}},
		"hosts[a.example].cert: ": {Hosts: map[string]registry.Host{"a.example": {Cert: "/nonexistent", Key: "/nonexistent"}}},
		"ca: ":                    {CA: secretFile(t, "no PEM")},
	} {
		if _, err := registry.New(cfg, registry.Options{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A renewed client certificate is shown at the next login.
func TestClientCertificates(t *testing.T) {
	a := tlstest.New(t)
	var mu sync.Mutex
	var shown []string
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		shown = append(shown, r.TLS.PeerCertificates[0].Subject.CommonName)
		mu.Unlock()
		plainBody(w, r)
	})
	host := secure(t, a, h, func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, a.Pool }, "127.0.0.1")
	cert, key := a.Issue(t, "first")
	c := newClient(t, registry.Config{CA: a.File, Hosts: map[string]registry.Host{host: {Cert: cert, Key: key}}}, registry.Options{})
	if _, _, err := c.Manifest(t.Context(), host, "x", bodyDigest()); err != nil {
		t.Fatal(err)
	}
	a.IssueTo(t, cert, key, "the second one")
	if _, _, err := c.Manifest(t.Context(), host, "y", bodyDigest()); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(shown, "first") || !slices.Contains(shown, "the second one") {
		t.Errorf("shown: %v", shown)
	}
	without := newClient(t, registry.Config{CA: a.File, Hosts: map[string]registry.Host{host: {}}}, registry.Options{})
	if _, _, err := without.Manifest(t.Context(), host, "x", bodyDigest()); err == nil {
		t.Error("the registry answers without a certificate")
	}
}

// proxy is a real CONNECT proxy whose names lead where the test says.
type proxy struct {
	names map[string]string // "host:port" → address
	auth  string            // Proxy-Authorization that it wants

	mu        sync.Mutex
	connected []string
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.auth != "" && r.Header.Get("Proxy-Authorization") != p.auth {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	p.mu.Lock()
	p.connected = append(p.connected, r.Method+" "+r.Host)
	p.mu.Unlock()
	to, ok := p.names[r.Host]
	if r.Method != http.MethodConnect || !ok {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	upstream, err := net.Dial("tcp", to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusOK)
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = upstream.Close()
		return
	}
	go func() { _, _ = io.Copy(upstream, buffered); _ = upstream.Close() }()
	_, _ = io.Copy(client, upstream)
	_ = client.Close()
}

func TestProxy(t *testing.T) {
	a := tlstest.New(t)
	behind := secure(t, a, http.HandlerFunc(plainBody), nil, "registry.corp.test")
	direct := secure(t, a, http.HandlerFunc(plainBody), nil, "127.0.0.1")
	p := &proxy{names: map[string]string{"registry.corp.test:443": behind}, auth: "Basic " + basic("me", "hunter2")}
	address := serve(t, p)
	hosts := map[string]registry.Host{"registry.corp.test": {}, "unknown.corp.test": {}, "*.corp.test": {}, direct: {}}
	good := registry.Proxy{URL: "http://" + address, Username: "me", PasswordFile: secretFile(t, "hunter2\n"), NoProxy: []string{"127.0.0.1"}}
	c := newClient(t, registry.Config{CA: a.File, Hosts: hosts, Proxy: good}, registry.Options{})
	if _, _, err := c.Manifest(t.Context(), "registry.corp.test", "x", bodyDigest()); err != nil {
		t.Fatal(err)
	}
	if len(p.connected) == 0 {
		t.Fatal("the proxy was not asked")
	}
	before := len(p.connected)
	if _, _, err := c.Manifest(t.Context(), direct, "x", bodyDigest()); err != nil || len(p.connected) != before {
		t.Errorf("what needs no proxy: %v, the proxy connected %v", err, p.connected[before:])
	}
	_, _, err := c.Manifest(t.Context(), "unknown.corp.test", "x", bodyDigest())
	wantReason(t, err, reason.Retry, reason.Unreachable)
	if !strings.Contains(err.Error(), "proxy "+address+" answered 403") {
		t.Errorf("the error does not name the proxy: %v", err)
	}
	wrong := good
	wrong.PasswordFile = secretFile(t, "another")
	_, _, err = newClient(t, registry.Config{CA: a.File, Hosts: hosts, Proxy: wrong}, registry.Options{}).Manifest(t.Context(), "registry.corp.test", "x", bodyDigest())
	wantReason(t, err, reason.Retry, reason.Denied)
	if strings.Contains(err.Error(), "another") {
		t.Errorf("the error shows the secret: %v", err)
	}
}

// The environment's proxy is nobody's unless the configuration says so.
func TestProxyOfTheEnvironment(t *testing.T) {
	a := tlstest.New(t)
	behind := secure(t, a, http.HandlerFunc(plainBody), nil, "registry.corp.test")
	p := &proxy{names: map[string]string{"registry.corp.test:443": behind}}
	t.Setenv("HTTPS_PROXY", "http://"+serve(t, p))
	t.Setenv("NO_PROXY", "")
	cfg := registry.Config{CA: a.File, Hosts: map[string]registry.Host{"registry.corp.test": {}}}
	if _, _, err := newClient(t, cfg, registry.Options{}).Manifest(t.Context(), "registry.corp.test", "x", bodyDigest()); err == nil || len(p.connected) != 0 {
		t.Errorf("it was used: %v, %v", err, p.connected)
	}
	cfg.Proxy.FromEnvironment = true
	if _, _, err := newClient(t, cfg, registry.Options{}).Manifest(t.Context(), "registry.corp.test", "x", bodyDigest()); err != nil {
		t.Error(err)
	}
}

// An address that an event names gets no further by a proxy than without one.
func TestAddressesBehindAProxy(t *testing.T) {
	p := &proxy{names: map[string]string{}}
	c := newClient(t, registry.Config{
		Proxy: registry.Proxy{URL: "http://" + serve(t, p)},
		Hosts: map[string]registry.Host{"10.*.2.3": {}, "*.*.169.254:80": {}},
	}, registry.Options{})
	for _, host := range []string{"10.9.2.3", "169.254.169.254:80"} {
		_, _, err := c.Manifest(t.Context(), host, "x", bodyDigest())
		wantReason(t, err, reason.Refuse, reason.HostNotAllowed)
	}
	if len(p.connected) != 0 {
		t.Errorf("the proxy connected %v", p.connected)
	}
}

// Credentials stay where they were configured for, whatever a registry redirects to.
func TestCredentialsDoNotFollowRedirects(t *testing.T) {
	var mu sync.Mutex
	seen := map[string][]string{}
	note := func(where string, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[where] = append(seen[where], r.Header.Get("Authorization"))
	}
	other := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("other", r)
		_, _ = w.Write(body)
	}))
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("self", r)
		if r.URL.Path == "/v2/" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, "http://"+other+"/take", http.StatusTemporaryRedirect)
	}))
	secret := secretFile(t, "hunter2")
	for _, as := range []string{"realm", "blobs"} {
		h := registry.Host{Plain: true, Username: "me", PasswordFile: secret}
		if as == "realm" {
			h.Realms = []string{other}
		} else {
			h.Blobs = []string{other}
		}
		c := newClient(t, registry.Config{Hosts: map[string]registry.Host{host: h, other: {Plain: true, Username: "other", PasswordFile: secret}}}, registry.Options{})
		if _, _, err := c.Manifest(t.Context(), host, "x", bodyDigest()); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Contains(seen["self"], "Basic "+basic("me", "hunter2")) {
		t.Errorf("the registry itself saw %q", seen["self"])
	}
	if len(seen["other"]) != 2 || slices.ContainsFunc(seen["other"], func(s string) bool { return s != "" }) {
		t.Errorf("the other host saw %q", seen["other"])
	}
}

// A token server that redirects is not followed with a refresh token in the body.
func TestRefreshTokensDoNotFollowRedirects(t *testing.T) {
	reached := false
	thief := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	var host string
	host = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			http.Redirect(w, r, "http://"+thief+"/", http.StatusTemporaryRedirect)
			return
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s"`, host))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	c := newClient(t, registry.Config{
		DockerConfig: dockerConfig(t, `{"auths":{%q:{"identitytoken":"hunter2"}}}`, host),
		Hosts:        map[string]registry.Host{host: {Plain: true, Realms: []string{thief}}},
	}, registry.Options{})
	if _, _, err := c.Manifest(t.Context(), host, "x", bodyDigest()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
	if reached {
		t.Error("the refresh token followed the redirect")
	}
}

func TestMetrics(t *testing.T) {
	metrics := prometheus.NewRegistry()
	status := http.StatusOK
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}))
	cfg := registry.Config{Hosts: map[string]registry.Host{host: {Plain: true}, "*.example": {}}}
	c := newClient(t, cfg, registry.Options{Registerer: metrics})
	if _, err := registry.New(cfg, registry.Options{Registerer: metrics}); err != nil {
		t.Fatalf("a second client: %v", err)
	}
	for _, s := range []int{200, 404, 403, 429, 503, 418} {
		status = s
		_, _, _ = c.Manifest(t.Context(), host, "x", bodyDigest())
	}
	_, _, _ = c.Manifest(t.Context(), "no-such-host.example", "x", bodyDigest())
	// What failed is TLS, which is tried first where plain HTTP is allowed; once more after the denial.
	want := fmt.Sprintf(`
# HELP pratique_registry_requests_total Requests to registries, their token servers and their storage, by the configured registry and outcome: ok, challenged (401), denied (403), not-found, throttled (429), refused (other 4xx), unavailable (5xx), failed (no answer).
# TYPE pratique_registry_requests_total counter
pratique_registry_requests_total{outcome="denied",registry=%[1]q} 1
pratique_registry_requests_total{outcome="failed",registry="*.example"} 1
pratique_registry_requests_total{outcome="failed",registry=%[1]q} 2
pratique_registry_requests_total{outcome="not-found",registry=%[1]q} 1
pratique_registry_requests_total{outcome="ok",registry=%[1]q} 3
pratique_registry_requests_total{outcome="refused",registry=%[1]q} 1
pratique_registry_requests_total{outcome="throttled",registry=%[1]q} 1
pratique_registry_requests_total{outcome="unavailable",registry=%[1]q} 1
`, host)
	if err := testutil.GatherAndCompare(metrics, strings.NewReader(want), "pratique_registry_requests_total"); err != nil {
		t.Error(err)
	}
	n, err := testutil.GatherAndCount(metrics, "pratique_registry_read_bytes_total")
	if err != nil || n == 0 {
		t.Errorf("%d counters of bytes, %v", n, err)
	}
}

func TestAccessIsChecked(t *testing.T) {
	file := "f"
	for want, cfg := range map[string]registry.Config{
		"hosts[a.example].passwordFile: ":             {Hosts: map[string]registry.Host{"a.example": {Username: "me"}}},
		"hosts[a.example].username: ":                 {Hosts: map[string]registry.Host{"a.example": {Username: "a:b", PasswordFile: file}}},
		"hosts[a.example].cert: ":                     {Hosts: map[string]registry.Host{"a.example": {Cert: file}}},
		"hosts[a.example].repositories[x/]: ":         {Hosts: map[string]registry.Host{"a.example": {Repositories: map[string]registry.Credentials{"x/": {"me", file}}}}},
		"hosts[a.example].repositories[x].username: ": {Hosts: map[string]registry.Host{"a.example": {Repositories: map[string]registry.Credentials{"x": {}}}}},
		"hosts[*]: credentials ":                      {Hosts: map[string]registry.Host{"*": {Repositories: map[string]registry.Credentials{"x": {"me", file}}}}},
		"hosts[*.com]: a proxy ":                      {Hosts: map[string]registry.Host{"*.com": {}}, Proxy: registry.Proxy{URL: "http://p:1"}},
		"hosts[*]: a proxy ":                          {Hosts: map[string]registry.Host{"*": {}}, Proxy: registry.Proxy{FromEnvironment: true}},
		"proxy.url: want ":                            {Proxy: registry.Proxy{URL: "p:1"}},
		"proxy.url: holds credentials":                {Proxy: registry.Proxy{URL: "http://me:hunter2@p:1"}},
		"proxy.url: name ":                            {Proxy: registry.Proxy{NoProxy: []string{"x"}}},
		"proxy.passwordFile: ":                        {Proxy: registry.Proxy{URL: "http://p:1", Username: "me"}},
		"proxy.fromEnvironment: ":                     {Proxy: registry.Proxy{URL: "http://p:1", FromEnvironment: true}},
		"proxy.noProxy[1]: ":                          {Proxy: registry.Proxy{URL: "http://p:1", NoProxy: []string{"x", "a,b"}}},
	} {
		err := cfg.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", want, err)
		}
	}
	good := registry.Config{
		CA: file, DockerConfig: file, Proxy: registry.Proxy{URL: "http://p:1", Username: "me", PasswordFile: file, NoProxy: []string{".corp", "10.0.0.0/8"}},
		Hosts: map[string]registry.Host{"*.corp.example": {Username: "me", PasswordFile: file, CA: file, Cert: file, Key: file, Repositories: map[string]registry.Credentials{"a/b": {"me", file}}}},
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

// A registry, or a proxy before it, that shows requests in its errors: what it says is kept, but for secrets.
func TestErrorsRepeatNoCredentials(t *testing.T) {
	var says string
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":%q}]}`, says)
	}))
	c := newClient(t, registry.Config{Hosts: map[string]registry.Host{host: {
		Plain: true, Username: "me", PasswordFile: secretFile(t, "very-secret"),
	}}}, registry.Options{})
	for said, shown := range map[string]bool{
		"the quota is used up": true, "me:very-secret may not": false, "Basic " + basic("me", "very-secret"): false,
		strings.Repeat("x", 190) + "very-secret": false, // cut in the middle it would still be most of it
	} {
		says = said
		_, _, err := c.Manifest(t.Context(), host, "team/app", bodyDigest())
		wantReason(t, err, reason.Refuse, reason.Denied)
		if strings.Contains(err.Error(), said) != shown || strings.Contains(err.Error(), "very-se") {
			t.Errorf("%q: %v", said, err)
		}
	}
}
