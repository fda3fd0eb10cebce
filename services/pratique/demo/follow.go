package demo

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

// Rows of the tables: enough to see, little enough to read.
const (
	vulnerabilityRows = 6
	deltaRows         = 12
)

// subscribe follows SCANS and FINDINGS from their beginning into d.news.
func (d *demo) subscribe(ctx context.Context, g *errgroup.Group) {
	tell := func(v any) error {
		select {
		case d.news <- v:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	g.Go(func() error {
		return d.system.Bus.WatchScans(ctx, 1, func(_ uint64, s finding.Scan) error { return tell(s) })
	})
	g.Go(func() error {
		return d.system.Bus.WatchDeltas(ctx, 1, func(_ uint64, x finding.Delta) error { return tell(x) })
	})
}

// wanted is what has to be decided before the show goes on: for each manifest digest, on behalf of its
// tag. It collects what was told about them.
type wanted struct {
	open     map[image.Digest]bool // manifests of images whose tag's evaluation is not told yet
	skipped  int                   // artifacts that are still to be skipped
	blobs    map[string]bool       // distinct layers
	resolved []finding.Delta
	opened   []finding.Delta
	counts   finding.LayerCounts
	first    bool // findings were shown already
}

// expect lists the manifests of images.
func expect(images []demodata.Image) (*wanted, error) {
	w := &wanted{open: map[image.Digest]bool{}, blobs: map[string]bool{}}
	for _, i := range images {
		if i.Artifact {
			w.skipped++
			continue
		}
		all, err := i.Images()
		if err != nil {
			return nil, err
		}
		for _, img := range all {
			digest, err := img.Digest()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", i.Name(), err)
			}
			w.open[image.Digest(digest.String())] = true
			manifest, err := img.Manifest()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", i.Name(), err)
			}
			for _, l := range manifest.Layers {
				w.blobs[l.Digest.String()] = true
			}
		}
	}
	return w, nil
}

func (w *wanted) done() bool { return len(w.open) == 0 && w.skipped == 0 }

// scan notes an evaluation and tells whether it was one of those waited for.
func (w *wanted) scan(s finding.Scan) bool {
	w.counts.Seen += s.Layers.Seen
	w.counts.Known += s.Layers.Known
	w.counts.Waited += s.Layers.Waited
	w.counts.Analysed += s.Layers.Analysed
	if s.Outcome == report.Skipped {
		w.skipped--
		return false
	}
	// A push of an index pushes its manifests first, untagged: those end in a report, not an asset.
	if s.Asset == nil || !w.open[s.Reference.Digest] {
		return false
	}
	delete(w.open, s.Reference.Digest)
	return true
}

// next waits for something new.
func (d *demo) next(ctx context.Context) (any, error) {
	select {
	case v := <-d.news:
		return v, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, decided, fmt.Errorf("demo: not all images were decided within %v; run with --log-level info to see why", decided))
}

// follow shows each image as it is decided.
func (d *demo) follow(ctx context.Context, w *wanted) error {
	ctx, cancel := deadline(ctx)
	defer cancel()
	for !w.done() {
		v, err := d.next(ctx)
		if err != nil {
			return err
		}
		s, ok := v.(finding.Scan)
		if !ok {
			continue
		}
		asked := w.scan(s)
		if s.Outcome == report.Skipped {
			d.say("%s is a signature: noted, never scanned", s.Reference.Repository+":"+s.Reference.Tag[:min(len(s.Reference.Tag), 19)]+"…")
		}
		if !asked {
			continue
		}
		if !w.first {
			w.first = true
			d.say("first findings")
		}
		if err := d.image(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// image shows one decided image.
func (d *demo) image(ctx context.Context, s finding.Scan) error {
	r, err := d.system.Bus.Report(ctx, s.Reference.Digest, s.Platform)
	if err != nil {
		return err
	}
	if err := d.Out.Report(s.Asset.Repository+":"+s.Asset.Track, r, vulnerabilityRows); err != nil {
		return err
	}
	return d.Out.Linef("  %s\n", d.Out.Faint(d.Out.Layers(s.Layers)))
}

// quiet is how often the queues are looked at while the last work ends.
const quiet = 50 * time.Millisecond

// layers waits until nothing is queued, and adds up what the layer cache did.
func (d *demo) layers(ctx context.Context, w *wanted) (finding.LayerCounts, int, error) {
	ctx, cancel := deadline(ctx)
	defer cancel()
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	idle := false
	for {
		select {
		case v := <-d.news:
			if s, ok := v.(finding.Scan); ok {
				w.scan(s)
			}
			continue
		case <-ctx.Done():
			return w.counts, 0, context.Cause(ctx)
		case <-tick.C:
		}
		if idle { // and nothing was told since
			return w.counts, len(w.blobs), nil
		}
		queues, err := d.system.Bus.Backlog(ctx)
		if err != nil {
			return w.counts, 0, err
		}
		idle = true
		for _, q := range queues {
			idle = idle && q.Pending == 0 && q.InFlight == 0
		}
	}
}

// followRebuild waits for the rebuilt images' evaluations and for each transition that they tell of.
func (d *demo) followRebuild(ctx context.Context, w *wanted) error {
	ctx, cancel := deadline(ctx)
	defer cancel()
	rebuilt := map[image.Digest]bool{}
	for digest := range w.open {
		rebuilt[digest] = true
	}
	told := 0 // transitions that the evaluations say there are
	var last finding.Scan
	for !w.done() || len(w.resolved)+len(w.opened) < told {
		v, err := d.next(ctx)
		if err != nil {
			return err
		}
		switch v := v.(type) {
		case finding.Scan:
			if w.scan(v) {
				told += v.Opened + v.Changed + v.Resolved
				last = v
			}
		case finding.Delta:
			switch {
			case !rebuilt[v.Image]:
			case v.Transition == finding.Resolved:
				w.resolved = append(w.resolved, v)
			default:
				w.opened = append(w.opened, v)
			}
		}
	}
	return d.rebuild(ctx, w, last)
}

func (d *demo) rebuild(ctx context.Context, w *wanted, s finding.Scan) error {
	if err := d.Out.Linef("%s", d.Out.Bold(fmt.Sprintf("RESOLVED by the rebuild: %d (opened or changed: %d)", len(w.resolved), len(w.opened)))); err != nil {
		return err
	}
	shown := gravestFirst(w.resolved)
	if err := d.Out.Deltas(shown[:min(len(shown), deltaRows)]); err != nil {
		return err
	}
	if n := len(shown) - deltaRows; n > 0 {
		if err := d.Out.Linef("  %s", d.Out.Faint(fmt.Sprintf("… and %d more", n))); err != nil {
			return err
		}
	}
	if err := d.Out.Linef(""); err != nil {
		return err
	}
	return d.image(ctx, s)
}

// gravestFirst orders transitions for reading.
func gravestFirst(deltas []finding.Delta) []finding.Delta {
	return slices.SortedStableFunc(slices.Values(deltas), func(a, b finding.Delta) int {
		return cmp.Or(cmp.Compare(b.Finding.Severity, a.Finding.Severity), cmp.Compare(a.Finding.Package, b.Finding.Package), cmp.Compare(a.Finding.Vulnerability, b.Finding.Vulnerability))
	})
}
