package layercache

import (
	"context"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/registry"
)

// guarded asks a registry unless it is paused, and tells the other workers how it answered.
type guarded struct {
	registry Registry
	gate     *breaker.Gate
}

func (g guarded) Resolve(ctx context.Context, host, repository, tag string) (d registry.Descriptor, err error) {
	err = g.ask(ctx, host, repository+":"+tag, func() error {
		d, err = g.registry.Resolve(ctx, host, repository, tag)
		return err
	})
	return d, err
}

func (g guarded) Manifest(ctx context.Context, host, repository string, d image.Digest) (body []byte, mediaType string, err error) {
	err = g.ask(ctx, host, repository+"@"+string(d), func() error {
		body, mediaType, err = g.registry.Manifest(ctx, host, repository, d)
		return err
	})
	return body, mediaType, err
}

func (g guarded) Config(ctx context.Context, host, repository string, d image.Digest, size int64) (body []byte, err error) {
	err = g.ask(ctx, host, repository+"@"+string(d), func() error {
		body, err = g.registry.Config(ctx, host, repository, d, size)
		return err
	})
	return body, err
}

func (g guarded) HasBlob(ctx context.Context, host, repository string, d image.Digest) (has bool, err error) {
	err = g.ask(ctx, host, repository+"@"+string(d), func() error {
		has, err = g.registry.HasBlob(ctx, host, repository, d)
		return err
	})
	return has, err
}

func (g guarded) VerifyBlob(ctx context.Context, host, repository string, d image.Digest, size int64) error {
	return g.ask(ctx, host, repository+"@"+string(d), func() error {
		return g.registry.VerifyBlob(ctx, host, repository, d, size)
	})
}

func (g guarded) ask(ctx context.Context, host, of string, question func() error) error {
	done, err := g.gate.Enter(ctx, host, of)
	if err != nil {
		return err
	}
	err = question()
	done(err)
	return err
}
