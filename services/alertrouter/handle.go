package alertrouter

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/services/alertrouter/outbox"
)

func (s *Service) handleDelta(ctx context.Context, d finding.Delta, _ bus.Delivery) error {
	a := ofDelta(d)
	a.Trace = traceParent(ctx)
	return s.apply(ctx, string(d.Finding.Class), outbox.Event{
		Alert: a, Cause: string(d.Cause), Quiet: quiet,
		Opened: d.Transition == finding.Opened, Ended: d.Transition == finding.Resolved, At: d.At.UTC(),
	})
}

// quiet tells whether what was found for a cause is alerted only by routes that ask for it: nobody has
// done anything, and much may come at once.
func quiet(cause string) bool {
	return cause == string(event.CauseCrawl) || cause == string(event.CauseRematch)
}

func (s *Service) handleNotice(ctx context.Context, n system.Notice, _ bus.Delivery) error {
	a, ok := ofNotice(n)
	if !ok {
		s.metrics.alerts.WithLabelValues(classSystem, "ignored").Inc()
		return nil
	}
	a.Trace = traceParent(ctx)
	return s.apply(ctx, classSystem, outbox.Event{
		Alert: a, Quiet: func(string) bool { return false }, Opened: true, At: n.At.UTC(),
	})
}

func (s *Service) apply(ctx context.Context, class string, e outbox.Event) error {
	outcome, err := s.outbox.Apply(ctx, e)
	if err != nil {
		return err
	}
	s.metrics.alerts.WithLabelValues(class, string(outcome)).Inc()
	return nil
}

func (s *Service) handleNotification(ctx context.Context, n alert.Notification, _ bus.Delivery) error {
	ctx, span := s.tracer.Start(ctx, "alertrouter.notify", trace.WithSpanKind(trace.SpanKindProducer), trace.WithLinks(links(ctx, n)...),
		trace.WithAttributes(attribute.String("notification", n.ID), attribute.Int("alerts", len(n.Alerts))))
	defer span.End()
	outcome, err := s.outbox.Deliver(ctx, n)
	kind, _, _ := strings.Cut(n.Integration, "/")
	switch outcome {
	case outbox.Sent:
		s.metrics.age.Observe(s.now().Sub(n.Created).Seconds())
		s.metrics.notifications.WithLabelValues(kind, string(outcome)).Inc()
	case outbox.Retry, outbox.Dead:
		s.metrics.notifications.WithLabelValues(kind, string(outcome)).Inc()
	}
	span.SetAttributes(attribute.String("outcome", string(outcome)))
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	return err
}

// maxLinks bounds how many of its alerts a notification's span points to.
const maxLinks = 32

// links point from a notification to what its alerts came from.
func links(ctx context.Context, n alert.Notification) []trace.Link {
	var all []trace.Link
	for _, t := range n.Alerts {
		if len(all) == maxLinks {
			break
		}
		from := propagation.TraceContext{}.Extract(trace.ContextWithSpanContext(ctx, trace.SpanContext{}), propagation.MapCarrier{"traceparent": t.Alert.Trace})
		if sc := trace.SpanContextFromContext(from); sc.IsValid() {
			all = append(all, trace.Link{SpanContext: sc})
		}
	}
	return all
}

func traceParent(ctx context.Context) string {
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	return c["traceparent"]
}

func tracer(p trace.TracerProvider) trace.Tracer {
	if p == nil {
		p = otel.GetTracerProvider()
	}
	return p.Tracer("github.com/pratique-sec/pratique/services/alertrouter")
}
