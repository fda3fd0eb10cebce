package oracletest_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
	"github.com/pratique-sec/pratique/services/scanner/advisory"
	"github.com/pratique-sec/pratique/services/scanner/layer"
	"github.com/pratique-sec/pratique/services/scanner/match"
)

// direct is the scanner without a bus: an image's layers analysed once each, then judged.
type direct struct {
	analyzer *layer.InProcess
	holder   *advisory.Holder
	matcher  *match.Matcher
	known    map[image.Digest]facts.Layer // by blob: a layer of several images is analysed once
}

func newDirect(t *testing.T) *direct {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	a, err := layer.New(layer.Config{TempDir: t.TempDir(), Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	d := &direct{analyzer: a, holder: &advisory.Holder{}, known: map[image.Digest]facts.Layer{}}
	d.matcher = match.New(match.Config{Databases: d.holder, Version: "test", Now: time.Now, Logger: logger})
	t.Cleanup(func() {
		if err := d.holder.Close(); err != nil {
			t.Error(err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// load makes a database the current one, packed and unpacked on the way as in production, and returns its
// folder, which is a Trivy cache.
func (d *direct) load(t *testing.T, path string) string {
	t.Helper()
	packed, err := advisory.Pack(t.Context(), vulndb.Vulnerabilities, path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	folder, err := advisory.Unpack(t.Context(), packed.Pointer, packed, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.holder.Swap(packed.Pointer, folder); err != nil {
		t.Fatal(err)
	}
	return folder
}

func (d *direct) scan(ctx context.Context, reference string) (*report.Report, error) {
	img, pulled, err := describe(ctx, reference)
	if err != nil {
		return nil, err
	}
	layers, err := pulled.Layers()
	if err != nil {
		return nil, err
	}
	var all []facts.Layer
	for i, l := range layers {
		f, ok := d.known[img.Layers[i].Blob]
		if !ok {
			blob, err := l.Compressed()
			if err != nil {
				return nil, err
			}
			f, err = d.analyzer.Analyze(ctx, img.Layers[i], blob)
			if err != nil {
				return nil, err
			}
			if f.DiffID != img.Layers[i].DiffID {
				return nil, fmt.Errorf("layer %d has diffID %s, the config says %s", i, f.DiffID, img.Layers[i].DiffID)
			}
			d.known[img.Layers[i].Blob] = f
		}
		all = append(all, f)
	}
	return d.matcher.Match(ctx, work.MatchJob{Image: img, Analysis: d.analyzer.ID()}, all)
}

func describe(ctx context.Context, reference string) (image.Image, v1.Image, error) {
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		return image.Image{}, nil, err
	}
	named, err := remote.Get(ref, remote.WithContext(ctx))
	if err != nil {
		return image.Image{}, nil, err
	}
	pulled, err := named.Image() // of an index, that of linux/amd64, which is Trivy's default too
	if err != nil {
		return image.Image{}, nil, err
	}
	manifest, err := pulled.Manifest()
	if err != nil {
		return image.Image{}, nil, err
	}
	config, err := pulled.ConfigFile()
	if err != nil {
		return image.Image{}, nil, err
	}
	digest, err := pulled.Digest()
	if err != nil {
		return image.Image{}, nil, err
	}
	img := image.Image{
		Config: image.Digest(manifest.Config.Digest.String()), Created: config.Created.Time,
		Platform: image.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant},
	}
	if img.Reference, err = image.ParseReference(reference); err != nil {
		return image.Image{}, nil, err
	}
	img.Digest = image.Digest(digest.String())
	if named.Digest != digest {
		img.Index = image.Digest(named.Digest.String())
	}
	var history []string
	for _, h := range config.History {
		if !h.EmptyLayer {
			history = append(history, h.CreatedBy)
		}
	}
	if n := len(config.RootFS.DiffIDs); n != len(manifest.Layers) {
		return image.Image{}, nil, fmt.Errorf("%s: %d layers and %d diffIDs", reference, len(manifest.Layers), n)
	}
	for i, l := range manifest.Layers {
		next := image.Layer{
			Blob: image.Digest(l.Digest.String()), DiffID: image.Digest(config.RootFS.DiffIDs[i].String()),
			Size: l.Size, MediaType: string(l.MediaType),
		}
		if len(history) == len(manifest.Layers) {
			next.CreatedBy = history[i]
		}
		img.Layers = append(img.Layers, next)
	}
	return img, pulled, nil
}
