package scanner

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/image"
)

// guarded reads blobs unless their registry is paused, and tells the other workers how it answered. That
// is known at a blob's end: a registry that cuts connections is as ill as one that refuses them.
type guarded struct {
	registry Registry
	gate     *breaker.Gate
}

func (g guarded) Blob(ctx context.Context, host, repository string, d image.Digest, size int64) (io.ReadCloser, error) {
	done, err := g.gate.Enter(ctx, host, repository+"@"+string(d))
	if err != nil {
		return nil, err
	}
	body, err := g.registry.Blob(ctx, host, repository, d, size)
	if err != nil {
		done(err)
		return nil, err
	}
	return &judged{ReadCloser: body, done: done}, nil
}

// errUnread is how a blob ends that was not read to its end: the registry is not to blame.
var errUnread = errors.New("blob was not read to its end")

// judged tells once how reading ended.
type judged struct {
	io.ReadCloser
	once sync.Once
	done func(error)
}

func (w *judged) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	switch {
	case errors.Is(err, io.EOF):
		w.once.Do(func() { w.done(nil) })
	case err != nil:
		w.once.Do(func() { w.done(err) })
	}
	return n, err
}

func (w *judged) Close() error {
	w.once.Do(func() { w.done(errUnread) })
	return w.ReadCloser.Close()
}
