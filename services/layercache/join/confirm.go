package join

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/work"
)

const (
	readsPerHost = 2
	readGrace    = time.Minute // of one reading, beside what its size may take
	slowest      = 128 << 10   // bytes a second
)

// confirm makes sure that this repository holds a blob whose facts may have come from another: naming a
// digest must not be enough to read what is in somebody else's layer. asked tells that it was not
// remembered.
//
// A registry's word is taken about its own repositories only. That a host holds a blob at all is proved
// by reading it there once, to the end: whoever runs a registry could say yes to every digest, and would
// be told what is in the layers of another.
func (w *wait) confirm(ctx context.Context, source string, l image.Layer) (asked bool, err error) {
	repository := w.need.Image.Repository
	if holds, err := w.holds(ctx, repository, l); err != nil || holds {
		return false, err
	}
	shown, err := w.holds(ctx, facts.WholeHost, l)
	if err != nil {
		return false, err
	}
	if shown {
		err = w.ask(ctx, l)
	} else {
		err = w.read(ctx, l)
	}
	why := reason.Of(err)
	switch {
	case err == nil:
		return true, w.remember(ctx, repository, l)
	case why.Kind != reason.Refuse || why.Code == reason.Denied || why.Code == reason.HostNotAllowed:
		return true, fmt.Errorf("ask for layer %s: %w", l.Blob, err)
	}
	v := facts.Verdict{Key: source, Code: why.Code, Detail: err.Error(), At: w.join.cfg.Now().UTC()}
	if !shown {
		// These words, and these counts, are those of a scanner that was sent for a layer that nobody knows: a
		// difference would tell a liar that somebody has it.
		k := work.LayerKey(l.Blob, w.need.Analysis)
		w.waited[k], w.queued[k] = true, true
	}
	if err := w.join.cfg.Store.PutVerdict(ctx, v); err != nil {
		return true, fmt.Errorf("remember verdict on layer %s: %w", l.Blob, err)
	}
	return true, refusal(l, v)
}

func (w *wait) holds(ctx context.Context, repository string, l image.Layer) (bool, error) {
	holds, err := w.join.cfg.Store.Holds(ctx, w.need.Image.Host, repository, l.Blob)
	if err != nil {
		return false, fmt.Errorf("holder of layer %s: %w", l.Blob, err)
	}
	return holds, nil
}

func (w *wait) remember(ctx context.Context, repository string, l image.Layer) error {
	if err := w.join.cfg.Store.PutHolder(ctx, w.need.Image.Host, repository, l.Blob); err != nil {
		return fmt.Errorf("remember holder of layer %s: %w", l.Blob, err)
	}
	return nil
}

// ask asks a host that has shown the blob whether this repository of it holds it.
func (w *wait) ask(ctx context.Context, l image.Layer) error {
	there, err := w.join.cfg.Blobs.HasBlob(ctx, w.need.Image.Host, w.need.Image.Repository, l.Blob)
	if err == nil && !there {
		return reason.Refusef(reason.BlobMissing, "%s/%s does not hold it", w.need.Image.Host, w.need.Image.Repository)
	}
	return err
}

// read reads the blob to its end, which its digest must be at. One host's readings are few at a time, and
// end: a registry that sends drop by drop keeps its own images waiting, and nobody else's.
func (w *wait) read(ctx context.Context, l image.Layer) error {
	leave, err := w.join.readings.enter(ctx, w.need.Image.Host)
	if err != nil {
		return err
	}
	defer leave()
	// Another image may have had it read meanwhile.
	if shown, err := w.holds(ctx, facts.WholeHost, l); err != nil {
		return err
	} else if shown {
		return w.ask(ctx, l)
	}
	patience := readGrace + time.Duration(l.Size/slowest)*time.Second
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = w.join.cfg.Blobs.VerifyBlob(bounded, w.need.Image.Host, w.need.Image.Repository, l.Blob, l.Size)
	if err != nil && ctx.Err() == nil && errors.Is(bounded.Err(), context.DeadlineExceeded) {
		return reason.Retryf(reason.Unreachable, "layer %s: not read within %s", l.Blob, patience)
	}
	if err != nil {
		return err
	}
	return w.remember(ctx, facts.WholeHost, l)
}

// readings counts who reads from which host.
type readings struct {
	mu    sync.Mutex
	hosts map[string]*hostReadings
}

type hostReadings struct {
	slots chan struct{}
	users int // that wait or read: the last takes the entry away
}

// enter waits for a turn at a host.
func (r *readings) enter(ctx context.Context, host string) (leave func(), err error) {
	r.mu.Lock()
	h := r.hosts[host]
	if h == nil {
		h = &hostReadings{slots: make(chan struct{}, readsPerHost)}
		r.hosts[host] = h
	}
	h.users++
	r.mu.Unlock()
	gone := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if h.users--; h.users == 0 {
			delete(r.hosts, host)
		}
	}
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, ctx.Err()
	}
}
