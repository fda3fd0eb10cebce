package e2e

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/work"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
	"github.com/pratique-sec/pratique/services/scanner"
)

// gated analyses one layer for each token that the test gives.
type gated struct {
	scanner.Analyzer
	tokens chan struct{}

	mu    sync.Mutex
	order []image.Digest
}

func (g *gated) Analyze(ctx context.Context, l image.Layer, r io.Reader) (facts.Layer, error) {
	select {
	case <-g.tokens:
	case <-ctx.Done():
		return facts.Layer{}, ctx.Err()
	}
	g.mu.Lock()
	g.order = append(g.order, l.Blob)
	g.mu.Unlock()
	return g.Analyzer.Analyze(ctx, l, r)
}

func (g *gated) analysed() []image.Digest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.order)
}

// crawl tells of an image as something that nobody waits for.
func (p *pipeline) crawl(i demodata.Image) {
	p.t.Helper()
	d, err := digestOf(i)
	if err != nil {
		p.t.Fatal(err)
	}
	_, err = p.bus.PublishEvent(p.t.Context(), event.Event{
		ID: "crawl " + i.Name(), Kind: event.KindImage, Source: "crawl", Action: event.Push, Cause: event.CauseCrawl,
		Reference: image.Reference{Host: p.host, Repository: i.Repository, Tag: i.Tag, Digest: d}, Received: now(),
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// A push whose layers wait in a full backfill, at its very end, is judged before nearly all of that.
func TestPushOvertakesABackfill(t *testing.T) {
	gate := &gated{tokens: make(chan struct{})}
	p := start(t, options{silent: true, analyzer: func(a scanner.Analyzer) scanner.Analyzer {
		gate.Analyzer = a // there is one scanner
		return gate
	}})
	const n = 40
	images := make([]demodata.Image, n)
	for i := range images {
		layer := layerOf(t, "srv/name", fmt.Sprint("backfill ", i))
		images[i] = demodata.Image{Repository: "old/app", Tag: fmt.Sprint(i), Image: imageOf(t, layer)}
		if err := p.store(t.Context(), "old/app", images[i].Tag, images[i]); err != nil {
			t.Fatal(err)
		}
		p.crawl(images[i])
	}
	queued := func(lane work.Lane) (sum uint64) {
		queues, err := p.bus.Backlog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range queues {
			if q.Kind == "layer" && q.Lane == lane {
				sum += q.Pending + uint64(q.InFlight)
			}
		}
		return sum
	}
	p.until("all layers wait in backfill", func() bool { return queued(work.Backfill) == n })

	// Its layers are the last of the backfill's, and one of its own.
	var layers []v1.Layer
	for _, i := range images[n-2:] {
		all, err := i.Image.Layers()
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, all...)
	}
	layers = append(layers, layerOf(t, "srv/name", "pushed"))
	pushed := demodata.Image{Repository: "new/app", Tag: "1", Image: imageOf(t, layers...)}
	if err := p.store(t.Context(), pushed.Repository, pushed.Tag, pushed); err != nil {
		t.Fatal(err)
	}
	d, err := digestOf(pushed)
	if err != nil {
		t.Fatal(err)
	}
	err = p.notify(t.Context(), notice{id: "1", action: "push", repository: pushed.Repository, tag: pushed.Tag, digest: d, mediaType: manifestType})
	if err != nil {
		t.Fatal(err)
	}
	p.until("its layers wait in the lane of pushes", func() bool { return queued(work.Push) == uint64(len(layers)) && queued(work.Backfill) == n-2 })

	// One is in the scanner's hands already; of the turns that follow, one of ten is the backfill's.
	for range 2 + len(layers) + 1 {
		gate.tokens <- struct{}{}
	}
	p.until("the push is judged", func() bool { return len(p.reports(pushed)) == 1 })
	order := gate.analysed()
	for _, l := range layers {
		blob, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(order, image.Digest(blob.String())) {
			t.Errorf("layer %s is not among the first %d", blob, len(order))
		}
	}
	if left := queued(work.Backfill); left < n-2-4 {
		t.Errorf("%d of the backfill's %d layers are left: it was not overtaken", left, n-2)
	}
	close(gate.tokens)
	p.settle()
	if got := len(p.reports(images...)); got != n {
		t.Errorf("%d reports of %d images of the backfill", got, n)
	}
	p.consistent()
}
