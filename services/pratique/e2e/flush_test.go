package e2e

import (
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts"
	"github.com/pratique-sec/pratique/pkg/facts/front"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts/redistest"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

// FLUSHALL costs reads of JetStream and nothing else: no analysis and no pull, neither for a new
// database nor for images that are new and made of known layers.
func TestFlushedRedis(t *testing.T) {
	redis, quiet := redistest.Start(t).Client, slog.New(slog.DiscardHandler)
	p := start(t, options{silent: true, planners: 2, scanners: 2, facts: func(_ testing.TB, b *bus.Bus) facts.Store {
		return front.New(redisfacts.New(redis, redisfacts.Options{Logger: quiet}), busfacts.New(b), quiet)
	}})
	first, _ := demoImages(t)
	first = first[:3]
	tell := func(images []demodata.Image) {
		t.Helper()
		for _, i := range images {
			if err := p.store(t.Context(), i.Repository, i.Tag, i); err != nil {
				t.Fatal(err)
			}
			d, err := digestOf(i)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.notify(t.Context(), notice{id: string(d), action: "push", repository: i.Repository, tag: i.Tag, digest: d, mediaType: manifestType}); err != nil {
				t.Fatal(err)
			}
		}
		p.settle()
	}
	flush := func() {
		t.Helper()
		if n, err := redis.DBSize(t.Context()).Result(); err != nil || n == 0 {
			t.Fatalf("Redis holds %d keys (%v): there is nothing to flush", n, err)
		}
		if err := redis.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	layers := map[string]bool{}
	for _, i := range first {
		all, err := i.Image.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			d, err := l.Digest()
			if err != nil {
				t.Fatal(err)
			}
			layers[d.String()] = true
		}
	}
	pulls := func() (analyses, blobs map[string]int) {
		p.registry.mu.Lock()
		defer p.registry.mu.Unlock()
		blobs = maps.Clone(p.registry.blobs)
		maps.DeleteFunc(blobs, func(d string, _ int) bool { return !layers[d] }) // configs are an image's own
		return maps.Clone(p.registry.analysed), blobs
	}

	tell(first)
	analyses, blobs := pulls()
	if len(analyses) != len(layers) || len(blobs) != len(layers) {
		t.Fatalf("%d layers, %d analysed, %d read", len(layers), len(analyses), len(blobs))
	}

	flush()
	asked := p.registry.requests()
	<-time.After(time.Second) // several rechecks, heartbeats and looks at everything
	p.load(demoDatabase(t, func(string) bool { return true }))
	p.until("all is judged again", func() bool { return p.rematched() })
	p.settle()
	if n := p.registry.requests(); n != asked {
		t.Errorf("the registry was asked %d times", n-asked)
	}

	flush()
	relabelled := make([]demodata.Image, len(first))
	for k, i := range first {
		cfg, err := i.Image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		cfg = cfg.DeepCopy()
		cfg.Config.Labels = map[string]string{"rebuilt": "yes"}
		relabelled[k] = i
		if relabelled[k].Image, err = mutate.ConfigFile(i.Image, cfg); err != nil {
			t.Fatal(err)
		}
	}
	tell(relabelled)
	if got := len(p.reports(relabelled...)); got != len(relabelled) {
		t.Errorf("%d reports of %d images", got, len(relabelled))
	}
	analysesAfter, blobsAfter := pulls()
	if !maps.Equal(analyses, analysesAfter) || !maps.Equal(blobs, blobsAfter) {
		t.Errorf("after FLUSHALL: analyses %v and pulls %v, before %v and %v", analysesAfter, blobsAfter, analyses, blobs)
	}
	p.consistent()
}

// The same of processes that share one Redis.
func TestFlushedRedisOfProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("builds every service's program; leave -short away")
	}
	h := fleet(t, 12)
	r := newSlowRegistry(t, rand.New(rand.NewPCG(1, 1)))
	p, s := r.install(t, chaosAckWait, "")
	to := &teller{apis: s.APIs, requests: map[string]step{}}
	if err := p.unfold(t.Context(), h, to, time.Second); err != nil {
		t.Fatal(err)
	}
	p.calmDown(s)
	analyses, asked := len(attempts(t, s.Of("scanner"))), p.registry.requests()
	if analyses == 0 || asked == 0 {
		t.Fatalf("%d analyses, %d requests: there is nothing to compare with", analyses, asked)
	}

	if err := s.Flush(t); err != nil {
		t.Fatal(err)
	}
	p.load(demoDatabase(t, func(line string) bool { return !strings.Contains(line, `"lodash"`) }))
	p.until("all is judged again", func() bool { return p.rematched() })
	p.calmDown(s)
	if again := len(attempts(t, s.Of("scanner"))); again != analyses {
		t.Errorf("FLUSHALL cost %d analyses", again-analyses)
	}
	if again := p.registry.requests(); again != asked {
		t.Errorf("FLUSHALL cost %d requests to the registry", again-asked)
	}
	p.consistent()
}
