// Package compact turns bytes into zstd and back. Whoever unpacks names a bound, so that a few hostile
// or damaged bytes can not become all of the memory.
package compact

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// MaxSize bounds what Unpack makes of its input, in bytes: well above the largest layer's facts and the
// largest report (tens of megabytes), well below a worker's memory.
const MaxSize = 256 << 20

// Both are stateless when used through EncodeAll and DecodeAll, and safe for concurrent use. Their
// options are constants, so an error is a mistake in this file.
var (
	encoder = must(zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true)))
	decoder = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(MaxSize)))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// magic opens every zstd frame.
const magic = 0xFD2FB528

// Packed tells whether b begins as Pack's results do.
func Packed(b []byte) bool {
	return len(b) >= 4 && binary.LittleEndian.Uint32(b) == magic
}

// Pack returns b as one zstd frame; never empty, not even of nothing.
func Pack(b []byte) []byte {
	return encoder.EncodeAll(b, nil)
}

// Unpack undoes Pack. Damaged input and input that would become more than MaxSize is an error.
func Unpack(b []byte) ([]byte, error) {
	out, err := decoder.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("compact: %w", err)
	}
	return out, nil
}
