package join

import (
	"maps"
	"slices"

	"github.com/pratique-sec/pratique/pkg/work"
)

// hold is what notices reach of a wait. Its fields are guarded by the join's lock.
type hold struct {
	keys  []string
	dirty map[string]struct{} // keys that a notice named since they were last taken
	wake  chan struct{}       // holds one token while dirty is not empty
}

func newHold(keys []string) *hold {
	return &hold{keys: keys, dirty: map[string]struct{}{}, wake: make(chan struct{}, 1)}
}

func (h *hold) mark(keys ...string) {
	for _, k := range keys {
		h.dirty[k] = struct{}{}
	}
	select {
	case h.wake <- struct{}{}:
	default: // it will find these keys when it takes the token that is there
	}
}

// register makes notices for the hold's keys reach it until the returned function is called.
func (j *Join) register(h *hold) (unregister func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, k := range h.keys {
		if j.waiting[k] == nil {
			j.waiting[k] = map[*hold]struct{}{}
		}
		j.waiting[k][h] = struct{}{}
	}
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		for _, k := range h.keys {
			delete(j.waiting[k], h)
			if len(j.waiting[k]) == 0 {
				delete(j.waiting, k)
			}
		}
	}
}

func (j *Join) take(h *hold) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	keys := slices.Sorted(maps.Keys(h.dirty))
	clear(h.dirty)
	return keys
}

// Notice wakes whoever waits for a layer. Whether it failed makes no difference: both are looked up.
func (j *Join) Notice(n work.Notice) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for h := range j.waiting[n.Key] {
		h.mark(n.Key)
	}
}

// Gap wakes everybody: notices may have been lost.
func (j *Join) Gap() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for k, holds := range j.waiting {
		for h := range holds {
			h.mark(k)
		}
	}
}
