package bus

import (
	"regexp"
	"testing"

	"pgregory.net/rapid"
)

func TestToken(t *testing.T) {
	for in, want := range map[string]string{
		"team-a_1":              "team-a_1",
		"registry.example:5000": "registry%2Eexample%3A5000",
		"main-*":                "main-%2A",
		"100%":                  "100%25",
		"":                      "%",
		"é":                     "%C3%A9",
	} {
		if got := Token(in); got != want {
			t.Errorf("Token(%q) = %q, want %q", in, got, want)
		}
	}
}

// Two different names must never meet on one subject or key: one team would read the other's.
func TestTokensAreOneToOne(t *testing.T) {
	valid := regexp.MustCompile(`^[-_=%a-zA-Z0-9]+$`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		for _, token := range []func(string) string{Token, keyToken} {
			if (token(a) == token(b)) != (a == b) {
				t.Fatalf("%q and %q: %q and %q", a, b, token(a), token(b))
			}
			if !valid.MatchString(token(a)) {
				t.Fatalf("%q is no token: %q", a, token(a))
			}
		}
		if back, ok := fromKeyToken(keyToken(a)); !ok || back != a {
			t.Fatalf("%q comes back as %q, %v", a, back, ok)
		}
		if back, ok := fromKeyToken(a); ok && keyToken(back) != a {
			t.Fatalf("%q is taken for the token of %q", a, back)
		}
	})
}

func TestParseJob(t *testing.T) {
	good := map[string]job{
		"pratique.work.push.image.abc":              {lane: "push", kind: "image", key: "abc"},
		"pratique.work.backfill.match.abc":          {lane: "backfill", kind: "match", key: "abc"},
		"pratique.work.interactive.layer.eu.xs.abc": {lane: "interactive", kind: "layer", pool: "eu", class: "xs", key: "abc"},
	}
	for subject, want := range good {
		if got, ok := parseJob("pratique", subject); !ok || got != want {
			t.Errorf("parseJob(%q) = %+v, %v, want %+v", subject, got, ok, want)
		}
	}
	for _, subject := range []string{
		"", "pratique.work", "other.work.push.image.abc", "pratique.event.push.image.abc", "pratique.work.urgent.image.abc",
		"pratique.work.push.layer.abc", "pratique.work.push.layer.eu.xxl.abc", "pratique.work.push.image.eu.xs.abc",
		"pratique.work.push.image.%", "pratique.work.push.alert.abc",
	} {
		if got, ok := parseJob("pratique", subject); ok {
			t.Errorf("parseJob(%q) = %+v, want none", subject, got)
		}
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	b := &Bus{cfg: Config{}.withDefaults()}
	within := func(attempt, units int) {
		t.Helper()
		got, want := b.backoff(attempt, maxBackoff).Seconds(), float64(units)
		if got < 0.8*want || got > 1.2*want {
			t.Errorf("attempt %d: %.1f s, want about %.0f", attempt, got, want)
		}
	}
	within(1, 1)
	within(2, 2)
	within(4, 8)
	within(10, maxBackoff)
	within(1_000_000, maxBackoff)
}
