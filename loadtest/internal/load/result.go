package load

import (
	"slices"
	"time"

	"github.com/pratique-sec/pratique/loadtest/internal/figures"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Result is how a load was taken.
type Result struct {
	Steps     int           // pushes and requests
	Pushed    time.Duration // how long they took to send
	Late      time.Duration // how far they fell behind their times, at most: the load was lighter than asked for
	Lanes     []Lane        // highest first
	Scans     int           // outcomes told
	Deltas    int           // findings' transitions told
	Overtaken int           // pushes without an outcome of their own: a later push of their tag was there
	Lost      []string      // what should have been judged and was not
	Repeated  int           // scans and transitions told again
	Failed    []string      // outcomes that say that an image could not be judged
	Layers    finding.LayerCounts
	Distinct  int // layers
}

// Lane is what came of the steps of one lane.
type Lane struct {
	Name    work.Lane
	Sent    int
	Samples []Sample
}

// Sample is one outcome.
type Sample struct {
	At      time.Duration // since the start, when the system was told
	Latency time.Duration // from there to the outcome's arrival
}

// Latencies of a lane.
func (l Lane) Latencies() []time.Duration {
	var all []time.Duration
	for _, s := range l.Samples {
		all = append(all, s.Latency)
	}
	return all
}

// Sound tells whether the system kept its word.
func (r *Result) Sound() bool { return len(r.Lost) == 0 && r.Repeated == 0 && len(r.Failed) == 0 }

// Dedup is the fraction of the layers listed by images that nobody had to read for them.
func (r *Result) Dedup() float64 {
	if r.Layers.Seen == 0 {
		return 0
	}
	return 1 - float64(r.Layers.Analysed)/float64(r.Layers.Seen)
}

func (r *run) result(steps []Step, pushed time.Duration) *Result {
	sum := r.System.Outcomes.Sum()
	out := &Result{
		Steps: len(steps), Pushed: pushed, Late: r.late, Scans: sum.Scans, Deltas: sum.Deltas,
		Repeated: r.System.Outcomes.Repeated(), Layers: sum.Layers, Distinct: distinct(steps),
	}
	for _, f := range sum.Failed {
		out.Failed = append(out.Failed, f.Reference.String()+": "+string(f.Reason)+": "+f.Detail)
	}
	lanes := map[work.Lane]*Lane{}
	for _, s := range r.sent {
		l := lanes[s.Lane]
		if l == nil {
			l = &Lane{Name: s.Lane}
			lanes[s.Lane] = l
		}
		l.Sent++
		o, ok := r.seen(s)
		if !ok {
			out.Overtaken++ // unless it is one of the musts, below
			continue
		}
		// The event of an earlier push of the tag may have been planned when this one was there already.
		if took := o.At.Sub(s.told); took >= 0 {
			l.Samples = append(l.Samples, Sample{At: s.told.Sub(r.begin), Latency: took})
		}
	}
	for _, name := range work.Lanes {
		if l := lanes[name]; l != nil {
			slices.SortFunc(l.Samples, func(a, b Sample) int { return int(a.At - b.At) })
			out.Lanes = append(out.Lanes, *l)
		}
	}
	for _, s := range r.musts() {
		if _, ok := r.seen(s); ok {
			continue
		}
		out.Overtaken--
		what := s.ref.String()
		if s.request != "" {
			what = "request " + s.request + " for " + what
		}
		out.Lost = append(out.Lost, what)
	}
	slices.Sort(out.Lost)
	return out
}

func distinct(steps []Step) int {
	all := map[int]bool{}
	for _, s := range steps {
		for _, l := range s.Layers {
			all[l] = true
		}
	}
	return len(all)
}

// Figures is the result as it is printed.
func (r *Result) Figures() figures.Load {
	f := figures.Load{
		Steps: r.Steps, Seconds: r.Pushed.Seconds(), LateMillis: figures.Millis(r.Late), Scans: r.Scans, Deltas: r.Deltas,
		Overtaken: r.Overtaken, Lost: r.Lost, Repeated: r.Repeated, Failed: r.Failed, Sound: r.Sound(),
		Layers: r.Layers.Seen, Analysed: r.Layers.Analysed, Distinct: r.Distinct, Dedup: r.Dedup(),
	}
	for _, l := range r.Lanes {
		lane := figures.Lane{Name: string(l.Name), Sent: l.Sent, Judged: len(l.Samples)}
		for _, s := range l.Samples {
			lane.Points = append(lane.Points, figures.Point{Second: s.At.Seconds(), Millis: figures.Millis(s.Latency)})
		}
		all := l.Latencies()
		lane.P50, lane.P90 = figures.Millis(figures.Quantile(all, 0.5)), figures.Millis(figures.Quantile(all, 0.9))
		lane.P99, lane.Max = figures.Millis(figures.Quantile(all, 0.99)), figures.Millis(figures.Quantile(all, 1))
		f.Lanes = append(f.Lanes, lane)
	}
	return f
}
