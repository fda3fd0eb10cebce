package bus_test

import (
	"errors"
	"testing"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/breaker/breakertest"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/system"
)

func TestBreakersKeepTheContract(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	breakertest.Contract(t, b)
	must(t, b.PublishSystem(t.Context(), system.Notice{ID: "end", Kind: system.RegistryResumed}))
	enough := errors.New("enough")
	var told []string
	err := b.WatchSystem(t.Context(), 1, func(_ uint64, n system.Notice) error {
		if told = append(told, n.ID); n.ID == "end" {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || len(told) != 2 {
		t.Errorf("told %v (%v), want the notice once", told, err)
	}
}

// A state that can not be read is begun anew.
func TestUnreadableBreaker(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	_, err := b.Bucket("breakers").Put(t.Context(), bus.Key("registry.example"), []byte{0xff})
	must(t, err)
	s, _, err := b.UpdateBreaker(t.Context(), "registry.example", func(s *breaker.State) { s.Pauses = 1 })
	if err != nil || s.Pauses != 1 || s.Host != "registry.example" {
		t.Errorf("%+v, %v", s, err)
	}
	must(t, b.Breakers(t.Context(), func(s breaker.State) error {
		if s.Pauses != 1 {
			t.Errorf("stored %+v", s)
		}
		return nil
	}))
}
