package registry

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/pratique-sec/pratique/pkg/reason"
)

// script puts a credential helper into the PATH.
func script(t *testing.T, name, body string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, helperPrefix+name), []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+"/usr/bin"+string(os.PathListSeparator)+"/bin")
}

// A helper that never answers is ended, and what it started with it holds nobody up.
func TestAHelperThatHangsIsEnded(t *testing.T) {
	script(t, "hangs", "sleep 3600 & sleep 3600\n")
	h := newHelpers()
	h.patience = 50 * time.Millisecond
	start := time.Now()
	_, err := h.ask(t.Context(), "hangs", "registry.example")
	if e := reason.Of(err); err == nil || e.Kind != reason.Retry || e.Code != reason.Denied || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.ask(ctx, "hangs", "registry.example"); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who went away is told %v", err)
	}
}

func TestAnswersOfHelpersAreRemembered(t *testing.T) {
	calls := filepath.Join(t.TempDir(), "calls")
	script(t, "counts", "echo x >>"+calls+`
printf '{"Username":"<token>","Secret":"s"}'
`)
	h := newHelpers()
	clock := time.Now()
	h.now = func() time.Time { return clock }
	asked := func() int {
		a, err := h.ask(t.Context(), "counts", "registry.example")
		if err != nil || a != (authn.AuthConfig{IdentityToken: "s"}) {
			t.Fatalf("answer %+v, %v", a, err)
		}
		b, err := os.ReadFile(calls)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), "x")
	}
	if n := asked() + asked(); n != 2 {
		t.Errorf("run more than once for two questions")
	}
	clock = clock.Add(2 * helperMemory)
	if n := asked(); n != 2 {
		t.Errorf("run %d times, want again after a while", n)
	}
	h.forget()
	if n := asked(); n != 3 {
		t.Errorf("run %d times, want again after a denial", n)
	}
}

func FuzzHelperAnswer(f *testing.F) {
	for _, s := range []string{`{"ServerURL":"x","Username":"me","Secret":"p"}`, `{"Username":"<token>","Secret":"t"}`, `{"Secret":1}`, "", "null", "[]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		a, err := decodeHelper(answer, func(format string, args ...any) (authn.AuthConfig, error) {
			return authn.AuthConfig{}, reason.Retryf(reason.Denied, format, args...)
		})
		if (err == nil) != (a.Password != "" || a.IdentityToken != "") {
			t.Fatalf("%+v, %v", a, err)
		}
	})
}

// Keys that come to the same never depend on the order of a map.
func FuzzDockerNames(f *testing.F) {
	f.Add("https://index.docker.io/v1/", "docker.io")
	f.Add("https://registry.example/v2/", "REGISTRY.example")
	f.Fuzz(func(t *testing.T, a, b string) {
		first := named(map[string]string{a: "a", b: "b"})
		for range 8 {
			if again := named(map[string]string{a: "a", b: "b"}); len(again) != len(first) || again[a] != first[a] || again[b] != first[b] {
				t.Fatalf("%q and %q: %v, then %v", a, b, first, again)
			}
		}
	})
}

func TestDockerHubIsWrittenInManyWays(t *testing.T) {
	for _, key := range []string{"docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io", "https://docker.io/"} {
		if got := named(map[string]int{key: 1}); got["docker.io"].value != 1 {
			t.Errorf("%s: %v", key, got)
		}
	}
}

func FuzzPatternDomain(f *testing.F) {
	for _, s := range []string{"*.example.com", "*", "*.com", "a*.b.c", "10.*.2.3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		if checkPattern(pattern) == nil && isPattern(pattern) && hasDomain(pattern) && matches(pattern, "evil.test") {
			t.Fatalf("%q has a domain, and fits another", pattern)
		}
	})
}
