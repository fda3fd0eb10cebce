package real

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Registry is an OCI registry in memory.
type Registry struct{ handler http.Handler }

// NewRegistry makes an empty one.
func NewRegistry() *Registry {
	return &Registry{registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
}

// headerTimeout bounds how long a client may take for a request's headers.
const headerTimeout = 10 * time.Second

// Serve serves it on a free loopback port, until stop is called; wrap, which may be nil, is put around
// the listener.
func (r *Registry) Serve(ctx context.Context, wrap func(net.Listener) net.Listener) (host string, stop func(), err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("registry: %w", err)
	}
	host = l.Addr().String()
	if wrap != nil {
		l = wrap(l)
	}
	server := &http.Server{Handler: r.handler, ReadHeaderTimeout: headerTimeout}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	return host, func() {
		_ = server.Close() // it holds nothing worth a drain
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			log.Printf("registry: %v", err)
		}
	}, nil
}

// Push pushes an image to the registry at host, over plain HTTP. Layers that are there are not sent.
func Push(ctx context.Context, host string, i Image) error {
	tag, err := name.NewTag(host+"/"+i.Name(), name.Insecure)
	if err != nil {
		return fmt.Errorf("push %s: %w", i.Name(), err)
	}
	if err := remote.Write(tag, i.Image, remote.WithContext(ctx), remote.WithTransport(transport)); err != nil {
		return fmt.Errorf("push %s: %w", i.Name(), err)
	}
	return nil
}

// transport keeps the connections of several pushers.
var transport = &http.Transport{MaxIdleConnsPerHost: 16}
