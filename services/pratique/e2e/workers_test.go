package e2e

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
	"github.com/pratique-sec/pratique/services/scanner"
)

// lethal kills its process when it sees a blob.
type lethal struct {
	scanner.Analyzer
	blob image.Digest
	kill func()
}

func (l lethal) Analyze(ctx context.Context, layer image.Layer, r io.Reader) (facts.Layer, error) {
	if layer.Blob == l.blob {
		l.kill()
		<-ctx.Done()
		return facts.Layer{}, ctx.Err()
	}
	return l.Analyzer.Analyze(ctx, layer, r)
}

// mortals keeps scanners running that a blob kills, as if by kill -9: whatever they hold is neither
// acknowledged nor handed back. It answers how often one died.
func (p *pipeline) mortals(n int, blob image.Digest) *atomic.Int64 {
	deaths := &atomic.Int64{}
	ctx, cancel := context.WithCancel(context.Background())
	p.t.Cleanup(cancel) // before the pipeline's own cleanup, which waits
	for range n {
		p.running.Go(func() {
			for ctx.Err() == nil {
				if err := p.liveMortal(ctx, blob, deaths); err != nil && ctx.Err() == nil {
					p.log.InfoContext(ctx, "scanner ended", "error", err)
				}
			}
		})
	}
	return deaths
}

func (p *pipeline) liveMortal(ctx context.Context, blob image.Digest, deaths *atomic.Int64) error {
	ctx, die := context.WithCancel(ctx)
	defer die()
	nc, err := nats.Connect("", p.users["scanner"]...)
	if err != nil {
		return err
	}
	defer nc.Close()
	b, err := bus.New(nc, p.busConfig(), bus.Options{Logger: p.log, Now: p.opts.now})
	if err != nil {
		return err
	}
	s, err := p.scannerWith(lethal{analyses{p.engine, p.registry}, blob, func() {
		deaths.Add(1)
		nc.Close() // from here on nobody hears of it
		die()
	}}, b, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// A layer that kills every scanner which opens it: its image fails as poison, with a letter, after as many
// deaths as are allowed. The others are judged.
func TestWorkersThatDieOfOneLayer(t *testing.T) {
	p := start(t, options{silent: true, scanners: -1})
	poison := layerOf(t, "srv/name", "poison")
	d, err := poison.Digest()
	if err != nil {
		t.Fatal(err)
	}
	deaths := p.mortals(2, image.Digest(d.String()))
	ids := map[string]string{}
	for i := range 8 {
		img := demodata.Image{Repository: "team/app", Tag: fmt.Sprint(i), Image: imageOf(t, layerOf(t, "srv/name", fmt.Sprint(i)))}
		if i == 3 {
			img.Image = imageOf(t, layerOf(t, "srv/name", "3"), poison)
		}
		if err := p.store(t.Context(), img.Repository, img.Tag, img); err != nil {
			t.Fatal(err)
		}
		ids[img.Tag] = p.request(p.host + "/" + img.Name())
	}
	for tag, id := range ids {
		got := p.decided(id)
		switch {
		case tag == "3" && (got.Outcome != report.Failed || got.Reason != reason.PoisonWork):
			t.Errorf("the image with the poison: %+v", got)
		case tag != "3" && got.Outcome != report.Clean:
			t.Errorf("image %s beside it: %+v", tag, got)
		}
	}
	p.settle()
	// The first delivery is not counted, and the one that finds the five is refused.
	if n := deaths.Load(); n != 6 {
		t.Errorf("%d scanners died, want 6", n)
	}
	letters := p.letters("scanner")
	if len(letters) != 1 {
		t.Errorf("%d dead letters: %v", len(letters), letters)
	}
	for _, l := range letters {
		if l.Reason != reason.PoisonWork {
			t.Errorf("dead letter %+v", l)
		}
	}
}

// older is a scanner of another version.
type older struct {
	scanner.Analyzer
	analyses atomic.Int64
}

func (o *older) ID() string { return image.DigestOf([]byte("an older version")).Hex() }

func (o *older) Analyze(ctx context.Context, l image.Layer, r io.Reader) (facts.Layer, error) {
	o.analyses.Add(1)
	return o.Analyzer.Analyze(ctx, l, r)
}

// A scanner that was not upgraded takes jobs for the others and gives them back: they are late, and
// nothing is stored that is not what was asked for.
func TestScannerOfAnotherVersion(t *testing.T) {
	p := start(t, options{silent: true, scanners: -1})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	old := &older{Analyzer: analyses{p.engine, p.registry}}
	p.run(ctx, "scanner-old", func(b *bus.Bus, r prometheus.Registerer) (runner, error) { return p.scannerWith(old, b, r) })
	p.until("the old scanner is there", func() bool {
		id, err := p.bus.Setting(t.Context(), "analysis.default")
		return err == nil && id == old.ID()
	})
	p.run(ctx, "scanner-new", p.scanner)
	p.until("the new one has announced itself", func() bool {
		id, err := p.bus.Setting(t.Context(), "analysis.default")
		return err == nil && id == p.engine.ID()
	})
	ids := make([]string, 10)
	for i := range ids {
		img := demodata.Image{Repository: "team/app", Tag: fmt.Sprint(i), Image: imageOf(t, layerOf(t, "srv/name", fmt.Sprint(i)), layerOf(t, "srv/shared", "shared"))}
		if err := p.store(t.Context(), img.Repository, img.Tag, img); err != nil {
			t.Fatal(err)
		}
		ids[i] = p.request(p.host + "/" + img.Name())
	}
	for i, id := range ids {
		if got := p.decided(id); got.Outcome != report.Clean {
			t.Errorf("image %d: %+v", i, got)
		}
	}
	p.settle()
	if n := old.analyses.Load(); n != 0 {
		t.Errorf("the old scanner analysed %d layers", n)
	}
	if letters := p.letters("scanner"); len(letters) > 0 {
		t.Errorf("dead letters: %v", letters)
	}
}
