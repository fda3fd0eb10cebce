// Package service is what every service's life needs: a logger, a tracer, metrics, health, a NATS
// connection, and a way to run several things until the process is told to stop, and to drain them.
//
// It holds mechanism only. What a service needs from the bus or serves to the world is its own; nothing
// here reads the environment, and nothing here is a global.
package service

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// LogConfig says how logs are written.
type LogConfig struct {
	Format string       // "text" or "json"; "" is text
	Level  slog.Leveler // nil is info
}

// NewLogger writes logs to w; lines written with a traced context carry trace_id and span_id.
func NewLogger(w io.Writer, c LogConfig) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: c.Level}
	switch c.Format {
	case "", "text":
		return slog.New(traced{slog.NewTextHandler(w, opts)}), nil
	case "json":
		return slog.New(traced{slog.NewJSONHandler(w, opts)}), nil
	}
	return nil, fmt.Errorf("log format %q: want text or json", c.Format)
}

// traced adds the context's trace to each record. It wraps again in WithAttrs and WithGroup: loggers
// made with With would lose the trace otherwise.
type traced struct{ next slog.Handler }

func (h traced) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h traced) Handle(ctx context.Context, r slog.Record) error {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	return h.next.Handle(ctx, r)
}

func (h traced) WithAttrs(a []slog.Attr) slog.Handler { return traced{h.next.WithAttrs(a)} }
func (h traced) WithGroup(name string) slog.Handler   { return traced{h.next.WithGroup(name)} }
