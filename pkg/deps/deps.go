// Package deps pins dependencies while they are not used yet.
package deps

import (
	_ "github.com/alecthomas/kong"
	_ "github.com/nats-io/jwt/v2"
	_ "github.com/nats-io/nkeys"
	_ "github.com/synadia-io/orbit.go/jetstreamext"
	_ "go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	_ "go.yaml.in/yaml/v3"
)
