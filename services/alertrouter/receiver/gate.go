package receiver

import (
	"sync"
	"time"
)

const (
	maxInFlight = 4                      // to one integration of one receiver
	busyWait    = 200 * time.Millisecond // until one of them has ended
)

// gate keeps a receiver that fails or hangs from taking up the slots of the others: while it fails, one
// message at a time tries it, and nobody during its pause.
type gate struct {
	mu       sync.Mutex
	inFlight int
	failures int // in a row
	until    time.Time
}

// enter answers 0 to who may try now; he must leave. Others wait so long.
func (g *gate) enter(now time.Time) (wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	most := maxInFlight
	if g.failures > 0 {
		most = 1
	}
	switch {
	case now.Before(g.until):
		return g.until.Sub(now)
	case g.inFlight >= most:
		return busyWait
	}
	g.inFlight++
	return 0
}

// leave notes how it went, and answers the pause that is left.
func (g *gate) leave(now time.Time, well bool, pause time.Duration) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	if well {
		g.failures, g.until = 0, time.Time{}
		return 0
	}
	g.failures++
	if until := now.Add(pause); until.After(g.until) {
		g.until = until
	}
	return g.until.Sub(now)
}

func (g *gate) failed() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failures
}
