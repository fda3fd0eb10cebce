package join

import (
	"errors"
	"testing"
	"testing/synctest"
)

// An image that only waits is given back at once when its registry is paused or the process is to stop,
// and nobody is left who would be woken for it.
func TestWhoWaitsCanLeave(t *testing.T) {
	for name, c := range map[string]struct {
		word func(n *Need) *<-chan struct{}
		want error
	}{
		"the registry is paused": {func(n *Need) *<-chan struct{} { return &n.Paused }, ErrPaused},
		"the process stops":      {func(n *Need) *<-chan struct{} { return &n.Stopping }, ErrStopping},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				j, n, word := w.join(), need(layer("a"), layer("b")), make(chan struct{})
				*c.word(&n) = word
				later(func() { close(word) })
				if _, err := j.Wait(t.Context(), n); !errors.Is(err, c.want) {
					t.Errorf("error %v, want %v", err, c.want)
				}
				if len(w.accepted) != 2 {
					t.Errorf("queued %v", w.accepted)
				}
				if len(j.waiting) != 0 {
					t.Errorf("still waiting: %v", j.waiting)
				}
			})
		})
	}
}
