package service

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// TraceConfig says where spans go.
type TraceConfig struct {
	Service, Version string
	Endpoint         string  // OTLP over HTTP, the collector's URL as in "http://collector:4318"; "" exports nothing
	Ratio            float64 // of traces that begin here and are kept; 0 is all of them
	// Processor gets every span beside the exporter: a tracetest.SpanRecorder, in tests. nil for none.
	Processor sdktrace.SpanProcessor
}

// tracesPath is where a collector takes spans.
const tracesPath = "/v1/traces"

// NewTracer makes a tracer provider. Without an endpoint traces still have ids, which logs, dead letters
// and `explain` show. Shutdown sends what is buffered; call it last, with a context that ends.
func NewTracer(ctx context.Context, c TraceConfig) (*sdktrace.TracerProvider, error) {
	opts := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", c.Service),
			attribute.String("service.version", c.Version),
		)),
	}
	if c.Ratio > 0 {
		opts = append(opts, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.Ratio))))
	}
	if c.Endpoint != "" {
		// The library takes an URL as it is; people name the collector.
		endpoint, err := url.JoinPath(strings.TrimSuffix(c.Endpoint, tracesPath), tracesPath)
		if err != nil {
			return nil, errors.New("trace exporter: the endpoint is no URL")
		}
		// It does not connect yet: a collector that is away costs spans, never a start.
		exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint))
		if err != nil {
			return nil, fmt.Errorf("trace exporter %q: %w", endpoint, err)
		}
		opts = append(opts, sdktrace.WithBatcher(exporter))
	}
	if c.Processor != nil {
		opts = append(opts, sdktrace.WithSpanProcessor(c.Processor))
	}
	return sdktrace.NewTracerProvider(opts...), nil
}
