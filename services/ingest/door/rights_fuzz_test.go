package door

import (
	"strings"
	"testing"

	"github.com/pratique-sec/pratique/pkg/image"
)

// A pattern that is accepted covers what it says and nothing beside: nothing of another host, and of its
// own only the repository itself and what is below it.
func FuzzPattern(f *testing.F) {
	for _, s := range [][3]string{
		{"registry.example/team-a", "registry.example", "team-a/api"}, {"registry.example", "registry.example:5000", "a"},
		{"*", "a.example", "b"}, {"a.example/b", "a.example", "bb"}, {"a.example/", "a.example", "b"}, {"", "", ""},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, pattern, host, repository string) {
		if checkRepositories(pattern) != nil || image.CheckHost(host) != nil || image.CheckRepository(repository) != nil {
			return
		}
		want := pattern == "*" || pattern == host || (host+"/"+repository+"/") == pattern+"/" || strings.HasPrefix(host+"/"+repository, pattern+"/")
		if got := covered([]string{pattern}, host, repository); got != want {
			t.Fatalf("%q covers %s/%s: %v, want %v", pattern, host, repository, got, want)
		}
	})
}

func FuzzTokenFile(f *testing.F) {
	f.Add([]byte("# ci\nfirst-token-0123456789\n\n second-token-0123456789\r\n"), 2)
	f.Add([]byte("short"), 0)
	f.Fuzz(func(t *testing.T, body []byte, most int) {
		sums, err := parseTokens(body, most)
		if err == nil && (len(sums) == 0 || most > 0 && len(sums) > most) {
			t.Fatalf("%d secrets of at most %d", len(sums), most)
		}
	})
}

func TestClusters(t *testing.T) {
	c := &Caller{t: Token{Submit: Submit{Manifests: []string{"prod-*", "staging"}}}}
	for cluster, want := range map[string]bool{"prod-eu": true, "prod-": true, "staging": true, "prod": false, "staging2": false, "a/prod-eu": false, "prod-a/b": false, "": false} {
		if c.MaySubmitManifests(cluster) != want {
			t.Errorf("cluster %q: %v", cluster, !want)
		}
	}
	if (&Caller{}).MaySubmitManifests("x") || !anybody.MaySubmitManifests("x") {
		t.Error("nobody may, or anybody may not")
	}
}
