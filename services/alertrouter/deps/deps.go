// Package deps pins dependencies while they are not used yet.
package deps

import (
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/pratique-sec/pratique/pkg/bus"
	_ "github.com/prometheus/alertmanager/config"
	_ "github.com/prometheus/alertmanager/config/receiver"
	_ "github.com/prometheus/alertmanager/matcher/parse"
	_ "github.com/prometheus/alertmanager/notify"
	_ "github.com/prometheus/alertmanager/template"
	_ "github.com/prometheus/client_golang/prometheus"
	_ "go.opentelemetry.io/otel/trace"
	_ "golang.org/x/sync/errgroup"
	_ "pgregory.net/rapid"
)
