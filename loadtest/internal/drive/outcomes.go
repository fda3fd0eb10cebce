// Package drive is a running Pratique as its users see it: images are pushed or asked for over HTTP, and
// what became of them is read from SCANS and FINDINGS.
package drive

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// Bus is where scans and findings are read; *bus.Bus is one.
type Bus interface {
	LastScan(ctx context.Context) (uint64, error)
	WatchScans(ctx context.Context, from uint64, fn func(seq uint64, s finding.Scan) error) error
	LastDelta(ctx context.Context) (uint64, error)
	WatchDeltas(ctx context.Context, from uint64, fn func(seq uint64, d finding.Delta) error) error
}

// Outcome is a scan and when it was seen.
type Outcome struct {
	finding.Scan
	At time.Time
}

// Outcomes collects what is told. Safe for concurrent use.
type Outcomes struct {
	mu    sync.Mutex
	slots map[string]*slot
	ids   map[string]int // how often each scan and each delta was seen, by its id
	sum   Sum
}

// Sum is over all outcomes, each once.
type Sum struct {
	Scans, Deltas int
	Failed        []finding.Scan // with a reason other than that a later one was faster
	Layers        finding.LayerCounts
}

// maxFailed bounds the failed scans that are kept.
const maxFailed = 20

// slot is where the first outcome of something is put.
type slot struct {
	done    chan struct{} // closed when it is there
	outcome Outcome
}

// Follow collects scans and findings, from the next ones on, until ctx ends. What is pushed after it
// returned is not missed. ended gets the error that stopped it, or nil at the end of ctx.
func Follow(ctx context.Context, b Bus) (o *Outcomes, ended <-chan error, err error) {
	scan, err := b.LastScan(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("follow scans: %w", err)
	}
	delta, err := b.LastDelta(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("follow findings: %w", err)
	}
	o = &Outcomes{slots: map[string]*slot{}, ids: map[string]int{}}
	done := make(chan error, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return b.WatchScans(ctx, scan+1, func(_ uint64, s finding.Scan) error {
			o.note(Outcome{s, time.Now()})
			return nil
		})
	})
	g.Go(func() error {
		return b.WatchDeltas(ctx, delta+1, func(_ uint64, d finding.Delta) error {
			o.noteDelta(d)
			return nil
		})
	})
	go func() { done <- g.Wait() }()
	return o, done, nil
}

func (o *Outcomes) note(out Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ids["scan "+out.ID]++
	if o.ids["scan "+out.ID] > 1 {
		return
	}
	o.sum.Scans++
	o.sum.Layers.Seen += out.Layers.Seen
	o.sum.Layers.Known += out.Layers.Known
	o.sum.Layers.Waited += out.Layers.Waited
	o.sum.Layers.Analysed += out.Layers.Analysed
	if out.Reason != "" && out.Reason != reason.Superseded && len(o.sum.Failed) < maxFailed {
		o.sum.Failed = append(o.sum.Failed, out.Scan)
	}
	// A request may have taken over the job of a push: then its outcome is that push's too.
	if out.Request != "" {
		o.fill(out.Request, out)
	}
	if out.Reason != reason.Superseded { // else a later push has been judged already
		o.fill(pushed(out.Reference), out)
	}
}

// fill is called with the lock held. The first outcome counts.
func (o *Outcomes) fill(key string, out Outcome) {
	s := o.slot(key)
	select {
	case <-s.done:
	default:
		s.outcome = out
		close(s.done)
	}
}

func (o *Outcomes) noteDelta(d finding.Delta) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ids["delta "+d.EventID]++
	if o.ids["delta "+d.EventID] == 1 {
		o.sum.Deltas++
	}
}

// Sum is what was seen up to now.
func (o *Outcomes) Sum() Sum {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.sum
	s.Failed = slices.Clone(s.Failed)
	return s
}

// slot is called with the lock held.
func (o *Outcomes) slot(key string) *slot {
	s := o.slots[key]
	if s == nil {
		s = &slot{done: make(chan struct{})}
		o.slots[key] = s
	}
	return s
}

// pushed is what the outcome of a push is found by.
func pushed(r image.Reference) string { return r.Name() + ":" + r.Tag + "@" + string(r.Digest) }

// Push waits for the first outcome of a pushed image: of this tag and digest.
func (o *Outcomes) Push(ctx context.Context, r image.Reference) (Outcome, error) {
	return o.wait(ctx, pushed(r))
}

// Request waits for the first outcome of a submission with this id.
func (o *Outcomes) Request(ctx context.Context, id string) (Outcome, error) { return o.wait(ctx, id) }

// PushSeen is Push without waiting.
func (o *Outcomes) PushSeen(r image.Reference) (Outcome, bool) { return o.there(pushed(r)) }

// RequestSeen is Request without waiting.
func (o *Outcomes) RequestSeen(id string) (Outcome, bool) { return o.there(id) }

func (o *Outcomes) there(key string) (Outcome, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.slots[key]
	if s == nil {
		return Outcome{}, false
	}
	select {
	case <-s.done:
		return s.outcome, true
	default:
		return Outcome{}, false
	}
}

func (o *Outcomes) wait(ctx context.Context, key string) (Outcome, error) {
	o.mu.Lock()
	s := o.slot(key)
	o.mu.Unlock()
	select {
	case <-s.done:
		return s.outcome, nil
	case <-ctx.Done():
		return Outcome{}, fmt.Errorf("no outcome of %s: %w", key, ctx.Err())
	}
}

// Repeated is how many scans and deltas were seen beyond the first of their id.
func (o *Outcomes) Repeated() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, seen := range o.ids {
		n += seen - 1
	}
	return n
}
