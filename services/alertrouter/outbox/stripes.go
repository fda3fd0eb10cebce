package outbox

import (
	"hash/fnv"
	"slices"
	"sync"
)

// stripes are locks by name. They only spare goroutines of this process conflicts that they would have to
// repeat; other processes are told apart by revisions.
type stripes [256]sync.Mutex

// lock takes the locks of some names, always in the same order.
func (s *stripes) lock(names ...string) (unlock func()) {
	var at []int
	for _, n := range names {
		h := fnv.New32a()
		_, _ = h.Write([]byte(n)) // a hash never fails
		at = append(at, int(h.Sum32()%uint32(len(s))))
	}
	slices.Sort(at)
	at = slices.Compact(at)
	for _, i := range at {
		s[i].Lock()
	}
	return func() {
		for _, i := range at {
			s[i].Unlock()
		}
	}
}
