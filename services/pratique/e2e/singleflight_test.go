package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/pratique/demo"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

// Forty images that share layers, half of them pushed and half of them asked for, all at once: each
// distinct blob is fetched and analysed once, and the scans tell which image had it done.
func TestSingleFlight(t *testing.T) {
	p := start(t, options{planners: 2, scanners: 4, silent: true})
	const n = 40
	images := sharing(t, n)
	if err := demo.Push(t.Context(), p.host, images, nil); err != nil {
		t.Fatal(err)
	}
	blobs := map[string]bool{}
	listed := 0
	for _, i := range images {
		layers, err := i.Image.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			d, err := l.Digest()
			if err != nil {
				t.Fatal(err)
			}
			blobs[d.String()] = true
			listed++
		}
	}
	if len(blobs) > listed/2 {
		t.Fatalf("%d of %d layers are distinct: they are hardly shared", len(blobs), listed)
	}

	g, ctx := errgroup.WithContext(t.Context())
	for k, i := range images {
		g.Go(func() error {
			if k%2 == 0 {
				_, err := p.ask(ctx, p.host+"/"+i.Name())
				return err
			}
			d, err := digestOf(i)
			if err != nil {
				return err
			}
			return p.notify(ctx, notice{id: i.Name(), action: "push", repository: i.Repository, tag: i.Tag, digest: d, mediaType: string(types.OCIManifestSchema1)})
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	p.settle()

	p.registry.mu.Lock()
	for blob := range blobs {
		if p.registry.analysed[blob] != 1 || p.registry.blobs[blob] != 1 {
			t.Errorf("%s was fetched %d times and analysed %d times", blob, p.registry.blobs[blob], p.registry.analysed[blob])
		}
	}
	if len(p.registry.analysed) != len(blobs) {
		t.Errorf("%d blobs were analysed, of %d", len(p.registry.analysed), len(blobs))
	}
	p.registry.mu.Unlock()

	scans := p.scans()
	if len(scans) != n {
		t.Errorf("%d scans of %d images", len(scans), n)
	}
	analysed, seen := 0, 0
	for _, s := range scans {
		if s.Outcome != report.Findings && s.Outcome != report.Clean {
			t.Errorf("%s: outcome %s: %s", s.Reference, s.Outcome, s.Detail)
		}
		if c := s.Layers; c.Seen != c.Known+c.Waited+c.Analysed {
			t.Errorf("%s: %d layers seen, %d known, %d waited for, %d analysed", s.Reference, c.Seen, c.Known, c.Waited, c.Analysed)
		}
		analysed += s.Layers.Analysed
		seen += s.Layers.Seen
	}
	if analysed != len(blobs) || seen != listed {
		t.Errorf("scans tell of %d layers and %d analyses; there are %d layers, %d distinct", seen, analysed, listed, len(blobs))
	}
	p.consistent()
}

// sharing makes n images of the demo's layers, every third with one of its own.
func sharing(t *testing.T, n int) []demodata.Image {
	t.Helper()
	first, _ := demoImages(t)
	layers := func(i int) []v1.Layer {
		l, err := first[i].Image.Layers()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	debian, node, python := layers(0)[0], layers(0)[1], layers(2)[1]
	dependencies := [][]v1.Layer{{node}, {python}, {node, python}, {python, node}}
	var out []demodata.Image
	for k := range n {
		all := append([]v1.Layer{debian}, dependencies[k%len(dependencies)]...)
		own := "shared"
		if k%3 == 0 {
			own = fmt.Sprint(k)
		}
		out = append(out, demodata.Image{
			Repository: fmt.Sprintf("team-%d/app-%d", k%5, k), Tag: "1.0",
			Image: imageOf(t, append(all, layerOf(t, "srv/owner", own))...),
		})
	}
	return out
}

// layerOf makes a layer of one file.
func layerOf(t *testing.T, path, body string) v1.Layer {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(body))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func imageOf(t *testing.T, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(img, layers...)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
}
