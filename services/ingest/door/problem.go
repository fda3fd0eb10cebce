package door

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/reason"
)

// defaultRetry is what a caller is told when nobody knows how long it will take.
const defaultRetry = 5 * time.Second

// problem is the body of every answer that is no success. Code is for machines; Message names the field
// or bound, and the way out.
type problem struct {
	Code    reason.Code `json:"code"`
	Message string      `json:"message"`
	TraceID string      `json:"trace_id,omitempty"`
}

// statusOf is the one table from reasons to HTTP. There is no 500 in it: what is our fault, or nobody
// foresaw, is worth a sender's repetition.
func statusOf(e *reason.Error) int {
	switch e.Code {
	case reason.Unauthorized:
		return http.StatusUnauthorized
	case reason.HostNotAllowed:
		return http.StatusForbidden
	case reason.NotFound:
		return http.StatusNotFound
	case reason.OverBound:
		return http.StatusRequestEntityTooLarge
	}
	if e.Kind == reason.Retry {
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// fail answers with an error. A refusal is explained to the caller; of a failure inside he sees the
// code, and the log has the rest.
func (d *Door) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := reason.Of(err)
	status := statusOf(e)
	message := "this cannot be done right now; send it again later"
	if status == http.StatusServiceUnavailable {
		wait := max(e.RetryAfter, defaultRetry)
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		d.log.WarnContext(r.Context(), "request failed", slog.String("code", string(e.Code)), slog.Any("error", err))
	} else if e.Err != nil {
		message = e.Err.Error()
	}
	d.problem(w, r, status, e.Code, message)
}

// problem answers with a status of the caller's choice.
func (d *Door) problem(w http.ResponseWriter, r *http.Request, status int, code reason.Code, message string) {
	p := problem{Code: code, Message: message}
	if sc := trace.SpanContextFromContext(r.Context()); sc.IsValid() {
		p.TraceID = sc.TraceID().String()
	}
	d.json(w, r, status, p)
}

// json answers with one line of JSON.
func (d *Door) json(w http.ResponseWriter, r *http.Request, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		d.log.ErrorContext(r.Context(), "answer cannot be encoded", slog.Any("error", err))
		b, status = []byte(`{"code":"internal","message":"the answer cannot be encoded"}`), http.StatusServiceUnavailable
	}
	d.send(w, r, status, "application/json", b)
}

// send writes a line.
func (d *Door) send(w http.ResponseWriter, r *http.Request, status int, contentType string, line []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if _, err := w.Write(append(line, '\n')); err != nil {
		d.log.DebugContext(r.Context(), "caller went away", slog.Any("error", err))
	}
}
