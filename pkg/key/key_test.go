package key_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/pratique-sec/pratique/pkg/key"
	"github.com/pratique-sec/pratique/pkg/key/keytest"
)

func TestGolden(t *testing.T) {
	for _, v := range keytest.Load(t).Keys {
		if got := key.Of(v.Recipe, v.Fields...); got != v.Want {
			t.Errorf("%s: %s, frozen as %s", v.Name, got, v.Want)
		}
	}
}

// Moving a boundary between fields, adding an empty one or naming another recipe is another key.
func TestFieldsDoNotRunTogether(t *testing.T) {
	field := rapid.StringMatching(`[ab\x00]{0,3}`)
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfN(field, 0, 4).Draw(t, "a")
		b := rapid.SliceOfN(field, 0, 4).Draw(t, "b")
		if same := key.Of("r", a...) == key.Of("r", b...); same != slices.Equal(a, b) {
			t.Fatalf("%q and %q: same key is %v", a, b, same)
		}
		if key.Of("r", a...) == key.Of("s", a...) {
			t.Fatal("the recipe does not count")
		}
	})
}
