package door

import (
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// defaultRetry is what a caller is told when nobody knows how long it will take.
const defaultRetry = 5 * time.Second

// statusOf is the one table from reasons to HTTP. There is no 500 in it: what is our fault, or nobody
// foresaw, is worth a sender's repetition.
func statusOf(e *reason.Error) int {
	switch e.Code {
	case reason.Unauthorized:
		return http.StatusUnauthorized
	case reason.Forbidden, reason.HostNotAllowed:
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

// problem answers with a status of the caller's choice. The message names the field or bound, and the
// way out.
func (d *Door) problem(w http.ResponseWriter, r *http.Request, status int, code reason.Code, message string) {
	p := wire.Problem{Code: code, Message: message}
	if sc := trace.SpanContextFromContext(r.Context()); sc.IsValid() {
		p.TraceID = sc.TraceID().String()
	}
	line, err := wire.ProblemJSON(p)
	if err != nil {
		d.log.ErrorContext(r.Context(), "problem cannot be encoded", slog.Any("error", err)) // the status says enough
	}
	d.send(w, r, status, "application/json", line)
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
