package deps

import (
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/google/go-containerregistry/pkg/registry"
	_ "github.com/google/go-containerregistry/pkg/v1/remote"
	_ "github.com/klauspost/compress/gzip"
	_ "github.com/nats-io/nats.go/jetstream"
	_ "github.com/pratique-sec/pratique/pkg/deps"
	_ "github.com/pratique-sec/pratique/proto/deps"
	_ "go.etcd.io/bbolt"
	_ "go.opentelemetry.io/otel/trace"
	_ "golang.org/x/sync/errgroup"
	_ "pgregory.net/rapid"
)
