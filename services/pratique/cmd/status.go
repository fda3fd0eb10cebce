package cmd

import (
	"context"
	"encoding/json/v2"
	"errors"
	"fmt"
	"time"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
	"github.com/pratique-sec/pratique/services/pratique/render"
)

type statusCmd struct {
	busFlags
	Watch    bool          `short:"w" help:"Look again and again, until interrupted: in place on a terminal, a line or an object each time elsewhere."`
	Interval time.Duration `help:"Time between looks of --watch." default:"2s" placeholder:"TIME"`
	Output   output        `short:"o" help:"table or json." enum:"table,json" default:"table"`
}

// minInterval keeps a watch from being a burden.
const minInterval = 100 * time.Millisecond

func (c *statusCmd) Run(ctx context.Context, r *runner) error {
	if c.Interval < minInterval {
		return usagef("--interval: %s is too short; %s at least", c.Interval, minInterval)
	}
	b, leave, err := c.open(r)
	if err != nil {
		return err
	}
	defer leave()
	look := &looker{bus: b, now: r.Now}
	if c.Watch {
		return c.watch(ctx, r, look)
	}
	s, err := look.look(ctx)
	if err != nil {
		return err
	}
	if c.Output == asJSON {
		return r.printLine(json.Marshal(s))
	}
	return r.out().Status(s, r.Now())
}

// watch shows each look until ctx ends, which is what it is for. A look that fails is told, and does not
// end it: the server may be away for a moment.
func (c *statusCmd) watch(ctx context.Context, r *runner, look *looker) error {
	out := r.out()
	screen := render.NewScreen(out)
	ticker := time.NewTicker(c.Interval)
	defer ticker.Stop()
	for {
		s, err := look.look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			err = r.err().Linef("pratique: %v", err)
		case c.Output == asJSON:
			err = r.printLine(json.Marshal(s))
		case out.Terminal:
			err = screen.Show(func(p render.Printer) error { return p.Status(s, r.Now()) })
		default:
			err = out.StatusLine(s, r.Now())
		}
		if err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// recount is how often a watch counts findings anew: that reads the state of every asset.
const recount = time.Minute

// looker looks at an installation, and remembers the last look for rates.
type looker struct {
	bus *bus.Bus
	now func() time.Time

	marks   bus.Marks
	at      time.Time // of marks; zero at first
	assets  int
	open    int
	counted time.Time
	upTo    uint64 // the state's mark when it was counted
}

func (l *looker) look(ctx context.Context) (render.Status, error) {
	s := render.Status{At: l.now().UTC(), Queues: []render.Queue{}, Work: []render.Work{}, Paused: []render.Paused{}}
	for _, kind := range []vulndb.Kind{vulndb.Vulnerabilities, vulndb.Java} {
		d := render.Database{Kind: string(kind)}
		p, err := l.bus.Pointer(ctx, kind)
		switch {
		case err == nil:
			d.Loaded, d.Digest, d.UpdatedAt = true, image.Digest(p.Digest), p.UpdatedAt
		case !errors.Is(err, bus.ErrNotFound):
			return s, fmt.Errorf("read pointer of %s: %w", kind, err)
		}
		s.Databases = append(s.Databases, d)
	}
	queues, err := l.bus.Backlog(ctx)
	if err != nil {
		return s, err
	}
	s.Queues = append(s.Queues, busy(queues)...)
	load, err := l.bus.Load(ctx, work.DefaultPool)
	if err != nil {
		return s, err
	}
	for _, w := range load {
		s.Work = append(s.Work, render.Work{Pool: w.Pool, Lane: w.Lane, Seconds: w.Seconds, Oldest: w.Oldest})
	}
	err = l.bus.Breakers(ctx, func(b breaker.State) error {
		if b.Paused() {
			s.Paused = append(s.Paused, paused(b))
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	marks, err := l.bus.Marks(ctx)
	if err != nil {
		return s, err
	}
	if err := l.count(ctx, marks); err != nil {
		return s, err
	}
	s.Assets, s.Open, s.Letters, s.Rates = l.assets, l.open, marks.DeadLetters, l.rates(s.At, marks)
	l.marks, l.at = marks, s.At
	return s, nil
}

func paused(b breaker.State) render.Paused {
	return render.Paused{Registry: b.Host, Since: b.Since, Until: b.Until, Error: b.Error}
}

// count counts findings, unless nothing has changed or it was done a moment ago.
func (l *looker) count(ctx context.Context, marks bus.Marks) error {
	if !l.counted.IsZero() && (marks.States == l.upTo || l.now().Sub(l.counted) < recount) {
		return nil
	}
	open := map[finding.Asset]int{} // one that is written meanwhile comes again
	err := l.bus.States(ctx, func(st finding.State) error {
		open[st.Asset] = len(st.Open)
		return nil
	})
	if err != nil {
		return err
	}
	l.assets, l.open, l.counted, l.upTo = len(open), 0, l.now(), marks.States
	for _, n := range open {
		l.open += n
	}
	return nil
}

// rates are what has come since the last look; nil when there was none.
func (l *looker) rates(at time.Time, marks bus.Marks) *render.Rates {
	took := at.Sub(l.at).Seconds()
	if l.at.IsZero() || took <= 0 {
		return nil
	}
	rate := func(now, before uint64) float64 {
		if now < before { // the stream was made anew
			return 0
		}
		return float64(now-before) / took
	}
	return &render.Rates{
		Events:   rate(marks.Events, l.marks.Events),
		Scans:    rate(marks.Scans, l.marks.Scans),
		Findings: rate(marks.Findings, l.marks.Findings),
	}
}

// busy adds up queues over pools and cost classes, and leaves out what is empty.
func busy(queues []bus.Queue) []render.Queue {
	var sums []render.Queue
	for _, q := range queues {
		if q.Pending == 0 && q.InFlight == 0 {
			continue
		}
		found := false
		for i := range sums {
			if sums[i].Name == q.Kind && sums[i].Lane == q.Lane {
				sums[i].Pending += q.Pending
				sums[i].InFlight += q.InFlight
				found = true
			}
		}
		if !found {
			sums = append(sums, render.Queue{Name: q.Kind, Lane: q.Lane, Pending: q.Pending, InFlight: q.InFlight})
		}
	}
	return sums
}
