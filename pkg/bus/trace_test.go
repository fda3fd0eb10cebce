package bus_test

import (
	"context"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/work"
)

// One trace goes from the webhook's span through every message.
func TestTraceTravelsWithMessages(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	registry := prometheus.NewRegistry()
	b := bustest.New(t, bus.Config{}, bus.Options{Tracer: provider, Registerer: registry})

	ctx, webhook := provider.Tracer("test").Start(t.Context(), "webhook")
	_, err := b.PublishEvent(ctx, pushEvent("a"))
	must(t, err)
	webhook.End()
	background(t, func(ctx context.Context) error {
		return b.ConsumeEvents(ctx, 1, func(ctx context.Context, _ event.Event, _ bus.Delivery) error {
			return b.PublishImage(ctx, imageJob("1", work.Push))
		})
	})
	ids := make(chan trace.TraceID, 1)
	background(t, func(ctx context.Context) error {
		return b.ConsumeImages(ctx, 1, func(ctx context.Context, _ work.ImageJob, _ bus.Delivery) error {
			ids <- trace.SpanContextFromContext(ctx).TraceID()
			return nil
		})
	})
	if id := receive(t, "the image job", ids); id != webhook.SpanContext().TraceID() {
		t.Errorf("trace %s, want %s", id, webhook.SpanContext().TraceID())
	}
	parents := map[string]trace.SpanID{}
	eventually(t, "both consumer spans have ended", func() bool {
		for _, s := range spans.Ended() {
			parents[s.Name()] = s.Parent().SpanID()
			parents["is "+s.Name()] = s.SpanContext().SpanID()
		}
		return len(parents) == 6
	})
	if parents["bus.consume EVENTS"] != webhook.SpanContext().SpanID() || parents["bus.consume WORK.image"] != parents["is bus.consume EVENTS"] {
		t.Errorf("span tree %v", parents)
	}

	families, err := registry.Gather()
	must(t, err)
	handled := 0.0
	for _, f := range families {
		if f.GetName() == "pratique_bus_handled_total" {
			for _, m := range f.GetMetric() {
				handled += m.GetCounter().GetValue()
			}
		}
	}
	if handled != 2 {
		t.Errorf("%v handled, want 2", handled)
	}
}

// Several services in one process have a bus each, on one registry.
func TestTwoBusesShareARegistry(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	nc := bustest.Start(t)
	bustest.On(t, nc, bus.Config{}, bus.Options{Registerer: registry})
	bustest.On(t, nc, bus.Config{}, bus.Options{Registerer: registry})
}
