package door

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/pratique-sec/pratique/pkg/reason"
)

// visit is one request by somebody who was let in.
type visit struct {
	caller *Caller
	notes  []slog.Attr // what it was about, for the log
}

type visitKey struct{}

// anybody is who comes while nobody is asked for a token.
var anybody = &Caller{all: true}

func withVisit(r *http.Request, v *visit) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), visitKey{}, v))
}

// callerOf is who a request that was let in comes from.
func callerOf(r *http.Request) *Caller {
	if v, ok := r.Context().Value(visitKey{}).(*visit); ok {
		return v.caller
	}
	return &Caller{}
}

// maxNote bounds what a log line repeats of a request, in bytes.
const maxNote = 512

// note adds to the line that the log will have of this request. It is no place for secrets.
func note(r *http.Request, key, value string) {
	if v, ok := r.Context().Value(visitKey{}).(*visit); ok {
		if len(value) > maxNote {
			value = value[:maxNote] + "…"
		}
		v.notes = append(v.notes, slog.String(key, value))
	}
}

// audit writes who did what. Without tokens there is no who.
func (d *Door) audit(r *http.Request, v *visit, route string, status int) {
	if v.caller.Name == "" {
		return
	}
	attrs := append([]slog.Attr{
		slog.String("token", v.caller.Name), slog.String("route", route), slog.Int("status", status), slog.String("remote", r.RemoteAddr),
	}, v.notes...)
	d.log.LogAttrs(r.Context(), slog.LevelInfo, "request", attrs...)
}

// forbidden is what a caller hears who may not do what he asks for; field names what asks for it.
func forbidden(c *Caller, field, what string) error {
	return reason.Refusef(reason.Forbidden, "%s: token %s may not %s; its rights are in ingest's configuration, below tokens", field, c.Name, what)
}
