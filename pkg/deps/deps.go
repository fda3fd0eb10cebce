// Package deps pins dependencies while they are not used yet.
package deps

import (
	_ "go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	_ "go.yaml.in/yaml/v3"
)
