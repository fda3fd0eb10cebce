package track_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pratique-sec/pratique/pkg/key/keytest"
	"github.com/pratique-sec/pratique/pkg/track"
)

func TestDefaultGolden(t *testing.T) {
	p := track.Default()
	for _, v := range keytest.Load(t).Tracks {
		if name, family := p.Of(v.Tag); name != v.Track || family != v.Family {
			t.Errorf("%s: track %q, family %v; frozen as %q, %v", v.Tag, name, family, v.Track, v.Family)
		}
	}
}

func TestConfiguredPatterns(t *testing.T) {
	p, err := track.Parse([]string{"pr-{number}", "{sha}", "{name}-{date}-slim"})
	if err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string]string{
		"pr-12": "pr-*", "pr-x": "pr-x", "1a2b3c4": "*", "bookworm-20240102-slim": "bookworm-*-slim",
		"main-1a2b3c4": "main-1a2b3c4", "xpr-12": "xpr-12", "pr-12x": "pr-12x",
	} {
		if name, family := p.Of(tag); name != want || family != (name != tag) {
			t.Errorf("%s: track %q, family %v; want %q", tag, name, family, want)
		}
	}
	if name, family := (track.Patterns{}).Of("main-1a2b3c4"); family || name != "main-1a2b3c4" {
		t.Errorf("no patterns: track %q, family %v", name, family)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, bad := range []string{"", "main", "{name}", "{nope}", "main-{sha", "main-sha}", "{}", "{name}-*", strings.Repeat("a", 300) + "{sha}"} {
		if _, err := track.Parse([]string{bad}); err == nil {
			t.Errorf("%q was accepted", bad)
		} else if bad != "" && len(bad) < 100 && !strings.Contains(err.Error(), bad) {
			t.Errorf("the error does not name the pattern %q: %v", bad, err)
		}
	}
	if _, err := track.Parse(make([]string, 1000)); err == nil {
		t.Error("1000 patterns were accepted")
	}
}

// A family is never a tag, and members that differ only in their hash are of one family.
func TestFamiliesProperty(t *testing.T) {
	p := track.Default()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[A-Za-z0-9_][A-Za-z0-9._-]{0,20}`).Draw(t, "name")
		sha := rapid.StringMatching(`[0-9][0-9a-f]{6,39}`)
		a, familyA := p.Of(name + "-" + sha.Draw(t, "first"))
		b, familyB := p.Of(name + "-" + sha.Draw(t, "second"))
		if !familyA || !familyB || a != b || !strings.Contains(a, "*") {
			t.Fatalf("tracks %q (%v) and %q (%v)", a, familyA, b, familyB)
		}
	})
}
