package fate_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
)

func TestReferenceKey(t *testing.T) {
	digest := image.Digest("sha256:" + strings.Repeat("a", 64))
	for _, c := range []struct {
		ref  image.Reference
		want string
	}{
		{image.Reference{Host: "registry.example:5000", Repository: "team-a/api", Tag: "v1.2"}, "ref.registry=2Eexample=3A5000.team-a.api.v1=2E2"},
		{image.Reference{Host: "localhost", Repository: "x", Tag: "t", Digest: digest}, "ref.localhost.x.t"},
		{image.Reference{Host: "localhost", Repository: "x", Digest: digest}, "ref.localhost.x.sha256=3A" + digest.Hex()},
		{image.Reference{Host: "localhost", Repository: "x"}, "ref.localhost.x.="},
	} {
		if got := fate.ReferenceKey(c.ref); got != c.want {
			t.Errorf("%s: %s, want %s", c.ref, got, c.want)
		}
	}
}

// Whatever arrives, a key is one that a key-value bucket takes, and two references have two.
func TestKeysAreValidAndDistinct(t *testing.T) {
	valid := regexp.MustCompile(`^[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*$`)
	text := rapid.StringMatching(`[a-z.:=%/ ü*>]{0,4}`)
	rapid.Check(t, func(t *rapid.T) {
		ref := func(label string) image.Reference {
			return image.Reference{Host: text.Draw(t, label+" host"), Repository: text.Draw(t, label+" repository"), Tag: text.Draw(t, label+" tag")}
		}
		a, b := ref("a"), ref("b")
		ka, kb := fate.ReferenceKey(a), fate.ReferenceKey(b)
		if !valid.MatchString(ka) || !valid.MatchString(fate.RequestKey(a.Tag)) {
			t.Fatalf("%q is no key", ka)
		}
		if (ka == kb) != (a == b) {
			t.Fatalf("%+v and %+v have the keys %q and %q", a, b, ka, kb)
		}
	})
}

func TestRequestID(t *testing.T) {
	id := fate.RequestID(42, strings.Repeat("0123456789abcdef", 4))
	if id != "42-0123456789abcdef" {
		t.Fatalf("request id %q", id)
	}
	seq, prefix, err := fate.ParseRequestID(id)
	if err != nil || seq != 42 || prefix != "0123456789abcdef" {
		t.Fatalf("%q parsed to %d, %q, %v", id, seq, prefix, err)
	}
	for _, bad := range []string{"", "42", "42-", "-0123456789abcdef", "0-0123456789abcdef", "042-0123456789abcdef", "+42-0123456789abcdef",
		"42-0123456789ABCDEF", "42-0123456789abcde", "42-0123456789abcdef0", "42-01234567 9abcdef", "99999999999999999999-0123456789abcdef"} {
		if _, _, err := fate.ParseRequestID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
