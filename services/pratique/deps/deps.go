package deps

import (
	_ "charm.land/lipgloss/v2"
	_ "github.com/alecthomas/kong"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/google/go-containerregistry/pkg/registry"
	_ "github.com/google/go-containerregistry/pkg/v1/remote"
	_ "github.com/nats-io/nats-server/v2/server"
	_ "github.com/nats-io/nats.go"
	_ "github.com/nats-io/nkeys"
	_ "github.com/pratique-sec/pratique/pkg/deps"
	_ "github.com/pratique-sec/pratique/proto/deps"
	_ "github.com/pratique-sec/pratique/services/ingest/deps"
	_ "github.com/pratique-sec/pratique/services/layercache/deps"
	_ "github.com/pratique-sec/pratique/services/scanner/deps"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/term"
)
