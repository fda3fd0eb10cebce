module github.com/pratique-sec/pratique/services/ingest

go 1.26.3

require (
	github.com/pratique-sec/pratique/pkg v0.0.0
	github.com/pratique-sec/pratique/proto v0.0.0
	go.opentelemetry.io/otel v1.47.0
	pgregory.net/rapid v1.3.0
)

replace (
	github.com/pratique-sec/pratique/pkg => ../../pkg
	github.com/pratique-sec/pratique/proto => ../../proto
)
