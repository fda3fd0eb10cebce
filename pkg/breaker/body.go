package breaker

import (
	"context"
	"errors"
	"io"
	"sync"
)

// Read opens what a registry is asked for and is judged by how reading it ends: one that cuts
// connections is as ill as one that refuses them.
func (g *Gate) Read(ctx context.Context, host, of string, open func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	done, err := g.Enter(ctx, host, of)
	if err != nil {
		return nil, err
	}
	r, err := open()
	if err != nil {
		done(err)
		return nil, err
	}
	return &body{ReadCloser: r, done: done}, nil
}

// errUnread is how something ends that was not read to its end: the registry is not to blame.
var errUnread = errors.New("not read to its end")

// body tells once how reading ended.
type body struct {
	io.ReadCloser
	once sync.Once
	done func(error)
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.once.Do(func() { b.done(nil) })
	case err != nil:
		b.once.Do(func() { b.done(err) })
	}
	return n, err
}

func (b *body) Close() error {
	b.once.Do(func() { b.done(errUnread) })
	return b.ReadCloser.Close()
}
