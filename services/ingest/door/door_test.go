package door_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/ingest/door"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fakeBus keeps events in memory and fails on demand.
type fakeBus struct {
	mu      sync.Mutex
	events  []event.Event
	fates   map[string]fate.Fate
	reports map[image.Digest][]*report.Report
	sources map[image.Digest][]image.Reference
	err     error // of every call
	after   int   // events that are stored before err
	trace   trace.TraceID
}

func (b *fakeBus) PublishEvent(ctx context.Context, e event.Event) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trace = trace.SpanContextFromContext(ctx).TraceID()
	for i, old := range b.events {
		if old.ID == e.ID {
			return uint64(i + 1), nil
		}
	}
	if b.err != nil && len(b.events) >= b.after {
		return 0, b.err
	}
	b.events = append(b.events, e)
	return uint64(len(b.events)), nil
}

func (b *fakeBus) Event(_ context.Context, seq uint64) (event.Event, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return event.Event{}, b.err
	}
	if seq > uint64(len(b.events)) {
		return event.Event{}, bus.ErrNotFound
	}
	return b.events[seq-1], nil
}

func (b *fakeBus) Fate(_ context.Context, key string) (fate.Fate, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return fate.Fate{}, b.err
	}
	f, ok := b.fates[key]
	if !ok {
		return fate.Fate{}, bus.ErrNotFound
	}
	return f, nil
}

func (b *fakeBus) Reports(_ context.Context, d image.Digest) ([]*report.Report, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []*report.Report
	for _, r := range b.reports[d] {
		c := *r // as read from the stream
		all = append(all, &c)
	}
	return all, b.err
}

func (b *fakeBus) Sources(_ context.Context, d image.Digest) ([]image.Reference, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sources[d], b.err
}

// fixture is a door on a server.
type fixture struct {
	bus     *fakeBus
	metrics *prometheus.Registry
	url     string
}

func open(t *testing.T, cfg door.Config, tracer trace.TracerProvider) *fixture {
	t.Helper()
	f := &fixture{bus: &fakeBus{fates: map[string]fate.Fate{}, reports: map[image.Digest][]*report.Report{}, sources: map[image.Digest][]image.Reference{}}, metrics: prometheus.NewRegistry()}
	d, err := door.New(cfg, door.Deps{
		Bus: f.bus, Logger: slog.New(slog.DiscardHandler), Registerer: f.metrics, Tracer: tracer, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	served := serve(t, d, f.bus)
	served.metrics = f.metrics
	return served
}

// serve puts a door on a server.
func serve(t *testing.T, d http.Handler, b *fakeBus) *fixture {
	t.Helper()
	s := httptest.NewServer(d)
	t.Cleanup(s.Close)
	return &fixture{bus: b, url: s.URL}
}

// do sends a request; headers are pairs.
func (f *fixture) do(t *testing.T, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, f.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// wantProblem checks the shape of an answer that is no success, and that it names something.
func wantProblem(t *testing.T, resp *http.Response, body string, status int, code reason.Code, names string) {
	t.Helper()
	p, err := wire.ProblemFromJSON([]byte(body))
	if err != nil {
		t.Fatalf("status %d, body %q: %v", resp.StatusCode, body, err)
	}
	if resp.StatusCode != status || p.Code != code || !strings.Contains(p.Message, names) {
		t.Errorf("answer %d %+v, want %d, code %s, a message with %q", resp.StatusCode, p, status, code, names)
	}
	if retry := resp.Header.Get("Retry-After"); (retry != "") != (status == http.StatusServiceUnavailable) {
		t.Errorf("Retry-After %q on status %d", retry, status)
	}
}

func TestScanRequestIsStored(t *testing.T) {
	f := open(t, door.Config{}, nil)
	resp, body := f.do(t, "POST", "/v1/scans", `{"reference":"nginx:1.25","platforms":["linux/arm64/v8"]}`)
	got, err := wire.ScanAcceptedFromJSON([]byte(body))
	if err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatalf("answer %d %s", resp.StatusCode, body)
	}
	if len(f.bus.events) != 1 {
		t.Fatalf("%d events", len(f.bus.events))
	}
	e := f.bus.events[0]
	want := event.Event{
		ID: e.ID, Kind: event.KindImage, Source: "api", Action: event.Request, Cause: event.CauseRequest,
		Reference: image.Reference{Host: "docker.io", Repository: "library/nginx", Tag: "1.25"},
		Platforms: []image.Platform{{OS: "linux", Architecture: "arm64", Variant: "v8"}}, Received: now,
	}
	if d := cmp.Diff(want, e); d != "" {
		t.Errorf("event (-want +got):\n%s", d)
	}
	if got.ID != fate.RequestID(1, e.ID) || got.StatusURL != "/v1/scans/"+got.ID || resp.Header.Get("Location") != got.StatusURL {
		t.Errorf("answer %+v, Location %q", got, resp.Header.Get("Location"))
	}

	resp, body = f.do(t, "GET", got.StatusURL, "")
	state, err := wire.FateFromJSON([]byte(body))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d %s: %v", resp.StatusCode, body, err)
	}
	if state.Stage != fate.Accepted || state.Request != got.ID || state.Reference != e.Reference {
		t.Errorf("fate before anybody looked at it: %+v", state)
	}

	f.bus.fates[fate.RequestKey(got.ID)] = fate.Fate{Request: got.ID, Reference: e.Reference, Stage: fate.Decided, Reason: reason.Denied, Received: now, Updated: now}
	_, body = f.do(t, "GET", got.StatusURL, "")
	if state, err = wire.FateFromJSON([]byte(body)); err != nil || state.Stage != fate.Decided || state.Reason != reason.Denied {
		t.Errorf("fate %+v, %v", state, err)
	}
}

func TestIdempotencyKey(t *testing.T) {
	f := open(t, door.Config{}, nil)
	post := func(ref string, headers ...string) string {
		_, body := f.do(t, "POST", "/v1/scans", `{"reference":"`+ref+`"}`, headers...)
		return body
	}
	if one, two := post("nginx"), post("nginx"); one == two {
		t.Error("two requests without a key are one")
	}
	first := post("nginx", "Idempotency-Key", "k")
	if again := post("nginx", "Idempotency-Key", "k"); again != first {
		t.Errorf("the same request again is %s, was %s", again, first)
	}
	if post("redis", "Idempotency-Key", "k") == first {
		t.Error("another request under the same key is answered with the first")
	}
	if n := len(f.bus.events); n != 4 {
		t.Errorf("%d events stored, want 4", n)
	}
}

func TestBadScanRequests(t *testing.T) {
	f := open(t, door.Config{}, nil)
	for name, tc := range map[string]struct {
		body    string
		headers []string
		status  int
		code    reason.Code
		names   string
	}{
		"no JSON":           {"hello", nil, 400, reason.BadRequest, "scan request"},
		"empty":             {"", nil, 400, reason.BadRequest, "scan request"},
		"no reference":      {"{}", nil, 400, reason.BadRequest, "reference"},
		"bad reference":     {`{"reference":"https://nginx"}`, nil, 400, reason.BadRequest, "reference"},
		"bad digest":        {`{"reference":"nginx@sha256:12"}`, nil, 400, reason.BadRequest, "reference"},
		"unknown field":     {`{"reference":"nginx","plattform":"x"}`, nil, 400, reason.BadRequest, "plattform"},
		"bad platform":      {`{"reference":"nginx","platforms":["linux/amd64","linux"]}`, nil, 400, reason.BadRequest, "platforms[1]"},
		"too many":          {`{"reference":"nginx","platforms":[` + strings.Repeat(`"a/b",`, 32) + `"a/b"]}`, nil, 413, reason.OverBound, "platforms"},
		"too large":         {`{"reference":"` + strings.Repeat("a", 65<<10) + `"}`, nil, 413, reason.OverBound, "body"},
		"a form":            {"reference=nginx", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, reason.BadRequest, "content-type"},
		"compressed":        {"{}", []string{"Content-Encoding", "gzip"}, 415, reason.BadRequest, "content-encoding"},
		"long key":          {`{"reference":"nginx"}`, []string{"Idempotency-Key", strings.Repeat("k", 300)}, 400, reason.BadRequest, "idempotency-key"},
		"reference in bits": {"{\"reference\":\"\xff\"}", nil, 400, reason.BadRequest, ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := f.do(t, "POST", "/v1/scans", tc.body, tc.headers...)
			wantProblem(t, resp, body, tc.status, tc.code, tc.names)
		})
	}
	if n := len(f.bus.events); n != 0 {
		t.Errorf("%d events were stored", n)
	}
}

func TestPathsAndMethods(t *testing.T) {
	f := open(t, door.Config{}, nil)
	for _, tc := range []struct {
		method, path string
		status       int
		code         reason.Code
		names        string
	}{
		{"GET", "/", 404, reason.NotFound, "/v1/scans"},
		{"POST", "/v1/events/harbour", 404, reason.NotFound, "path"},
		{"GET", "/v1/scans", 405, reason.BadRequest, "POST"},
		{"DELETE", "/v1/scans/1-0123456789abcdef", 405, reason.BadRequest, "GET"},
		{"GET", "/v1/scans/nonsense", 404, reason.NotFound, "scan request"},
		{"GET", "/v1/scans/1-0123456789abcdef", 404, reason.NotFound, "scan request"},
		{"GET", "/v1/reports/sha256:12", 400, reason.BadRequest, "digest"},
		{"GET", "/v1/reports/" + string(image.DigestOf(nil)) + "?platform=linux", 400, reason.BadRequest, "platform"},
		{"GET", "/v1/reports/" + string(image.DigestOf(nil)), 404, reason.NotFound, "report"},
	} {
		t.Run(tc.method+tc.path, func(t *testing.T) {
			resp, body := f.do(t, tc.method, tc.path, "")
			wantProblem(t, resp, body, tc.status, tc.code, tc.names)
		})
	}
}

func TestSomebodyElsesRequestIsNotShown(t *testing.T) {
	f := open(t, door.Config{}, nil)
	_, _ = f.do(t, "POST", "/v1/scans", `{"reference":"nginx"}`)
	resp, body := f.do(t, "GET", "/v1/scans/1-0123456789abcdef", "") // the right number, a guessed id
	wantProblem(t, resp, body, 404, reason.NotFound, "")
}

func TestReports(t *testing.T) {
	f := open(t, door.Config{}, nil)
	d := image.DigestOf([]byte("manifest"))
	of := func(arch, variant string) *report.Report {
		return &report.Report{
			Image: image.Image{
				Reference: image.Reference{Host: "registry.example", Repository: "app", Digest: d},
				Config:    image.DigestOf([]byte("config")), Platform: image.Platform{OS: "linux", Architecture: arch, Variant: variant},
			},
			Outcome: report.Clean, Created: now,
		}
	}
	f.bus.reports[d] = []*report.Report{of("amd64", ""), of("arm64", "v8")}
	for path, want := range map[string]int{"": 2, "?platform=linux/arm64": 1, "?platform=linux/amd64/v1": 1, "?platform=linux/s390x": 0} {
		resp, body := f.do(t, "GET", "/v1/reports/"+string(d)+path, "")
		if want == 0 {
			wantProblem(t, resp, body, 404, reason.NotFound, "platform")
			continue
		}
		lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
		if resp.StatusCode != http.StatusOK || len(lines) != want {
			t.Errorf("%s: %d with %d lines, want %d", path, resp.StatusCode, len(lines), want)
			continue
		}
		for _, l := range lines {
			if r, err := wire.ReportFromJSON([]byte(l)); err != nil || r.Image.Digest != d {
				t.Errorf("%s: line %q: %v", path, l, err)
			}
		}
	}
}

// notification has a manifest push, a layer push and a pull.
const notification = `{"events":[
 {"id":"1","action":"push","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","repository":"team/app","tag":"v1","digest":"sha256:1"},"request":{"host":"registry.example"}},
 {"id":"2","action":"push","target":{"mediaType":"application/vnd.oci.image.layer.v1.tar","repository":"team/app"},"request":{"host":"registry.example"}},
 {"id":"3","action":"push","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","repository":"team/app","tag":"v2"},"request":{"host":"registry.example"}},
 {"id":"4","action":"pull"}]}`

func TestNotifications(t *testing.T) {
	f := open(t, door.Config{}, nil)
	for range 2 { // the second time is a sender's repetition
		resp, body := f.do(t, "POST", "/v1/events/distribution", notification, "Content-Type", "application/vnd.docker.distribution.events.v2+json")
		if resp.StatusCode != http.StatusAccepted || body != `{"accepted":2,"dropped":{"blob":1,"pull":1}}`+"\n" {
			t.Errorf("answer %d %s", resp.StatusCode, body)
		}
	}
	var tags []string
	for _, e := range f.bus.events {
		tags = append(tags, e.Reference.Tag)
	}
	if d := cmp.Diff([]string{"v1", "v2"}, tags); d != "" {
		t.Errorf("stored (-want +got):\n%s", d)
	}
	want := `
# HELP pratique_ingest_unusable_fields_total Fields of stored events that could not be used, by source.
# TYPE pratique_ingest_unusable_fields_total counter
pratique_ingest_unusable_fields_total{source="distribution"} 2
`
	if err := testutil.GatherAndCompare(f.metrics, strings.NewReader(want), "pratique_ingest_unusable_fields_total"); err != nil {
		t.Error(err)
	}
	resp, body := f.do(t, "POST", "/v1/events/distribution", "hello")
	wantProblem(t, resp, body, 400, reason.BadRequest, "events")
	resp, body = f.do(t, "POST", "/v1/events/distribution", `{"events":["`+strings.Repeat("x", 1<<20)+`"]}`)
	wantProblem(t, resp, body, 413, reason.OverBound, "body")
}

func TestTheBusIsAway(t *testing.T) {
	f := open(t, door.Config{}, nil)
	for name, err := range map[string]error{
		"a reason": &reason.Error{Kind: reason.Retry, Code: reason.BusUnavailable, RetryAfter: 1500 * time.Millisecond, Err: errors.New("nats: secret detail")},
		"anything": errors.New("secret detail"),
		"time out": fmt.Errorf("secret detail: %w", context.DeadlineExceeded),
	} {
		t.Run(name, func(t *testing.T) {
			f.bus.err = err
			for _, call := range [][3]string{
				{"POST", "/v1/scans", `{"reference":"nginx"}`},
				{"POST", "/v1/events/distribution", notification},
				{"GET", "/v1/scans/1-0123456789abcdef", ""},
				{"GET", "/v1/reports/" + string(image.DigestOf(nil)), ""},
			} {
				resp, body := f.do(t, call[0], call[1], call[2])
				wantProblem(t, resp, body, 503, reason.Of(err).Code, "later")
				if strings.Contains(body, "secret") {
					t.Errorf("%s %s shows what is inside: %s", call[0], call[1], body)
				}
			}
		})
	}
}

// Halfway is no success, and sending all again stores each event once.
func TestTheBusFailsHalfway(t *testing.T) {
	f := open(t, door.Config{}, nil)
	f.bus.err, f.bus.after = errors.New("full"), 1
	if resp, _ := f.do(t, "POST", "/v1/events/distribution", notification); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", resp.StatusCode)
	}
	f.bus.err = nil
	if resp, _ := f.do(t, "POST", "/v1/events/distribution", notification); resp.StatusCode != http.StatusAccepted {
		t.Errorf("status %d, want 202", resp.StatusCode)
	}
	if n := len(f.bus.events); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}

// panicky panics where a handler reaches for it.
type panicky struct{ door.Bus }

func TestABugIsNoCrash(t *testing.T) {
	d, err := door.New(door.Config{}, door.Deps{Bus: panicky{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/v1/scans", strings.NewReader(`{"reference":"nginx"}`))
	r.Header.Set("Content-Type", "application/json")
	d.ServeHTTP(w, r)
	wantProblem(t, w.Result(), w.Body.String(), 503, reason.Internal, "later")
}

func TestTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []string{"", "# only a comment\n", "short\n"} {
		write(bad)
		if _, err := door.OpenTokens(nil, []string{file}, slog.New(slog.DiscardHandler), nil); err == nil {
			t.Errorf("token file %q is accepted", bad)
		}
	}
	write("# ci\nfirst-token-0123456789\n\n  second-token-0123456789 \n")
	tokens, err := door.OpenTokens(nil, []string{file}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := open(t, door.Config{Tokens: tokens}, nil)
	for header, ok := range map[string]bool{
		"": false, "Bearer": false, "Bearer ": false, "Bearer wrong": false, "# ci": false,
		"Basic first-token-0123456789": false, "Bearer first-token-0123456789x": false,
		"Bearer first-token-0123456789": true, "bearer second-token-0123456789": true,
		"second-token-0123456789": true, // GitLab's registry sends the bare secret
	} {
		for _, path := range []string{"/v1/scans/1-0123456789abcdef", "/v1/events/distribution"} {
			resp, body := f.do(t, "GET", path, "", "Authorization", header)
			if admitted := resp.StatusCode != http.StatusUnauthorized; admitted != ok {
				t.Errorf("%s with Authorization %q: status %d", path, header, resp.StatusCode)
			}
			if !ok {
				wantProblem(t, resp, body, 401, reason.Unauthorized, "authorization")
			}
		}
	}
}

func TestLocalOnly(t *testing.T) {
	f := open(t, door.Config{LocalOnly: true}, nil)
	for host, status := range map[string]int{"localhost": 202, "127.0.0.1:80": 202, "[::1]:80": 202, "evil.example": 403, "localhost.evil.example": 403, "10.0.0.1": 403} {
		resp, _ := f.do(t, "POST", "/v1/scans", `{"reference":"nginx"}`, "Host", host)
		if resp.StatusCode != status {
			t.Errorf("Host %s: status %d, want %d", host, resp.StatusCode, status)
		}
	}
}

func TestTheTraceBeginsHere(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	f := open(t, door.Config{}, sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	_, _ = f.do(t, "POST", "/v1/events/distribution", notification)
	ended := spans.Ended()
	if len(ended) != 1 || ended[0].Name() != "POST /v1/events/distribution" {
		t.Fatalf("spans %v", ended)
	}
	if got, want := f.bus.trace, ended[0].SpanContext().TraceID(); got != want {
		t.Errorf("the event is published in trace %s, want %s", got, want)
	}
	const parent = "0af7651916cd43dd8448eb211c80319c" // a caller's trace goes on
	_, body := f.do(t, "POST", "/v1/scans", "{}", "Traceparent", "00-"+parent+"-b7ad6b7169203331-01")
	if !strings.Contains(body, parent) {
		t.Errorf("the problem does not name the trace: %s", body)
	}
}
