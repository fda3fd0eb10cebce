package bus

import "sync"

// imageShares are how much of its budget a planner gives to each lane and all below it, in percent. An
// image is held until its layers are known, which in a backfill takes as long as the backfill: were all
// held images of it, a push could not even be planned.
var imageShares = []int{100, 80, 50, 25}

// slots are what one process has in hand of a queue, by lane. Safe for concurrent use.
type slots struct {
	limits []int         // of a lane and all below it
	freed  chan struct{} // holds a token when there is room where there was none

	mu   sync.Mutex
	held []int
}

// newSlots makes as many as there are, of which the lanes have these shares; no shares: each lane may have
// all.
func newSlots(total, lanes int, shares []int) *slots {
	s := &slots{limits: make([]int, lanes), held: make([]int, lanes), freed: make(chan struct{}, 1)}
	for l := range s.limits {
		s.limits[l] = total
		if l < len(shares) {
			s.limits[l] = max(1, total*shares[l]/100)
		}
	}
	return s
}

// room tells whether one more job of a lane may be taken.
func (s *slots) room(lane int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fits(lane)
}

// fits: one more of a lane counts in its own limit and in those of all above it.
func (s *slots) fits(lane int) bool {
	sum := 0
	for l := len(s.held) - 1; l >= 0; l-- {
		sum += s.held[l]
		if l <= lane && sum >= s.limits[l] {
			return false
		}
	}
	return true
}

func (s *slots) take(lane int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[lane]++
}

func (s *slots) give(lane int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	short := !s.fits(len(s.held) - 1) // in the lowest lane, if anywhere
	s.held[lane]--
	if !short {
		return
	}
	select {
	case s.freed <- struct{}{}:
	default:
	}
}
