package compact_test

import (
	"bytes"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/pratique-sec/pratique/pkg/compact"
)

func TestRoundTrip(t *testing.T) {
	for _, in := range [][]byte{nil, {}, []byte("x"), bytes.Repeat([]byte("package "), 1<<16)} {
		packed := compact.Pack(in)
		if !compact.Packed(packed) {
			t.Errorf("%d bytes: packed form is not recognised", len(in))
		}
		out, err := compact.Unpack(packed)
		if err != nil || !bytes.Equal(in, out) {
			t.Errorf("%d bytes: got %d bytes, %v", len(in), len(out), err)
		}
	}
}

// A frame of a few kilobytes that would become more than the bound is refused, whether or not its
// header admits to the size.
func TestUnpackIsBounded(t *testing.T) {
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range compact.MaxSize>>20 + 1 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := compact.Unpack(buf.Bytes()); err == nil {
		t.Fatalf("unpacked %d bytes of %d", len(out), buf.Len())
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(compact.Pack([]byte("facts")))
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := compact.Unpack(b)
		if err == nil && len(out) > compact.MaxSize {
			t.Fatalf("%d bytes", len(out))
		}
	})
}
