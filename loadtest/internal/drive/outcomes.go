// Package drive is a running Pratique as its users see it: images are pushed or asked for over HTTP, and
// what became of them is read from SCANS.
package drive

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
)

// Bus is where scans are read; *bus.Bus is one.
type Bus interface {
	LastScan(ctx context.Context) (uint64, error)
	WatchScans(ctx context.Context, from uint64, fn func(seq uint64, s finding.Scan) error) error
}

// Outcome is a scan and when it was seen.
type Outcome struct {
	finding.Scan
	At time.Time
}

// Outcomes collects SCANS. Safe for concurrent use.
type Outcomes struct {
	mu    sync.Mutex
	slots map[string]*slot
	ids   map[string]int // how often each scan id was seen
}

// slot is where the first outcome of something is put.
type slot struct {
	done    chan struct{} // closed when it is there
	outcome Outcome
}

// Follow collects scans, from the next one on, until ctx ends. What is pushed after it returned is not
// missed. ended gets the error that stopped it, or nil at the end of ctx.
func Follow(ctx context.Context, b Bus) (o *Outcomes, ended <-chan error, err error) {
	last, err := b.LastScan(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("follow scans: %w", err)
	}
	o = &Outcomes{slots: map[string]*slot{}, ids: map[string]int{}}
	done := make(chan error, 1)
	go func() {
		done <- b.WatchScans(ctx, last+1, func(_ uint64, s finding.Scan) error {
			o.note(Outcome{s, time.Now()})
			return nil
		})
	}()
	return o, done, nil
}

func (o *Outcomes) note(out Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ids[out.ID]++
	keys := []string{pushed(out.Reference)}
	if out.Request != "" {
		keys = []string{out.Request}
	}
	for _, k := range keys {
		s := o.slot(k)
		select {
		case <-s.done: // the first one counts
		default:
			s.outcome = out
			close(s.done)
		}
	}
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

// Repeated is how many scans were seen beyond the first of their id.
func (o *Outcomes) Repeated() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, seen := range o.ids {
		n += seen - 1
	}
	return n
}
