// Package load drives a Pratique with pushes as registries have them (layers that everybody shares and
// layers that nobody does, tags that move, bursts) and holds it to its word: every push is judged or
// overtaken by a later one of its tag, and nothing is told twice.
package load

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pratique-sec/pratique/pkg/work"
)

// Options are what is pushed. The same options are the same pushes, to the last digest.
type Options struct {
	Seed     uint64
	Duration time.Duration // from the first push to the last
	Rate     float64       // pushes a second on average, bursts included
	Burst    int           // pushes that come at once each time; 1: none do
	BurstOf  float64       // fraction of the pushes that come in bursts

	Tags        int     // that move, spread over repositories
	Layers      int     // distinct ones
	ImageLayers int     // of an image, at most; at least one
	Zipf        float64 // exponent of the layers' popularity, above 1

	Interactive float64 // fraction of the steps that ask for a scan instead of pushing
	Backfill    float64 // fraction of the pushes that are told as a crawl's
}

// Defaults are moderate: a laptop keeps up.
func Defaults() Options {
	return Options{
		Seed: 1, Duration: 30 * time.Second, Rate: 20, Burst: 10, BurstOf: 0.3,
		Tags: 60, Layers: 150, ImageLayers: 6, Zipf: 1.2, Interactive: 0.1, Backfill: 0.1,
	}
}

// Validate names every option that is wrong.
func (o Options) Validate() error {
	var errs []error
	positive := func(name string, v float64) {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("%s: %v; want more than 0", name, v))
		}
	}
	fraction := func(name string, v float64) {
		if v < 0 || v > 1 {
			errs = append(errs, fmt.Errorf("%s: %v; want 0 to 1", name, v))
		}
	}
	positive("duration", o.Duration.Seconds())
	positive("rate", o.Rate)
	positive("burst", float64(o.Burst))
	positive("tags", float64(o.Tags))
	positive("layers", float64(o.Layers))
	positive("image-layers", float64(o.ImageLayers))
	fraction("burst-of", o.BurstOf)
	fraction("interactive", o.Interactive)
	fraction("backfill", o.Backfill)
	if o.Zipf <= 1 {
		errs = append(errs, fmt.Errorf("zipf: %v; want more than 1: the larger, the more is shared", o.Zipf))
	}
	if steps := o.Rate * o.Duration.Seconds(); steps > maxSteps {
		errs = append(errs, fmt.Errorf("rate, duration: %.0f pushes, at most %d", steps, maxSteps))
	}
	return errors.Join(errs...)
}

// maxSteps bounds a plan: each push is kept until its outcome is there.
const maxSteps = 1_000_000

// Step is one thing that is done.
type Step struct {
	At         time.Duration // since the start
	Lane       work.Lane     // in which it is to be judged; Interactive: a request for the tag, nothing is pushed
	Repository string
	Tag        string
	Layers     []int  // of the pool, the lowest one first
	Label      string // makes the image one of its own
}

// layersOfTag is how many of an image's layers stay when its tag moves: those above are new builds.
func layersOfTag(n int) int { return (n + 1) / 2 }

// Plan lists the steps in their order.
func Plan(o Options) []Step {
	r := rand.New(rand.NewPCG(o.Seed, 0))
	layers := rand.NewZipf(r, o.Zipf, 1, uint64(o.Layers-1))
	pick := func(n int) []int {
		all := make([]int, n)
		for i := range all {
			all[i] = int(layers.Uint64())
		}
		return all
	}
	type tag struct {
		repository, name string
		base             []int
		pushed           bool
	}
	tags := make([]tag, o.Tags)
	for i := range tags {
		n := 1 + r.IntN(o.ImageLayers)
		tags[i] = tag{
			repository: fmt.Sprintf("team-%c/app-%d", 'a'+i%4, i/4%15), name: fmt.Sprintf("%d.0", i/60+1),
			base: pick(layersOfTag(n)),
		}
	}
	var steps []Step
	for n, at := range times(o, r) {
		t := &tags[r.IntN(len(tags))]
		s := Step{At: at, Lane: work.Push, Repository: t.repository, Tag: t.name}
		switch p := r.Float64(); {
		case p < o.Interactive && t.pushed:
			s.Lane = work.Interactive
			steps = append(steps, s)
			continue
		case p >= 1-o.Backfill:
			s.Lane = work.Backfill
		}
		t.pushed = true
		top := r.IntN(o.ImageLayers - len(t.base) + 1)
		s.Layers = append(append(s.Layers, t.base...), pick(top)...)
		s.Label = fmt.Sprintf("%d.%d", o.Seed, n)
		steps = append(steps, s)
	}
	return steps
}

// times are when steps are due, in order: some evenly spread by chance, some in bursts.
func times(o Options, r *rand.Rand) []time.Duration {
	total := int(o.Rate * o.Duration.Seconds())
	bursts := 0
	if o.Burst > 1 {
		bursts = int(float64(total) * o.BurstOf / float64(o.Burst))
	}
	due := make(map[int]int, bursts) // in so many milliseconds, so many at once
	span := max(int(o.Duration.Milliseconds()), 1)
	for range bursts {
		due[r.IntN(span)] += o.Burst
	}
	for range total - bursts*o.Burst {
		due[r.IntN(span)]++
	}
	all := make([]time.Duration, 0, total)
	for ms := range span {
		for range due[ms] {
			all = append(all, time.Duration(ms)*time.Millisecond)
		}
	}
	return all
}
