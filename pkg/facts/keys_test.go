package facts_test

import (
	"testing"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/key/keytest"
)

func TestVerdictKeys(t *testing.T) {
	g := keytest.Load(t)
	layer := g.Want(t, "layer")
	if got := facts.VerdictKey(layer); got != layer {
		t.Errorf("verdict on content: %s, want the layer's key %s", got, layer)
	}
	if got, want := facts.SourceVerdictKey(layer, "registry.example:5000", "team-a/api", 4096), g.Want(t, "verdict/source and size"); got != want {
		t.Errorf("verdict on a source: %s, frozen as %s", got, want)
	}
}
