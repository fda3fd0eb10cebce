package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
)

// yes is a registry that says it holds whatever it is asked for, and sends something of the right length.
func (m *moody) yes(w http.ResponseWriter, r *http.Request, blob bool) bool {
	m.shelf.mu.Lock()
	_, there := m.items[strings.TrimPrefix(r.URL.Path, "/v2/")]
	m.shelf.mu.Unlock()
	if !blob || there {
		return true
	}
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte("something else"))
	}
	return false
}

// A configured registry that is run by an attacker, who knows the manifest of another's image, is told
// nothing of its layers: not what is in them, and not that anybody has them.
func TestALyingRegistryGainsNothing(t *testing.T) {
	s, liar := newShelf(t), newMoody(t)
	liar.becomes(liar.yes)
	content, diffID := archive(t, append(slices.Clone(bullseye[:4]), "var/lib/dpkg/status", status("secret", "1.0-1"))...)
	layer := s.layer("team-a/app", zip(t, content))
	s.image(t, "team-a/app", []entry{layer}, diffID)
	unknown := layer
	unknown.Digest = image.DigestOf([]byte("nobody's"))

	liar.image(t, "copies/manifest", []entry{layer}, diffID)
	liar.image(t, "claims/layer", []entry{layer, layer}, diffID, diffID)
	liar.image(t, "claims/nobodys", []entry{unknown, unknown}, diffID, diffID)

	p := start(t, options{hosts: []string{s.host, liar.host}, database: bullseyeDatabase(t)})
	owners := p.decided(p.request(s.host + "/team-a/app"))
	if owners.Outcome != report.Findings {
		t.Fatalf("the owner's image is %+v", owners)
	}
	words := map[string]string{}
	for _, name := range []string{"copies/manifest", "claims/layer", "claims/nobodys"} {
		got := p.decided(p.request(liar.host + "/" + name))
		if got.Outcome != report.Failed || got.Reason != reason.SizeMismatch && got.Reason != reason.DigestMismatch {
			t.Errorf("%s: %+v", name, got)
		}
		words[name] = strings.NewReplacer(name, "NAME", string(layer.Digest), "LAYER", string(unknown.Digest), "LAYER").Replace(got.Detail)
	}
	if words["claims/layer"] != words["claims/nobodys"] {
		t.Errorf("a layer that somebody has is refused with\n%s\none that nobody has with\n%s", words["claims/layer"], words["claims/nobodys"])
	}
	p.settle()
	var counts []int
	for _, scan := range p.scans() {
		if scan.Reference.Host == liar.host {
			counts = append(counts, scan.Layers.Known)
		}
	}
	if want := []int{0, 1, 1}; !slices.Equal(slices.Sorted(slices.Values(counts)), want) { // a layer that is listed again
		t.Errorf("known layers of the liar's images: %v, want %v", counts, want)
	}
	for asset, state := range p.states() {
		if asset.Host == liar.host && len(openFindings(state)) > 0 {
			t.Errorf("%s has findings", asset.Repository)
		}
	}
	sources, err := p.bus.Sources(t.Context(), owners.Digest)
	if want := []image.Reference{{Host: s.host, Repository: "team-a/app"}}; err != nil || !slices.Equal(sources, want) {
		t.Errorf("who may read the report: %v (%v), want %v", sources, err, want)
	}
}
