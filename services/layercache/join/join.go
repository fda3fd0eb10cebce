// Package join holds images until every one of their layers is decided. It asks the layer cache,
// queues what nobody has queued, and is woken by notices from the scanners.
//
// It promises: Wait returns once the facts of all layers are there and this repository was confirmed
// to hold each of them, or once one layer is refused. Losing notices, jobs or facts costs time, never
// the wait's end: every so often each missing layer is looked up and queued again, since asking alone
// could wait for ever. It keeps nothing that a restart would miss: a wait that dies is begun again by
// whoever asked for it.
package join

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Store is the part of facts.Store that a join reads, and the little it writes.
type Store interface {
	HasFacts(ctx context.Context, diffID image.Digest, analysis string) (bool, error)
	Record(ctx context.Context, blob image.Digest) (facts.Record, error)
	PutHolder(ctx context.Context, host, repository string, blob image.Digest) error
	Holds(ctx context.Context, host, repository string, blob image.Digest) (bool, error)
	PutVerdict(ctx context.Context, v facts.Verdict) error
	Verdict(ctx context.Context, key string) (facts.Verdict, error)
}

// Queue stores layer jobs. queued is false when a job with the key is there already: that says nothing
// about the future, so it is asked again.
type Queue interface {
	QueueLayer(ctx context.Context, j work.LayerJob) (queued bool, err error)
}

// Blobs asks a registry whether a repository holds a blob: by its word, or by reading all of it, which
// only bytes of that digest and size pass. One that is not there to be read is reason.BlobMissing.
type Blobs interface {
	HasBlob(ctx context.Context, host, repository string, d image.Digest) (bool, error)
	VerifyBlob(ctx context.Context, host, repository string, d image.Digest, size int64) error
}

// Config of a join; every field is required.
type Config struct {
	Store   Store
	Queue   Queue
	Blobs   Blobs
	Recheck time.Duration // how often each missing layer is looked up and queued again
	Now     func() time.Time
	Logger  *slog.Logger
}

// Join holds the waiting images of one process. Safe for concurrent use.
type Join struct {
	cfg Config

	mu      sync.Mutex
	waiting map[string]map[*hold]struct{} // by layer key

	readings *readings
}

// New makes an empty join.
func New(cfg Config) *Join {
	return &Join{cfg: cfg, waiting: map[string]map[*hold]struct{}{}, readings: &readings{hosts: map[string]*hostReadings{}}}
}

// Need is one image and what its layers are wanted for.
type Need struct {
	Image    image.Image
	Analysis string
	Pool     string
	Lane     work.Lane
	Origin   work.Origin
	// Stale is closed when Analysis is no longer what scanners do: its jobs would wait for ever.
	Stale <-chan struct{}
	// Paused is closed while the image's registry is left alone, Stopping when this process is to end: in
	// either case the image need not be held here.
	Paused, Stopping <-chan struct{}
	// GiveUp is when a registry that does not answer has not answered for too long.
	GiveUp time.Time
	// Progress is told, now and then, which blobs are still missing, each once, in the image's order.
	Progress func(ctx context.Context, missing []image.Digest)
}

// Result is what a finished wait found.
type Result struct {
	DiffIDs map[image.Digest]image.Digest // verified, by blob
	Counts  finding.LayerCounts
}

// Reasons to give an image back that waits.
var (
	ErrPaused   = errors.New("join: the image's registry is paused")
	ErrStopping = errors.New("join: this process stops")
)

// Wait blocks until all layers are known. Its errors: reason.Refuse with the verdict's code when a
// layer can not become facts; reason.Retry when the plan must be begun again; ErrPaused, ErrStopping; the
// context's.
func (j *Join) Wait(ctx context.Context, n Need) (Result, error) {
	w := newWait(j, n)
	// Registered before the first look: a notice that comes between the look and the wait is not lost.
	defer j.register(w.hold)()
	if err := w.look(ctx, w.keys()); err != nil {
		return w.result(), err
	}
	timer := time.NewTimer(jitter(j.cfg.Recheck))
	defer timer.Stop()
	for told := false; len(w.missing) > 0; {
		if !told {
			n.Progress(ctx, w.blobs())
			told = true
		}
		var keys []string
		select {
		case <-ctx.Done():
			return w.result(), ctx.Err()
		case <-n.Stale:
			return w.result(), reason.Retryf(reason.WrongAnalysis, "scanners announced another analysis")
		case <-n.Paused:
			return w.result(), ErrPaused
		case <-n.Stopping:
			return w.result(), ErrStopping
		case <-w.hold.wake:
			keys = j.take(w.hold)
		case <-timer.C:
			if err := w.reachable(ctx); err != nil {
				return w.result(), err
			}
			timer.Reset(jitter(j.cfg.Recheck))
			keys, told = w.keys(), false
		}
		before := len(w.missing)
		if err := w.look(ctx, keys); err != nil {
			return w.result(), err
		}
		if !told || before > len(w.missing) {
			continue
		}
		// The notice was for a verdict on another source, or its job is not acknowledged yet: ours is
		// refused for a moment more.
		timer.Reset(min(soon, j.cfg.Recheck))
	}
	return w.result(), nil
}

// soon is how long a layer that was decided for somebody else, but not for us, is left alone.
const soon = 300 * time.Millisecond

// jitter spreads the looks of images that began to wait together.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// wait is the state of one Wait.
type wait struct {
	join    *Join
	need    Need
	hold    *hold
	order   []string               // all keys, in the image's order
	missing map[string]image.Layer // by key
	queued  map[string]bool        // this plan's job was accepted, and nobody else's made the facts
	waited  map[string]bool        // missing at the first look
	found   map[image.Digest]image.Digest
	listed  int
}

func newWait(j *Join, n Need) *wait {
	w := &wait{
		join: j, need: n,
		missing: map[string]image.Layer{},
		queued:  map[string]bool{},
		waited:  map[string]bool{},
		found:   map[image.Digest]image.Digest{},
		listed:  len(n.Image.Layers),
	}
	for _, l := range n.Image.Layers {
		k := work.LayerKey(l.Blob, n.Analysis)
		if _, twice := w.missing[k]; !twice {
			w.missing[k] = l
			w.order = append(w.order, k)
		}
	}
	w.hold = newHold(w.order)
	return w
}

func (w *wait) keys() []string {
	var out []string
	for _, k := range w.order {
		if _, ok := w.missing[k]; ok {
			out = append(out, k)
		}
	}
	return out
}

func (w *wait) blobs() []image.Digest {
	var out []image.Digest
	for _, k := range w.keys() {
		out = append(out, w.missing[k].Blob)
	}
	return out
}

func (w *wait) result() Result {
	c := finding.LayerCounts{Seen: w.listed, Analysed: len(w.queued)}
	for k := range w.waited {
		if !w.queued[k] {
			c.Waited++
		}
	}
	// A blob that is listed again needs nothing more: the repetition is known.
	c.Known = c.Seen - c.Waited - c.Analysed
	return Result{DiffIDs: w.found, Counts: c}
}

// look decides each key, and queues those that nobody has decided.
func (w *wait) look(ctx context.Context, keys []string) error {
	for _, k := range keys {
		l, ok := w.missing[k]
		if !ok {
			continue
		}
		known, err := w.check(ctx, k, l)
		if err != nil {
			return err
		}
		if known {
			continue
		}
		w.waited[k] = true
		queued, err := w.join.cfg.Queue.QueueLayer(ctx, w.job(k, l))
		if err != nil {
			return fmt.Errorf("queue layer %s: %w", l.Blob, err)
		}
		if !queued {
			continue
		}
		w.queued[k] = true
		// Accepted may also mean that somebody else's job was done between the check and the publish: there
		// is no need to wait until ours has found that out.
		if _, err = w.check(ctx, k, l); err != nil {
			return err
		}
	}
	return nil
}

func (w *wait) job(k string, l image.Layer) work.LayerJob {
	return work.LayerJob{
		Key:        k,
		Analysis:   w.need.Analysis,
		Host:       w.need.Image.Host,
		Repository: w.need.Image.Repository,
		Layer:      l,
		Pool:       w.need.Pool,
		Class:      work.ClassOf(l.Size),
		Lane:       w.need.Lane,
		Origin:     w.need.Origin,
	}
}

// check looks one layer up. A known one is no longer missing.
func (w *wait) check(ctx context.Context, k string, l image.Layer) (known bool, err error) {
	store, host, repository := w.join.cfg.Store, w.need.Image.Host, w.need.Image.Repository
	source := facts.SourceVerdictKey(k, host, repository, l.Size)
	// Its own first: what is known of the bytes, wherever they were read, is only for who holds them.
	for _, vk := range []string{source, facts.VerdictKey(k)} {
		v, err := store.Verdict(ctx, vk)
		if errors.Is(err, facts.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("verdict on layer %s: %w", l.Blob, err)
		}
		if vk != source {
			if _, err := w.confirm(ctx, source, l); err != nil {
				return false, err
			}
		}
		return false, refusal(l, v)
	}
	rec, err := store.Record(ctx, l.Blob)
	if errors.Is(err, facts.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("record of layer %s: %w", l.Blob, err)
	}
	has, err := store.HasFacts(ctx, rec.DiffID, w.need.Analysis)
	if err != nil {
		return false, fmt.Errorf("facts of layer %s: %w", l.Blob, err)
	}
	if !has {
		return false, nil
	}
	asked, err := w.confirm(ctx, source, l)
	if err != nil {
		return false, err
	}
	if rec.Size != l.Size {
		return false, reason.Refusef(reason.SizeMismatch, "layer %s: %d bytes, the manifest says %d", l.Blob, rec.Size, l.Size)
	}
	if asked {
		// Reading a blob confirms its repository. So the job that made these facts was of another one: it
		// was done just before ours was accepted, or it replaced ours in a higher lane.
		delete(w.queued, k)
	}
	w.found[l.Blob] = rec.DiffID
	delete(w.missing, k)
	return true, nil
}

// refusal is the error that a verdict means for an image: a re-drive of it forgets the verdict.
func refusal(l image.Layer, v facts.Verdict) error {
	e := reason.Refusef(v.Code, "layer %s: %s", l.Blob, v.Detail)
	e.Verdicts = []string{v.Key}
	return e
}

// reachable fails an image that has waited past its time because its registry does not answer. One
// that waits for us, since scanners are busy or away, goes on.
func (w *wait) reachable(ctx context.Context) error {
	if w.join.cfg.Now().Before(w.need.GiveUp) {
		return nil
	}
	blob := w.blobs()[0]
	_, err := w.join.cfg.Blobs.HasBlob(ctx, w.need.Image.Host, w.need.Image.Repository, blob)
	if err != nil {
		return fmt.Errorf("ask for layer %s: %w", blob, err)
	}
	w.join.cfg.Logger.WarnContext(ctx, "image waits for scanners past its time",
		"image", w.need.Image.String(), "missing", len(w.missing))
	return nil
}
