package load_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/loadtest/internal/load"
	"github.com/pratique-sec/pratique/pkg/work"
)

func TestPlanIsRepeatable(t *testing.T) {
	o := load.Defaults()
	if !reflect.DeepEqual(load.Plan(o), load.Plan(o)) {
		t.Error("two plans of one seed differ")
	}
	other := o
	other.Seed++
	if reflect.DeepEqual(load.Plan(o), load.Plan(other)) {
		t.Error("another seed makes the same plan")
	}
}

func TestPlanIsAsAsked(t *testing.T) {
	o := load.Defaults()
	o.Duration, o.Rate = 100*time.Second, 50
	steps := load.Plan(o)
	if n := len(steps); n != 5000 {
		t.Fatalf("%d steps of 5000", n)
	}
	if !slices.IsSortedFunc(steps, func(a, b load.Step) int { return int(a.At - b.At) }) {
		t.Error("steps are out of order")
	}
	lanes, used, pushed, labels := map[work.Lane]int{}, map[int]int{}, map[string]int{}, map[string]bool{}
	atOnce, longest := map[time.Duration]int{}, 0
	for _, s := range steps {
		lanes[s.Lane]++
		atOnce[s.At]++
		longest = max(longest, atOnce[s.At])
		name := s.Repository + ":" + s.Tag
		if s.Lane == work.Interactive {
			if pushed[name] == 0 {
				t.Fatalf("%s is asked for before anything was pushed there", name)
			}
			continue
		}
		pushed[name]++
		if n := len(s.Layers); n < 1 || n > o.ImageLayers {
			t.Fatalf("an image of %d layers", n)
		}
		if labels[s.Label] {
			t.Fatalf("label %s twice: one image would be another's", s.Label)
		}
		labels[s.Label] = true
		for _, l := range s.Layers {
			if l < 0 || l >= o.Layers {
				t.Fatalf("layer %d of %d", l, o.Layers)
			}
			used[l]++
		}
	}
	for lane, want := range map[work.Lane]int{work.Interactive: 500, work.Backfill: 500, work.Push: 4000} {
		if n := lanes[lane]; n < want*8/10 || n > want*12/10 {
			t.Errorf("%d steps in lane %s, want about %d", n, lane, want)
		}
	}
	if longest < o.Burst {
		t.Errorf("at most %d steps at once: no bursts of %d", longest, o.Burst)
	}
	if len(pushed) != o.Tags {
		t.Errorf("%d tags of %d", len(pushed), o.Tags)
	}
	if used[0] < 10*used[o.Layers/2] {
		t.Errorf("the most popular layer is used %d times, a middle one %d times: not shared as in a registry", used[0], used[o.Layers/2])
	}
}

// When a tag moves, what its images stand on stays.
func TestTagsKeepTheirBase(t *testing.T) {
	base := map[string]int{}
	for _, s := range load.Plan(load.Defaults()) {
		if s.Lane == work.Interactive {
			continue
		}
		name := s.Repository + ":" + s.Tag
		if b, seen := base[name]; seen && b != s.Layers[0] {
			t.Fatalf("%s stands on layer %d, then on %d", name, b, s.Layers[0])
		}
		base[name] = s.Layers[0]
	}
}

func TestOptionsAreChecked(t *testing.T) {
	if err := load.Defaults().Validate(); err != nil {
		t.Fatal(err)
	}
	for field, spoil := range map[string]func(*load.Options){
		"duration":     func(o *load.Options) { o.Duration = 0 },
		"rate":         func(o *load.Options) { o.Rate = -1 },
		"burst":        func(o *load.Options) { o.Burst = 0 },
		"burst-of":     func(o *load.Options) { o.BurstOf = 2 },
		"tags":         func(o *load.Options) { o.Tags = 0 },
		"layers":       func(o *load.Options) { o.Layers = 0 },
		"image-layers": func(o *load.Options) { o.ImageLayers = 0 },
		"zipf":         func(o *load.Options) { o.Zipf = 1 },
		"interactive":  func(o *load.Options) { o.Interactive = -0.1 },
		"backfill":     func(o *load.Options) { o.Backfill = 1.1 },
		"at most":      func(o *load.Options) { o.Rate, o.Duration = 1e6, time.Hour },
	} {
		o := load.Defaults()
		spoil(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// The smallest plans are plans.
func TestSmallPlans(t *testing.T) {
	o := load.Options{Duration: time.Second, Rate: 3, Burst: 1, Tags: 1, Layers: 1, ImageLayers: 1, Zipf: 1.5}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	if steps := load.Plan(o); len(steps) != 3 {
		t.Errorf("%d steps of 3", len(steps))
	}
}
