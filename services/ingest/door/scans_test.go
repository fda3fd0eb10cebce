package door

import (
	"testing"

	"github.com/pratique-sec/pratique/pkg/reason"
)

func FuzzScanRequest(f *testing.F) {
	for _, s := range []string{
		`{"reference":"nginx"}`, `{"reference":"a.example:5000/b/c:v1@sha256:0123","platforms":["linux/arm64/v8"]}`,
		`{"reference":5}`, `{"platforms":[{}]}`, `[]`, `{`, "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		ref, platforms, err := parseScan(body)
		if err != nil {
			if e := reason.Of(err); e.Kind != reason.Refuse || statusOf(e) >= 500 {
				t.Fatalf("a body is the caller's matter: %v", err)
			}
			return
		}
		if err := ref.Validate(); err != nil {
			t.Fatalf("accepted %q: %v", body, err)
		}
		if ref.Tag == "" && ref.Digest == "" || len(platforms) > maxPlatforms {
			t.Fatalf("accepted %q as %v for %v", body, ref, platforms)
		}
		if id := requestEventID("me", "key", ref, platforms); id != requestEventID("me", "key", ref, platforms) || len(id) != 64 {
			t.Fatalf("event id %q", id)
		}
	})
}
