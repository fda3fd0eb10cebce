// Package keytest reads the frozen identity vectors, so that each package that owns a recipe can hold
// its own against them.
package keytest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Golden is proto/golden/ids.json: what the identity recipes of version 1 give.
type Golden struct {
	Keys []struct {
		Name, Recipe string
		Fields       []string
		Want         string
	}
	Canonical []struct {
		IDs  []string
		Want string
	}
	Paths []struct{ Path, Version, Want string }
	// Tracks are what the default patterns make of tags.
	Tracks []struct {
		Tag, Track string
		Family     bool
	}
}

// Load reads the vectors from the repository that the test runs in.
func Load(t testing.TB) Golden {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		body, err := os.ReadFile(filepath.Join(dir, "proto", "golden", "ids.json"))
		if err == nil {
			var g Golden
			if err := json.Unmarshal(body, &g); err != nil {
				t.Fatalf("golden vectors: %v", err)
			}
			if len(g.Keys) == 0 || len(g.Canonical) == 0 || len(g.Paths) == 0 || len(g.Tracks) == 0 {
				t.Fatal("golden vectors: a section is empty")
			}
			return g
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("golden vectors: no proto/golden/ids.json above this package")
		}
		dir = parent
	}
}

// Want is the key that a named vector freezes.
func (g Golden) Want(t testing.TB, name string) string {
	t.Helper()
	for _, v := range g.Keys {
		if v.Name == name {
			return v.Want
		}
	}
	t.Fatalf("golden vectors: no key %q", name)
	return ""
}
