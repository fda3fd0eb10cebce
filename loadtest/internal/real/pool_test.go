package real_test

import (
	"archive/tar"
	"io"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/pratique-sec/pratique/loadtest/internal/real"
)

func own(t *testing.T) (host string, s real.Set) {
	t.Helper()
	host, stop, err := real.NewRegistry().Serve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	if s, err = real.Own(t.Context(), host, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return host, s
}

// What is made of a real layer must be a layer: registries and scanners check digests, diffIDs and sizes.
func TestVariedLayersAreLayers(t *testing.T) {
	host, s := own(t)
	p, err := real.NewPool(s, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	img, err := p.Image("1", 0, 1, 2, 30)
	if err != nil {
		t.Fatal(err)
	}
	if err := real.Push(t.Context(), host, real.Image{Repository: "made/one", Tag: "1", Image: img}); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(host+"/made/one:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	there, err := remote.Image(tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(there); err != nil {
		t.Error(err)
	}
	layers, err := there.Layers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layers[3].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	names := 0
	for archive := tar.NewReader(r); ; names++ {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if (names == 0) != (h.Name == "srv/variant") {
			t.Errorf("entry %d is %s", names, h.Name)
		}
	}
	if names < 2 {
		t.Errorf("%d entries: the real layer's are missing", names)
	}
}

func TestDistinctAndRepeatable(t *testing.T) {
	_, s := own(t)
	digests := func() map[string]int {
		p, err := real.NewPool(s, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]int{}
		for n := range 40 {
			l, err := p.Layer(n)
			if err != nil {
				t.Fatal(err)
			}
			d, err := l.Digest()
			if err != nil {
				t.Fatal(err)
			}
			all[d.String()] = n
		}
		return all
	}
	one, two := digests(), digests()
	if len(one) != 40 {
		t.Errorf("%d distinct layers of 40", len(one))
	}
	for d, n := range one {
		if m, ok := two[d]; !ok || m != n {
			t.Errorf("layer %d is another one in another pool", n)
		}
	}
}

// A label changes the image's digest and nothing of its layers.
func TestLabel(t *testing.T) {
	_, s := own(t)
	before := s.Images[0].Image
	after, err := real.Label(before, "2")
	if err != nil {
		t.Fatal(err)
	}
	one, err := before.Digest()
	if err != nil {
		t.Fatal(err)
	}
	two, err := after.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if one == two {
		t.Error("the digest did not change")
	}
	a, err := before.Layers()
	if err != nil {
		t.Fatal(err)
	}
	b, err := after.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i := range a {
		x, errX := a[i].Digest()
		y, errY := b[i].Digest()
		if x != y || errX != nil || errY != nil {
			t.Errorf("layer %d changed: %v, %v", i, errX, errY)
		}
	}
}
