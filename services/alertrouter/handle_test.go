package alertrouter_test

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/services/alertrouter"
)

// What was sent points back to what it came from.
func TestTraceOfANotification(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	provider := trace.NewTracerProvider(trace.WithSpanProcessor(spans))
	b := bustest.New(t, bus.Config{}, bus.Options{Tracer: provider})
	h := newHook(t)
	s, err := alertrouter.New(alertrouter.Config{Config: file(t, simple(h))}, alertrouter.Deps{Bus: b, Logger: logger(t), Tracer: provider})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	scan, span := provider.Tracer("test").Start(t.Context(), "scan")
	must(t, b.PublishDelta(scan, delta("team/api", "CVE-1", 1, finding.Opened)))
	span.End()
	h.last(t, "firing:CVE-1")
	linked := func() (found oteltrace.TraceID) {
		for _, s := range spans.Ended() {
			if s.Name() == "alertrouter.notify" && len(s.Links()) == 1 {
				return s.Links()[0].SpanContext.TraceID()
			}
		}
		return found
	}
	eventually(t, "a span that links to the scan's trace", func() bool { return linked() == span.SpanContext().TraceID() })
	cancel()
	must(t, <-done)
}
