package load

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/loadtest/internal/drive"
	"github.com/pratique-sec/pratique/loadtest/internal/real"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Target is what is loaded.
type Target struct {
	System *drive.System
	Host   string // of the registry that is pushed to
	Pool   *real.Pool
	// Silent: the registry tells ingest of pushes itself.
	Silent bool
}

const (
	workers = 32 // each does the steps of some of the tags, in their order
	quiet   = 2 * time.Second
)

// run is one execution of a plan.
type run struct {
	Target
	begin time.Time

	mu   sync.Mutex
	sent []sent
	late time.Duration // how far the steps fell behind their times, at most
}

// sent is a step that was done.
type sent struct {
	Step
	ref     image.Reference
	request string    // id of a submission
	told    time.Time // when the system was told
}

// Run does the steps at their times, waits until everything that must be judged is, at most for patience
// after the last step, and says how that went. What is lost or told twice is in the result, not an error.
func Run(ctx context.Context, t Target, steps []Step, patience time.Duration) (*Result, error) {
	r := &run{Target: t, begin: time.Now()}
	queues := make([]chan Step, workers)
	g, gctx := errgroup.WithContext(ctx)
	for i := range queues {
		queues[i] = make(chan Step, len(steps))
		g.Go(func() error { return r.work(gctx, queues[i]) })
	}
	err := r.dispatch(gctx, steps, queues)
	for _, q := range queues {
		close(q)
	}
	if werr := g.Wait(); werr != nil {
		err = werr
	}
	if err != nil {
		return nil, err
	}
	pushed := time.Since(r.begin)
	r.settle(ctx, patience)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return r.result(steps, pushed), nil
}

// dispatch hands steps out when they are due.
func (r *run) dispatch(ctx context.Context, steps []Step, queues []chan Step) error {
	due := time.NewTimer(0)
	defer due.Stop()
	for _, s := range steps {
		due.Reset(time.Until(r.begin.Add(s.At)))
		select {
		case <-due.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(s.Repository + ":" + s.Tag)) // a hash never fails
		queues[h.Sum32()%workers] <- s
	}
	return nil
}

func (r *run) work(ctx context.Context, queue <-chan Step) error {
	for s := range queue {
		if err := r.do(ctx, s); err != nil {
			return fmt.Errorf("%s:%s: %w", s.Repository, s.Tag, err)
		}
	}
	return nil
}

// do pushes or asks. A push is known before the system is told, or its outcome could come first.
func (r *run) do(ctx context.Context, s Step) error {
	done := sent{Step: s, ref: image.Reference{Host: r.Host, Repository: s.Repository, Tag: s.Tag}}
	behind := time.Since(r.begin.Add(s.At))
	var err error
	if s.Lane == work.Interactive {
		done.told = time.Now()
		done.request, err = r.System.Door.Request(ctx, done.ref)
	} else {
		err = r.push(ctx, s, &done)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late = max(r.late, behind)
	r.sent = append(r.sent, done)
	return nil
}

func (r *run) push(ctx context.Context, s Step, done *sent) error {
	img, err := r.Pool.Image(s.Label, s.Layers...)
	if err != nil {
		return err
	}
	d, err := img.Digest()
	if err != nil {
		return err
	}
	done.ref.Digest = image.Digest(d.String())
	done.told = time.Now() // a registry that tells of pushes does so before it answers
	if err := real.Push(ctx, r.Host, real.Image{Repository: s.Repository, Tag: s.Tag, Image: img}); err != nil {
		return err
	}
	if s.Lane == work.Backfill {
		done.told = time.Now()
		return r.System.Crawled(ctx, done.ref)
	}
	if r.Silent {
		return nil
	}
	done.told = time.Now()
	return r.System.Door.Notify(ctx, done.ref, img)
}

// settle waits for what must be judged, and then a little for what must not come.
func (r *run) settle(ctx context.Context, patience time.Duration) {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, s := range r.musts() {
		if _, err := r.outcome(bounded, s); err != nil {
			break // it is lost, and so may others be; result says
		}
	}
	select {
	case <-time.After(quiet):
	case <-ctx.Done():
	}
}

// musts are what no later step excuses: requests, and the last push of each tag.
func (r *run) musts() []sent {
	var out []sent
	last := map[string]sent{}
	for _, s := range r.sent {
		if s.request != "" {
			out = append(out, s)
			continue
		}
		last[s.ref.Repository+":"+s.ref.Tag] = s // one worker did a tag's steps: in their order
	}
	for _, s := range last {
		out = append(out, s)
	}
	return out
}

func (r *run) outcome(ctx context.Context, s sent) (drive.Outcome, error) {
	if s.request != "" {
		return r.System.Outcomes.Request(ctx, s.request)
	}
	return r.System.Outcomes.Push(ctx, s.ref)
}

// seen is the outcome if it is there.
func (r *run) seen(s sent) (drive.Outcome, bool) {
	if s.request != "" {
		return r.System.Outcomes.RequestSeen(s.request)
	}
	return r.System.Outcomes.PushSeen(s.ref)
}
