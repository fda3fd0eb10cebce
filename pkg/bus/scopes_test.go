package bus_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"pgregory.net/rapid"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/finding"
)

// A subscriber's filter lets through the subjects of its scope, all of them and nothing else, whatever
// repositories and tracks are called.
func TestFiltersAreScopes(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	name := rapid.SampledFrom([]string{"a", "b", "ab", "a.b", "linux-amd64"})
	path := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(name, 1, 4).Draw(t, "components"), "/")
	})
	rapid.Check(t, func(t *rapid.T) {
		repository, track := "r.example/"+path.Draw(t, "repository"), name.Draw(t, "track")
		scope := "r.example/" + path.Draw(t, "scope")
		if rapid.Bool().Draw(t, "registry") {
			scope = "r.example"
		}
		tokens := append(strings.Split(repository, "/"), track, "linux-amd64")
		for i, token := range tokens {
			tokens[i] = bus.Token(token)
		}
		subject := "pratique.json.finding.v1.vuln.opened.high." + strings.Join(tokens, ".")
		filter := b.MirrorSubjects(bus.Subscription{Class: finding.ClassVuln, Scopes: []string{scope}})[0]
		want := repository == scope || strings.HasPrefix(repository, scope+"/")
		if got := server.SubjectsCollide(subject, filter); got != want {
			t.Fatalf("%s:%s in the scope %s: %v, want %v (%s against %s)", repository, track, scope, got, want, subject, filter)
		}
	})
}
