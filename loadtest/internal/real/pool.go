package real

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Pool makes any number of distinct layers out of real ones: each is a real layer with one more file. Safe
// for concurrent use.
type Pool struct {
	base    []v1.Layer
	ballast int
	mu      sync.Mutex
	made    map[int]v1.Layer
}

// NewPool takes the distinct gzip layers of a set that have at most so many bytes; 0 is no limit. ballast is
// how many bytes that do not compress the added file has, where real layers are too small to weigh anything.
func NewPool(s Set, most int64, ballast int) (*Pool, error) {
	p := &Pool{ballast: ballast, made: map[int]v1.Layer{}}
	seen := map[v1.Hash]bool{}
	for _, i := range s.Images {
		layers, err := i.Image.Layers()
		if err != nil {
			return nil, fmt.Errorf("layers of %s: %w", i.Name(), err)
		}
		for _, l := range layers {
			use, err := usable(l, most, seen)
			if err != nil {
				return nil, fmt.Errorf("layers of %s: %w", i.Name(), err)
			}
			if use {
				p.base = append(p.base, l)
			}
		}
	}
	if len(p.base) == 0 {
		return nil, fmt.Errorf("%s: no gzip layer of at most %d bytes", s.Origin, most)
	}
	return p, nil
}

func usable(l v1.Layer, most int64, seen map[v1.Hash]bool) (bool, error) {
	d, err := l.Digest()
	if err != nil {
		return false, err
	}
	mt, err := l.MediaType()
	if err != nil {
		return false, err
	}
	size, err := l.Size()
	if err != nil {
		return false, err
	}
	if seen[d] || mt != types.OCILayer && mt != types.DockerLayer || most != 0 && size > most {
		return false, nil
	}
	seen[d] = true
	return true, nil
}

// Layer is the n-th layer, always the same for the same pool and n.
func (p *Pool) Layer(n int) (v1.Layer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.made[n]; l != nil {
		return l, nil
	}
	note := fmt.Appendf(nil, "variant %d\n", n)
	if p.ballast > 0 {
		filler := make([]byte, p.ballast)
		rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(filler) //nolint:errcheck // never fails
		note = append(note, filler...)
	}
	l, err := vary(p.base[n%len(p.base)], note)
	if err != nil {
		return nil, fmt.Errorf("vary layer %d: %w", n, err)
	}
	p.made[n] = l
	return l, nil
}

// Image is made of some of the pool's layers, in this order; label makes it differ from others of the same.
func (p *Pool) Image(label string, layers ...int) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, n := range layers {
		l, err := p.Layer(n)
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{CreatedBy: fmt.Sprintf("COPY layer-%d /", n)}})
		if err != nil {
			return nil, fmt.Errorf("make image: %w", err)
		}
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	return Label(img, label)
}

// varied is a gzip layer with another gzip member before it, which holds the beginning of the archive:
// nothing need be compressed again.
type varied struct {
	v1.Layer
	prefix         []byte // compressed
	plain          []byte // the same, as it is
	digest, diffID v1.Hash
	size           int64
}

func vary(l v1.Layer, note []byte) (v1.Layer, error) {
	plain, err := entry("srv/variant", note)
	if err != nil {
		return nil, err
	}
	var prefix bytes.Buffer
	w := gzip.NewWriter(&prefix)
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	v := &varied{Layer: l, prefix: prefix.Bytes(), plain: plain}
	if v.size, err = l.Size(); err != nil {
		return nil, err
	}
	v.size += int64(prefix.Len())
	if v.digest, err = hashOf(v.Compressed); err != nil {
		return nil, err
	}
	v.diffID, err = hashOf(v.Uncompressed)
	return v, err
}

// entry is a file in an archive that goes on.
func entry(name string, content []byte) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil { // no end mark: the layer's own entries follow
		return nil, err
	}
	return buf.Bytes(), nil
}

func hashOf(open func() (io.ReadCloser, error)) (v1.Hash, error) {
	r, err := open()
	if err != nil {
		return v1.Hash{}, err
	}
	sum := sha256.New()
	_, err = io.Copy(sum, r)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}, errors.Join(err, r.Close())
}

func (v *varied) Digest() (v1.Hash, error)            { return v.digest, nil }
func (v *varied) DiffID() (v1.Hash, error)            { return v.diffID, nil }
func (v *varied) Size() (int64, error)                { return v.size, nil }
func (v *varied) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

func (v *varied) Compressed() (io.ReadCloser, error) {
	r, err := v.Layer.Compressed()
	return prefixed(v.prefix, r), err
}

func (v *varied) Uncompressed() (io.ReadCloser, error) {
	r, err := v.Layer.Uncompressed()
	return prefixed(v.plain, r), err
}

func prefixed(b []byte, r io.ReadCloser) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(b), r), r}
}
