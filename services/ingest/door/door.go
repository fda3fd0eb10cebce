// Package door is ingest's HTTP side: it lets in whom it may, bounds what they send, and turns it into
// stored events. A success means that EVENTS has what was sent; while it cannot, callers are told to
// come again. It keeps nothing itself.
//
//	POST /v1/scans            a scan request → 202 {"id","statusUrl"}
//	GET  /v1/scans/{id}       what became of it
//	GET  /v1/reports/{digest} the reports of a manifest, one JSON object a line; ?platform= picks one
//	POST /v1/events/{source}  a registry's notification → 202 {"accepted","dropped"}
//	POST /v1/manifests        a cluster's manifests, YAML or JSON; ?cluster= names it → 202 {"id","documents"}
//
// Whatever is no success has the body {"code","message","traceId"}. Bodies are protobuf JSON of
// proto/pratique/v1.
package door

import (
	"errors"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/services/ingest/source"
)

// publishTimeout bounds how long a caller waits for the bus. Registries give up sooner.
const publishTimeout = 10 * time.Second

// Config of a door.
type Config struct {
	Tokens *Tokens // nil or none: callers are not asked for one, and may do everything
	// LocalOnly turns away requests that do not name this machine as their host: without tokens a web
	// page could otherwise have its reader's browser talk to us, under a name that leads here.
	LocalOnly bool
}

// Deps are what a door works with. Registerer and Tracer may be nil.
type Deps struct {
	Bus        Bus
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Tracer     trace.TracerProvider // nil: OpenTelemetry's global one
	Now        func() time.Time     // nil: time.Now
}

// Door is an http.Handler.
type Door struct {
	cfg     atomic.Pointer[Config]
	bus     Bus
	log     *slog.Logger
	metrics *metrics
	tracer  trace.TracerProvider
	now     func() time.Time
	mux     *http.ServeMux
	checks  chan struct{} // a slot each for manifests that are being checked
}

// New makes a door.
func New(cfg Config, deps Deps) (*Door, error) {
	m, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, err
	}
	d := &Door{bus: deps.Bus, log: deps.Logger, metrics: m, tracer: deps.Tracer, now: deps.Now, mux: http.NewServeMux(), checks: make(chan struct{}, manifestChecks)}
	if d.now == nil {
		d.now = time.Now
	}
	d.Reload(cfg)
	d.route(http.MethodPost, "/v1/scans", d.postScan)
	d.route(http.MethodGet, "/v1/scans/{id}", d.getScan)
	d.route(http.MethodGet, "/v1/reports/{digest}", d.getReports)
	d.route(http.MethodPost, "/v1/manifests", d.postManifests)
	for _, s := range source.All {
		d.route(http.MethodPost, "/v1/events/"+s.Name, d.postEvents(s))
	}
	d.mux.Handle("/", d.instrument("other", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.problem(w, r, http.StatusNotFound, reason.NotFound, "no such path; see /v1/scans, /v1/reports, /v1/events and /v1/manifests")
	})))
	return d, nil
}

func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.mux.ServeHTTP(w, r) }

// Reload makes another configuration the one of the requests to come.
func (d *Door) Reload(cfg Config) { d.cfg.Store(&cfg) }

// route adds a handler for one method of a path; other methods are told which.
func (d *Door) route(method, path string, h http.HandlerFunc) {
	name := method + " " + path
	d.mux.Handle(path, d.instrument(name, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, ok := d.admit(w, r)
		if !ok {
			return
		}
		v, s := &visit{caller: caller}, &statusWriter{ResponseWriter: w}
		r = withVisit(r, v)
		defer func() { d.audit(r, v, name, s.status) }()
		if r.Method != method {
			s.Header().Set("Allow", method)
			d.problem(s, r, http.StatusMethodNotAllowed, reason.BadRequest, "method: use "+method)
			return
		}
		h(s, r)
	})))
}

// admit asks for the token; without one configured, that the request is meant for this machine.
func (d *Door) admit(w http.ResponseWriter, r *http.Request) (*Caller, bool) {
	cfg := d.cfg.Load()
	if cfg.Tokens.None() {
		if cfg.LocalOnly && !Loopback(r.Host) {
			d.fail(w, r, reason.Refusef(reason.HostNotAllowed, "host: without tokens only requests to 127.0.0.1, [::1] or localhost are answered; configure tokens"))
			return nil, false
		}
		return anybody, true
	}
	caller, ok := cfg.Tokens.Caller(r)
	if !ok {
		w.Header().Set("WWW-Authenticate", "Bearer")
		d.fail(w, r, reason.Refusef(reason.Unauthorized, "authorization: send Authorization: Bearer <token>, with a token of those that ingest is configured with"))
		return nil, false
	}
	return caller, true
}

// Loopback tells whether an address ("host" or "host:port") is this machine and nothing else.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// instrument wraps a route in its span, its metrics, and the recovery from a bug in it.
func (d *Door) instrument(route string, h http.Handler) http.Handler {
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, s := d.now(), &statusWriter{ResponseWriter: w}
		defer func() { d.metrics.answered(route, s.status, d.now().Sub(start)) }()
		defer func() {
			if p := recover(); p != nil {
				d.panicked(s, r, route, p)
			}
		}()
		h.ServeHTTP(s, r)
	})
	opts := []otelhttp.Option{otelhttp.WithPropagators(propagation.TraceContext{})}
	if d.tracer != nil {
		opts = append(opts, otelhttp.WithTracerProvider(d.tracer))
	}
	opts = append(opts, otelhttp.WithSpanNameFormatter(func(string, *http.Request) string { return route }))
	return otelhttp.NewHandler(counted, route, opts...)
}

// panicked answers for a handler that did not, so that the sender tries again.
func (d *Door) panicked(w *statusWriter, r *http.Request, route string, p any) {
	d.log.ErrorContext(r.Context(), "handler panicked", slog.String("route", route), slog.Any("panic", p))
	if w.status == 0 {
		d.fail(w, r, reason.Retryf(reason.Internal, "handler panicked"))
	}
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// body reads a JSON body of at most most bytes. false: the answer has been given.
// The media type is insisted on because a browser sends no JSON elsewhere without asking first.
func (d *Door) body(w http.ResponseWriter, r *http.Request, most int64) ([]byte, bool) {
	mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mt != "application/json" && !strings.HasSuffix(mt, "+json") {
		d.problem(w, r, http.StatusUnsupportedMediaType, reason.BadRequest, "content-type: send JSON with Content-Type: application/json")
		return nil, false
	}
	return d.read(w, r, most)
}

// read reads a body of at most most bytes. false: the answer has been given.
func (d *Door) read(w http.ResponseWriter, r *http.Request, most int64) ([]byte, bool) {
	if r.Header.Get("Content-Encoding") != "" {
		d.problem(w, r, http.StatusUnsupportedMediaType, reason.BadRequest, "content-encoding: send the body as it is")
		return nil, false
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		d.fail(w, r, reason.Refusef(reason.OverBound, "body: larger than %d bytes", most))
		return nil, false
	case err != nil:
		d.fail(w, r, reason.Refusef(reason.BadRequest, "body: broke off: %w", err))
		return nil, false
	}
	return b, true
}
