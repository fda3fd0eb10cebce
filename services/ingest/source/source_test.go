package source

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func hex64(c string) image.Digest { return image.Digest("sha256:" + strings.Repeat(c, 64)) }

func parse(t *testing.T, path string) Batch {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := distribution.Parse(body, now)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return b
}

// ids are checked apart: what matters of them is when they differ.
var ignoreID = cmpopts.IgnoreFields(event.Event{}, "ID")

func TestDistributionKeepsManifests(t *testing.T) {
	b := parse(t, "testdata/push-tag-and-blobs.json")
	want := []event.Event{{
		Kind: event.KindImage, Source: "distribution", Action: event.Push, Cause: event.CausePush,
		Reference: image.Reference{Host: "registry.example:5000", Repository: "team/app", Tag: "v1.2", Digest: hex64("c")},
		MediaType: "application/vnd.oci.image.index.v1+json", Actor: "ci",
		Claimed: time.Date(2026, 3, 1, 9, 0, 3, 5e8, time.UTC), Received: now,
	}}
	if d := cmp.Diff(want, b.Events, ignoreID); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[Drop]int{DropBlob: 2, DropMount: 1}, b.Dropped); d != "" {
		t.Errorf("dropped (-want +got):\n%s", d)
	}
}

func TestDistributionDeletes(t *testing.T) {
	b := parse(t, "testdata/deletes.json")
	var got []image.Reference
	for _, e := range b.Events {
		if e.Action != event.Delete || e.Cause != event.CauseDelete {
			t.Errorf("event is %s because of %s, want delete", e.Action, e.Cause)
		}
		got = append(got, e.Reference)
	}
	want := []image.Reference{
		{Host: "registry.example", Repository: "team/app", Tag: "v1"},
		{Host: "registry.example", Repository: "team/app", Digest: hex64("c")},
		{Host: "registry.example", Repository: "team/app"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("references (-want +got):\n%s", d)
	}
	// The last one named a digest that cannot be read: it must never become "the repository is gone".
	if b.Dropped[DropUnusable] != 1 {
		t.Errorf("dropped %v, want 1 unusable", b.Dropped)
	}
}

func TestDistributionKeepsWhatIsUsable(t *testing.T) {
	b := parse(t, "testdata/hostile.json")
	if d := cmp.Diff(map[Drop]int{DropUnusable: 5, DropAction: 1}, b.Dropped); d != "" {
		t.Errorf("dropped (-want +got):\n%s", d)
	}
	for i, field := range []string{"events[0]", "events[1]", "events[3].target.repository", "events[4].request.host", "events[5].target"} {
		if !strings.HasPrefix(b.Problems[i], field) {
			t.Errorf("problem %q does not name %s", b.Problems[i], field)
		}
	}
	if len(b.Events) != 1 {
		t.Fatalf("%d events, want 1", len(b.Events))
	}
	e := b.Events[0]
	if want := (image.Reference{Host: "registry.example", Repository: "team/app", Tag: "v1"}); e.Reference != want {
		t.Errorf("reference %v, want %v", e.Reference, want)
	}
	if !e.Claimed.IsZero() {
		t.Errorf("claimed %v, want none: it is in the future", e.Claimed)
	}
	if len(e.Unusable) != 2 || !strings.HasPrefix(e.Unusable[0], "target.digest: ") || !strings.HasPrefix(e.Unusable[1], "timestamp: ") {
		t.Errorf("unusable %q, want target.digest and timestamp", e.Unusable)
	}
}

func TestDistributionIDs(t *testing.T) {
	first, again := parse(t, "testdata/push-tag-and-blobs.json"), parse(t, "testdata/push-tag-and-blobs.json")
	if first.Events[0].ID != again.Events[0].ID || len(first.Events[0].ID) != 64 {
		t.Errorf("the same notification has the ids %q and %q", first.Events[0].ID, again.Events[0].ID)
	}
	seen := map[string]bool{}
	element := func(id, at, host, tag string) []byte {
		return []byte(`{"events":[{"id":"` + id + `","timestamp":"` + at + `","action":"push","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","repository":"a","tag":"` + tag + `"},"request":{"host":"` + host + `"}}]}`)
	}
	for _, body := range [][]byte{
		element("1", "2026-01-01T00:00:00Z", "h.example", "t"),
		element("2", "2026-01-01T00:00:00Z", "h.example", "t"),
		element("1", "2026-01-01T00:00:01Z", "h.example", "t"),
		element("1", "2026-01-01T00:00:00Z", "g.example", "t"),
		element("1", "2026-01-01T00:00:00Z", "h.example", "u"),
	} {
		b, err := distribution.Parse(body, now)
		if err != nil || len(b.Events) != 1 {
			t.Fatalf("%s: %d events, %v", body, len(b.Events), err)
		}
		seen[b.Events[0].ID] = true
	}
	if len(seen) != 5 {
		t.Errorf("%d ids of 5 different notifications", len(seen))
	}
}

func TestDistributionRefusesOtherBodies(t *testing.T) {
	for name, tc := range map[string]struct {
		body string
		code reason.Code
	}{
		"nothing":      {"", reason.BadRequest},
		"no JSON":      {"hello", reason.BadRequest},
		"an array":     {"[]", reason.BadRequest},
		"no events":    {`{"target":{}}`, reason.BadRequest},
		"null":         {`{"events":null}`, reason.BadRequest},
		"wrong shape":  {`{"events":"x"}`, reason.BadRequest},
		"too many":     {`{"events":[` + strings.Repeat("0,", maxEnvelope) + `0]}`, reason.OverBound},
		"nested deep":  {strings.Repeat(`{"events":[`, 20000), reason.BadRequest},
		"cut in two":   {`{"events":[{"action":"push"`, reason.BadRequest},
		"two of them":  {`{"events":[]}{"events":[]}`, reason.BadRequest},
		"a UTF-16 BOM": {"\xff\xfe{", reason.BadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := distribution.Parse([]byte(tc.body), now)
			if err == nil {
				t.Fatal("no error")
			}
			if e := reason.Of(err); e.Kind != reason.Refuse || e.Code != tc.code {
				t.Errorf("error is kind %d, code %s, want refuse, %s: %v", e.Kind, e.Code, tc.code, err)
			}
		})
	}
}

// The vendors' own samples, where they are: they are not ours to copy.
func TestDistributionPublishedSamples(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "..", "shared", "payloads", "distribution") // beside the repository
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no published samples here")
	}
	digest := func(s string) image.Digest { return image.Digest("sha256:" + s) }
	for file, want := range map[string]struct {
		refs    []image.Reference
		dropped map[Drop]int
		bad     int
	}{
		"push-tagged-single.json": {refs: []image.Reference{{Host: "registry.git.erxes.io", Repository: "foo/bar", Tag: "1.6.1", Digest: digest("4afff550708506c5b8b7384ad10d401a02b29ed587cb2730cb02753095b5178d")}}},
		"push-batch-v3.json": {
			refs:    []image.Reference{{Host: "registrycluster.local", Repository: "library/test", Digest: digest("fea8895f450959fa676bcc1df0611ea93823a735a01205fd8622846041d0c7cf")}},
			dropped: map[Drop]int{DropBlob: 2},
		},
		"push-batch-event-format-test.json": {
			refs:    []image.Reference{{Host: "registrycluster.local", Repository: "library/test", Tag: "latest"}},
			dropped: map[Drop]int{DropBlob: 2}, bad: 1,
		},
		"pull.json": {dropped: map[Drop]int{DropPull: 1}},
	} {
		t.Run(file, func(t *testing.T) {
			b := parse(t, filepath.Join(dir, file))
			var refs []image.Reference
			bad := 0
			for _, e := range b.Events {
				refs = append(refs, e.Reference)
				bad += len(e.Unusable)
			}
			if d := cmp.Diff(want.refs, refs); d != "" {
				t.Errorf("references (-want +got):\n%s", d)
			}
			if d := cmp.Diff(want.dropped, b.Dropped); d != "" {
				t.Errorf("dropped (-want +got):\n%s", d)
			}
			if bad != want.bad {
				t.Errorf("%d unusable fields, want %d", bad, want.bad)
			}
		})
	}
	fragment, err := os.ReadFile(filepath.Join(dir, "delete-target-subset.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := distribution.Parse(fragment, now); reason.Of(err).Code != reason.BadRequest {
		t.Errorf("a fragment that is no notification: %v", err)
	}
}

func FuzzDistribution(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
		f.Add(bytes.ReplaceAll(body, []byte("registry.example"), []byte("")))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := distribution.Parse(body, now)
		if err != nil {
			if e := reason.Of(err); e.Kind != reason.Refuse {
				t.Fatalf("a body is no reason to try again: %v", err)
			}
			return
		}
		for _, e := range b.Events {
			r := e.Reference
			if err := r.Validate(); err != nil {
				t.Fatalf("event with a bad reference: %v", err)
			}
			if r.Tag == "" && r.Digest == "" && e.Action != event.Delete {
				t.Fatalf("a %s names nothing: %+v", e.Action, e)
			}
			if len(e.ID) != 64 || !utf8.ValidString(e.Actor) || len(e.Actor) > maxActor || len(e.MediaType) > maxMediaType || len(e.Unusable) > 5 {
				t.Fatalf("event out of bounds: %+v", e)
			}
		}
		if len(b.Problems) > maxProblems {
			t.Fatalf("%d problems are kept", len(b.Problems))
		}
	})
}
