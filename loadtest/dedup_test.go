// Package loadtest measures the pipeline. Figures are ratios within one run: machines differ.
package loadtest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	pullregistry "github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/services/pratique/allinone"
	"github.com/pratique-sec/pratique/services/pratique/demo"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

// BenchmarkKnownLayers pushes an image whose layers nobody has seen, then one of the same layers with
// another configuration (so that no report answers for it), and compares the time from the accepted event
// to the stored scan outcome. "known/cold" is what the dedup cache leaves to do.
func BenchmarkKnownLayers(b *testing.B) {
	run(b, func(ctx context.Context, host string, evaluate func(demodata.Image) time.Duration) {
		var cold, known time.Duration
		images := 0
		for b.Loop() {
			first := fresh(b, images)
			cold += evaluate(demodata.Image{Repository: "bench/app", Tag: fmt.Sprintf("cold-%d", images), Image: first})
			known += evaluate(demodata.Image{Repository: "bench/app", Tag: fmt.Sprintf("known-%d", images), Image: labelled(b, first)})
			images++
		}
		b.ReportMetric(cold.Seconds()*1000/float64(images), "cold-ms")
		b.ReportMetric(known.Seconds()*1000/float64(images), "known-ms")
		b.ReportMetric(known.Seconds()/cold.Seconds(), "known/cold")
		b.ReportMetric(0, "ns/op") // the sum of two different things
	})
}

// run starts the all-in-one beside a registry and hands over a function that pushes an image, asks for its
// evaluation and waits for the outcome.
func run(b *testing.B, body func(ctx context.Context, host string, evaluate func(demodata.Image) time.Duration)) {
	dir := b.TempDir()
	database := filepath.Join(dir, "db")
	if err := demo.BuildDatabase(b.Context(), database, time.Now()); err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo))))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	err := allinone.Run(b.Context(), allinone.Config{
		State: filepath.Join(dir, "state"), Database: database, Version: "bench",
		Registries: pullregistry.Config{Hosts: map[string]pullregistry.Host{host: {Plain: true}}},
	}, allinone.Deps{Logger: slog.New(slog.DiscardHandler)}, func(ctx context.Context, s *allinone.System) error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		outcomes := make(chan finding.Scan, 1)
		watching := make(chan error, 1)
		go func() {
			watching <- s.Bus.WatchScans(ctx, 1, func(_ uint64, sc finding.Scan) error {
				outcomes <- sc
				return nil
			})
		}()
		body(ctx, host, func(i demodata.Image) time.Duration {
			if err := demo.Push(ctx, host, []demodata.Image{i}, nil); err != nil {
				b.Fatal(err)
			}
			begin := time.Now()
			_, err := s.Bus.PublishEvent(ctx, event.Event{
				ID: i.Name(), Kind: event.KindImage, Source: "bench", Action: event.Push, Cause: event.CausePush,
				Reference: image.Reference{Host: host, Repository: i.Repository, Tag: i.Tag}, Received: begin,
			})
			if err != nil {
				b.Fatal(err)
			}
			if sc := <-outcomes; sc.Reference.Tag != i.Tag || sc.Reason != "" {
				b.Fatalf("outcome of %s is %s %s %s, want that of %s", sc.Reference.Tag, sc.Outcome, sc.Reason, sc.Detail, i.Tag)
			}
			return time.Since(begin)
		})
		stop()
		return <-watching
	})
	if err != nil {
		b.Fatal(err)
	}
}

// fresh is the demo's first image with something new in every layer.
func fresh(b *testing.B, n int) v1.Image {
	b.Helper()
	images, err := demodata.Images()
	if err != nil {
		b.Fatal(err)
	}
	layers, err := images[0].Image.Layers()
	if err != nil {
		b.Fatal(err)
	}
	out := empty.Image
	for _, l := range layers {
		if out, err = mutate.AppendLayers(out, renewed(b, l, n)); err != nil {
			b.Fatal(err)
		}
	}
	cfg, err := out.ConfigFile()
	if err != nil {
		b.Fatal(err)
	}
	cfg.OS, cfg.Architecture = "linux", "amd64"
	if out, err = mutate.ConfigFile(out, cfg); err != nil {
		b.Fatal(err)
	}
	return out
}

// ballast is what a real layer holds beside package metadata, and does not compress.
const ballast = 4 << 20

// renewed is a layer with one more file.
func renewed(b *testing.B, l v1.Layer, n int) v1.Layer {
	b.Helper()
	content, err := l.Uncompressed()
	if err != nil {
		b.Fatal(err)
	}
	defer content.Close()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	note := make([]byte, ballast)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(note) //nolint:errcheck // never fails
	if err := w.WriteHeader(&tar.Header{Name: "srv/note", Mode: 0o644, Size: int64(len(note))}); err != nil {
		b.Fatal(err)
	}
	if _, err := w.Write(note); err != nil {
		b.Fatal(err)
	}
	if err := w.Flush(); err != nil { // no end mark: the layer's own entries follow
		b.Fatal(err)
	}
	if _, err := io.Copy(&buf, content); err != nil {
		b.Fatal(err)
	}
	out, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// labelled is an image with another configuration.
func labelled(b *testing.B, i v1.Image) v1.Image {
	b.Helper()
	cfg, err := i.ConfigFile()
	if err != nil {
		b.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.Config.Labels = map[string]string{"org.opencontainers.image.revision": "2"}
	out, err := mutate.ConfigFile(i, cfg)
	if err != nil {
		b.Fatal(err)
	}
	return out
}
