package layer

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// stream is a layer's uncompressed tar: counted, bounded and hashed on the way. How it is compressed is told
// by its bytes, since media types lie.
type stream struct {
	src    *source
	plain  io.Reader
	close  func()
	sum    hash.Hash
	n      int64
	bounds Bounds
}

const maxWindow = 128 << 20 // of zstd: what `zstd --ultra --long` may ask for

func newStream(src *source, b Bounds) (*stream, error) {
	head := make([]byte, 4)
	n, err := io.ReadFull(src, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read the first bytes: %w", err)
	}
	s := &stream{src: src, plain: io.MultiReader(bytes.NewReader(head[:n]), src), close: func() {}, sum: sha256.New(), bounds: b}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		zr, err := gzip.NewReader(s.plain) // reads all members: eStargz and pigz write many
		if err != nil {
			return nil, damaged(err)
		}
		s.plain, s.close = zr, func() { _ = zr.Close() } // nothing to flush
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}):
		// A zstd frame, or one that is to be skipped before it.
		zr, err := zstd.NewReader(s.plain, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, damaged(err)
		}
		s.plain, s.close = zr, zr.Close
	}
	return s, nil
}

func (s *stream) Read(b []byte) (int, error) {
	n, err := s.plain.Read(b)
	s.sum.Write(b[:n])
	s.n += int64(n)
	if s.n > s.bounds.Uncompressed {
		return n, reason.Refusef(reason.OverBound, "the layer has more than %d bytes", s.bounds.Uncompressed)
	}
	if s.n > ratioFrom && s.n/max(s.src.n, 1) > s.bounds.Ratio {
		return n, reason.Refusef(reason.OverBound, "the layer inflates more than %d times", s.bounds.Ratio)
	}
	if err != nil && err != io.EOF {
		return n, damaged(err)
	}
	return n, err
}

// diffID is of everything that was read so far.
func (s *stream) diffID() image.Digest {
	return image.Digest("sha256:" + hex.EncodeToString(s.sum.Sum(nil)))
}

// damaged gives an error of reading compressed or tar bytes its code. A decision made further down, and an
// error of the source, stay as they are.
func damaged(err error) error {
	var decided *reason.Error
	switch {
	case errors.As(err, &decided):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return reason.Refusef(reason.Truncated, "the layer ends early: %w", err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return reason.Refusef(reason.OverBound, "the layer needs more memory than %d bytes to inflate: %w", maxWindow, err)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return reason.Refusef(reason.Malformed, "the layer is no readable tar: %w", err)
	}
	return reason.Refusef(reason.Malformed, "the layer can not be read: %w", err)
}
