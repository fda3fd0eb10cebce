package bus_test

import (
	"slices"
	"testing"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/image"
)

func TestSourcesAreThoseOfTheDigest(t *testing.T) {
	b := bustest.New(t, bus.Config{}, bus.Options{})
	want := []image.Reference{
		{Host: "registry.example:5000", Repository: "team-a/api"},
		{Host: "registry.example:5000", Repository: "team-b"},
	}
	for range 2 { // again is nothing new
		for _, r := range want {
			must(t, b.PutSource(t.Context(), digest("a"), r.Host, r.Repository))
		}
	}
	must(t, b.PutSource(t.Context(), digest("b"), "registry.example:5000", "team-c"))
	got, err := b.Sources(t.Context(), digest("a"))
	must(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("sources %v, want %v", got, want)
	}
	if none, err := b.Sources(t.Context(), digest("c")); err != nil || len(none) != 0 {
		t.Errorf("sources of nothing: %v, %v", none, err)
	}
}
