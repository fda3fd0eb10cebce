package layercache

import (
	"context"
	"sync"
	"time"

	"github.com/pratique-sec/pratique/pkg/reason"
)

// analysis is what the scanners announced that they do: what facts depend on beside content.
type analysis struct {
	mu    sync.Mutex
	id    string
	stale chan struct{} // closed when id is replaced
}

func newAnalysis() *analysis { return &analysis{stale: make(chan struct{})} }

func (a *analysis) set(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if id == a.id {
		return
	}
	close(a.stale)
	a.id, a.stale = id, make(chan struct{})
}

func (a *analysis) get() (id string, stale <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.id, a.stale
}

// A planner that starts with its scanners gives them announcePatience to announce themselves before
// the image is handed back for a while.
const (
	announcePatience = 2 * time.Second
	announceRetry    = 5 * time.Second
)

// wait returns the current analysis, and a channel that is closed when it is no longer current. Its
// error is reason.NoScanner, to be retried, or the context's.
func (a *analysis) wait(ctx context.Context) (string, <-chan struct{}, error) {
	patience := time.NewTimer(announcePatience)
	defer patience.Stop()
	for {
		id, stale := a.get()
		if id != "" {
			return id, stale, nil
		}
		select {
		case <-stale:
		case <-ctx.Done():
			return "", nil, ctx.Err()
		case <-patience.C:
			err := reason.Retryf(reason.NoScanner, "no scanner has announced its analysis; start one")
			err.RetryAfter = announceRetry
			return "", nil, err
		}
	}
}
