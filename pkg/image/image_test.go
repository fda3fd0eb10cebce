package image_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pratique-sec/pratique/pkg/image"
)

var hexA = strings.Repeat("a", 64)

func TestParseDigest(t *testing.T) {
	good := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	d, err := image.ParseDigest(good)
	if err != nil || string(d) != good || d.Hex() != strings.Repeat("0123456789abcdef", 4) {
		t.Fatalf("%q, %v", d, err)
	}
	for _, bad := range []string{"", hexA, "sha256:", "sha256:" + hexA[1:], "sha256:" + hexA + "a", "sha256:" + strings.ToUpper(hexA),
		"SHA256:" + hexA, "sha512:" + hexA + hexA, "sha256:" + hexA[:63] + "g", "sha256:" + hexA[:63] + "\n", " sha256:" + hexA, "sha256:" + strings.Repeat("x", 1<<20)} {
		_, err := image.ParseDigest(bad)
		if err == nil {
			t.Errorf("%.80q was accepted", bad)
		} else if len(err.Error()) > 500 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
	if got := image.DigestOf(nil); got != "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("digest of nothing: %s", got)
	}
}

func TestParseReference(t *testing.T) {
	for in, want := range map[string]string{
		"nginx":                                 "docker.io/library/nginx:latest",
		"nginx:1.25":                            "docker.io/library/nginx:1.25",
		"nginx@sha256:" + hexA:                  "docker.io/library/nginx@sha256:" + hexA,
		"nginx:1.25@sha256:" + hexA:             "docker.io/library/nginx:1.25@sha256:" + hexA,
		"team/app":                              "docker.io/team/app:latest",
		"docker.io/nginx":                       "docker.io/library/nginx:latest",
		"index.docker.io/library/nginx":         "docker.io/library/nginx:latest",
		"localhost/app":                         "localhost/app:latest",
		"localhost:5000/app":                    "localhost:5000/app:latest",
		"Registry.Example/app":                  "registry.example/app:latest",
		"registry.example:5000/a/b__c/d--e.f:T": "registry.example:5000/a/b__c/d--e.f:T",
		"127.0.0.1:5000/app:v1":                 "127.0.0.1:5000/app:v1",
		"[::1]:5000/app":                        "[::1]:5000/app:latest",
		"[2001:db8::1]/app":                     "[2001:db8::1]/app:latest",
	} {
		r, err := image.ParseReference(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if r.String() != want {
			t.Errorf("%q: %s, want %s", in, r, want)
		}
		if again, err := image.ParseReference(r.String()); err != nil || again != r {
			t.Errorf("%q does not survive its own form: %+v, %v", in, again, err)
		}
	}
	for _, bad := range []string{"", ":", "@", "/", "nginx:", "nginx@", "NGINX", "a//b", "/a", "a/", "-a", "a-", "a..b", "a___b", "a._b", "a_-b",
		"nginx:.x", "nginx:-x", "nginx:a b", "nginx:" + strings.Repeat("a", 129), "https://registry.example/app", "registry.example:0/app",
		"registry.example:65536/app", "registry.example:+80/app", "registry.example:/app", "registry..example/app", "-registry.example/app",
		"registry.example-/app", "user@registry.example/app", "registry.example/../app", "registry.example/app?x", "registry.example/app#x",
		"[::1/app", "[::1]x/app", "[fe80::1%25eth0]/app", "[127.0.0.1]/app", ".a/app", "réseau.example/app", "a/b\x00",
		strings.Repeat("a/", 127) + strings.Repeat("a", 10), strings.Repeat("a", 100_000)} {
		if r, err := image.ParseReference(bad); err == nil {
			t.Errorf("%.80q was accepted as %s", bad, r)
		}
	}
}

// FuzzParseReference: what is accepted is well formed and is read back from what it prints.
func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"nginx", "a.b:1/c/d:e@sha256:" + hexA, "[::1]:5000/app", "localhost/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := image.ParseReference(s)
		if err != nil {
			return
		}
		if err := r.Validate(); err != nil {
			t.Fatalf("%q became %+v: %v", s, r, err)
		}
		if again, err := image.ParseReference(r.String()); err != nil || again != r {
			t.Fatalf("%q: %+v printed as %s is read as %+v, %v", s, r, r, again, err)
		}
	})
}

func TestValidate(t *testing.T) {
	good := image.Reference{Host: "registry.example", Repository: "app"}
	if err := good.Validate(); err != nil {
		t.Errorf("a repository: %v", err)
	}
	for _, bad := range []image.Reference{
		{Repository: "app"}, {Host: "registry.example"}, {Host: "Registry.example", Repository: "app"}, {Host: "registry.example", Repository: "App"},
		{Host: "registry.example", Repository: "app", Tag: "a/b"}, {Host: "registry.example", Repository: "app", Digest: "sha256:x"},
	} {
		if err := bad.Validate(); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestPlatform(t *testing.T) {
	for s, token := range map[string]string{"linux/amd64": "linux-amd64", "linux/arm64/v8": "linux-arm64-v8", "windows/amd64": "windows-amd64"} {
		p, err := image.ParsePlatform(s)
		if err != nil || p.String() != s || p.Token() != token {
			t.Errorf("%s: %+v, %s, %s, %v", s, p, p, p.Token(), err)
		}
	}
	if p := (image.Platform{}); p.String() != "" || p.Token() != "" {
		t.Errorf("no platform prints %q", p)
	}
	for _, bad := range []string{"", "linux", "linux/", "/amd64", "linux/amd64/", "linux/arm64/v8/x", "Linux/amd64", "linux/amd.64", "linux/amd-64", "linux/*", "linux/" + strings.Repeat("a", 33)} {
		if p, err := image.ParsePlatform(bad); err == nil {
			t.Errorf("%q was accepted as %s", bad, p)
		}
	}
	for in, want := range map[string]string{
		"linux/amd64/v1": "linux/amd64", "linux/amd64/v3": "linux/amd64/v3", "linux/arm64/v8": "linux/arm64", "linux/arm64": "linux/arm64",
		"linux/arm": "linux/arm/v7", "linux/arm/7": "linux/arm/v7", "linux/arm/6": "linux/arm/v6", "linux/arm/v6": "linux/arm/v6",
	} {
		p, err := image.ParsePlatform(in)
		if err != nil || p.Normal().String() != want {
			t.Errorf("%s is %s normally, want %s (%v)", in, p.Normal(), want, err)
		}
	}
}

// Two platforms never share a token.
func TestTokensAreDistinct(t *testing.T) {
	part := rapid.SampledFrom([]string{"a", "a_b", "b", "v8", "linux"})
	gen := rapid.Custom(func(t *rapid.T) image.Platform {
		p := image.Platform{OS: part.Draw(t, "os"), Architecture: part.Draw(t, "architecture")}
		if rapid.Bool().Draw(t, "has variant") {
			p.Variant = part.Draw(t, "variant")
		}
		return p
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		if (a.Token() == b.Token()) != (a == b) {
			t.Fatalf("%s and %s: tokens %s and %s", a, b, a.Token(), b.Token())
		}
	})
}
