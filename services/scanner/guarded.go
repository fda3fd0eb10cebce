package scanner

import (
	"context"
	"io"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/image"
)

// guarded reads blobs unless their registry is paused, and tells the other workers how it answered.
type guarded struct {
	registry Registry
	gate     *breaker.Gate
}

func (g guarded) Blob(ctx context.Context, host, repository string, d image.Digest, size int64) (io.ReadCloser, error) {
	return g.gate.Read(ctx, host, repository+"@"+string(d), func() (io.ReadCloser, error) {
		return g.registry.Blob(ctx, host, repository, d, size)
	})
}
