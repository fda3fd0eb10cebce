package bus

import (
	"context"
	"maps"
	"slices"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
)

// carrier puts W3C trace context into message headers and gets it out. Keys are used exactly as
// OpenTelemetry writes them (lower case): a lookup in nats.Header is case-sensitive, so a second,
// canonicalising carrier would lose traces in silence.
type carrier nats.Header

func (c carrier) Get(key string) string { return nats.Header(c).Get(key) }
func (c carrier) Set(key, value string) { nats.Header(c).Set(key, value) }
func (c carrier) Keys() []string        { return slices.Collect(maps.Keys(c)) }

var _ propagation.TextMapCarrier = carrier{}

var propagator = propagation.TraceContext{}

func inject(ctx context.Context, h nats.Header) { propagator.Inject(ctx, carrier(h)) }

func extract(ctx context.Context, h nats.Header) context.Context {
	return propagator.Extract(ctx, carrier(h))
}
