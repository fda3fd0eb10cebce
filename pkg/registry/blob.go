package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"time"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

var errStalled = errors.New("the registry stopped sending")

// blobReader passes a blob's bytes on and knows at the end whether they were the right ones.
type blobReader struct {
	what     string
	body     io.ReadCloser
	want     image.Digest
	size     int64
	exact    bool // the transport tells an end from a cut: there was a length, or chunks
	read     int64
	hash     hash.Hash
	err      error
	ctx      context.Context
	cancel   context.CancelCauseFunc
	stall    *time.Timer
	patience time.Duration
}

// newBlobReader takes over body and cancel. ctx is the request's; cancel ends it when the registry
// sends nothing for patience.
func newBlobReader(ctx context.Context, cancel context.CancelCauseFunc, what string, body io.ReadCloser, want image.Digest, size int64, exact bool, patience time.Duration) *blobReader {
	return &blobReader{
		what: what, body: body, want: want, size: size, exact: exact, hash: sha256.New(),
		ctx: ctx, cancel: cancel, stall: time.AfterFunc(patience, func() { cancel(errStalled) }), patience: patience,
	}
}

// Read ends with io.EOF only when exactly size bytes with the digest were passed on.
func (r *blobReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	r.stall.Reset(r.patience)
	n, err := r.body.Read(p)
	r.stall.Stop() // what the consumer takes its time with is not the registry's fault
	if over := r.read + int64(n) - r.size; over > 0 {
		n -= int(over)
		err = reason.Refusef(reason.SizeMismatch, "%s: more than the %d bytes that the manifest says", r.what, r.size)
	}
	r.read += int64(n)
	_, _ = r.hash.Write(p[:n]) // a hash never fails
	if err != nil {
		r.err = r.end(err)
	}
	return n, r.err
}

// end judges how reading ended.
func (r *blobReader) end(err error) error {
	var re *reason.Error
	switch {
	case errors.As(err, &re):
		return re
	case !errors.Is(err, io.EOF):
		if errors.Is(context.Cause(r.ctx), errStalled) {
			err = errStalled
		}
		return reason.Retryf(reason.Unreachable, "%s: truncated after %d of %d bytes: %w", r.what, r.read, r.size, err)
	case r.read < r.size && !r.exact:
		return reason.Retryf(reason.Unreachable, "%s: truncated after %d of %d bytes", r.what, r.read, r.size)
	case r.read < r.size:
		return reason.Refusef(reason.SizeMismatch, "%s: %d bytes, the manifest says %d", r.what, r.read, r.size)
	}
	if got := digestOf(r.hash); got != r.want {
		return reason.Refusef(reason.DigestMismatch, "%s: the bytes have the digest %s", r.what, got)
	}
	return io.EOF
}

// Close may be called before the end; the connection is given up then.
func (r *blobReader) Close() error {
	r.stall.Stop()
	r.cancel(nil)
	if r.err == nil {
		r.err = errors.New("registry: blob reader is closed")
	}
	return r.body.Close()
}
