// Package factstest is the contract of facts.Store, as a test. Every backend and every wrapper runs it:
// what it does not check, nobody may rely on.
package factstest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// Features are where backends differ honestly.
type Features struct {
	// ShortLived opens a store whose verdicts live for about a second. nil: its clock can not be
	// shortened, and expiry is not checked.
	ShortLived func(t *testing.T) facts.Store
}

// large is more than any backend keeps in one message, in bytes that do not compress.
const large = 2 << 20

const analysis = "analysis-a"

// Run checks each post-condition of facts.Store on empty stores from open. At most one Features.
func Run(t *testing.T, open func(t *testing.T) facts.Store, features ...Features) {
	t.Run("missing keys", func(t *testing.T) { missing(t, open(t)) })
	t.Run("facts come back", func(t *testing.T) { roundTrip(t, open(t)) })
	t.Run("facts are keyed by content and analysis", func(t *testing.T) { keyed(t, open(t)) })
	t.Run("putting twice changes nothing", func(t *testing.T) { twice(t, open(t)) })
	t.Run("large facts come back", func(t *testing.T) { largeFacts(t, open(t)) })
	t.Run("answers are copies", func(t *testing.T) { copies(t, open(t)) })
	t.Run("first record wins", func(t *testing.T) { records(t, open(t)) })
	t.Run("holders are exact", func(t *testing.T) { holders(t, open(t)) })
	t.Run("verdicts come back and are forgotten", func(t *testing.T) { verdicts(t, open(t)) })
	t.Run("cancelled calls end", func(t *testing.T) { cancelled(t, open(t)) })
	t.Run("concurrent use", func(t *testing.T) { concurrent(t, open(t)) })
	for _, f := range features {
		if f.ShortLived != nil {
			t.Run("verdicts expire", func(t *testing.T) { expiry(t, f.ShortLived(t)) })
		}
	}
}

// Layer makes facts of some content, for tests of backends.
func Layer(content string) facts.Layer {
	return facts.Layer{
		DiffID: digest(content), Analysis: analysis, Blob: []byte(`{"SchemaVersion":2,"Content":"` + content + `"}`),
		NotRead: []facts.NotRead{
			{Path: "var/lib/dpkg/status", Code: reason.OverBound, Detail: "more than 64 MiB", Packages: true},
			{Path: "opt/a b/\u00e9.jar", Code: reason.Malformed, Detail: "not a zip"},
		},
		Size: 12345, Entries: 67,
	}
}

func digest(content string) image.Digest { return image.DigestOf([]byte(content)) }

func missing(t *testing.T, s facts.Store) {
	ctx := t.Context()
	d := digest("nowhere")
	_, err := s.Facts(ctx, d, analysis)
	wantNotFound(t, "Facts", err)
	_, err = s.Record(ctx, d)
	wantNotFound(t, "Record", err)
	_, err = s.Verdict(ctx, "nowhere")
	wantNotFound(t, "Verdict", err)
	wantHas(t, s, d, analysis, false)
	wantHolds(t, s, "registry.example", "team/app", d, false)
	if err := s.ForgetVerdicts(ctx, "nowhere", "nowhere else"); err != nil {
		t.Errorf("ForgetVerdicts of absent keys: %v", err)
	}
	if err := s.ForgetVerdicts(ctx); err != nil {
		t.Errorf("ForgetVerdicts of nothing: %v", err)
	}
}

func roundTrip(t *testing.T, s facts.Store) {
	for _, l := range []facts.Layer{Layer("some"), {DiffID: digest("empty"), Analysis: analysis, Blob: []byte("{}")}} {
		putFacts(t, s, l)
		wantFacts(t, s, l)
		wantHas(t, s, l.DiffID, l.Analysis, true)
	}
}

func keyed(t *testing.T, s facts.Store) {
	a, b := Layer("content"), Layer("content")
	b.Analysis, b.Blob = "analysis/b:2.0", []byte(`{"other":true}`)
	putFacts(t, s, a)
	wantHas(t, s, b.DiffID, b.Analysis, false)
	_, err := s.Facts(t.Context(), b.DiffID, b.Analysis)
	wantNotFound(t, "Facts of another analysis", err)
	_, err = s.Facts(t.Context(), digest("other content"), a.Analysis)
	wantNotFound(t, "Facts of other content", err)
	putFacts(t, s, b)
	wantFacts(t, s, a)
	wantFacts(t, s, b)
}

func twice(t *testing.T, s facts.Store) {
	l := Layer("twice")
	putFacts(t, s, l)
	putFacts(t, s, l)
	wantFacts(t, s, l)

	r := facts.Record{Blob: digest("blob"), DiffID: l.DiffID, Size: 99}
	v := facts.Verdict{Key: "key", Code: reason.Truncated, Detail: "at byte 7", At: time.Unix(1_700_000_000, 0).UTC()}
	for range 2 {
		if err := s.PutRecord(t.Context(), r); err != nil {
			t.Fatalf("PutRecord: %v", err)
		}
		if err := s.PutHolder(t.Context(), "registry.example", "app", r.Blob); err != nil {
			t.Fatalf("PutHolder: %v", err)
		}
		if err := s.PutVerdict(t.Context(), v); err != nil {
			t.Fatalf("PutVerdict: %v", err)
		}
	}
	wantRecord(t, s, r)
	wantHolds(t, s, "registry.example", "app", r.Blob, true)
	wantVerdict(t, s, v)
}

func largeFacts(t *testing.T, s facts.Store) {
	l := Layer("large")
	l.Blob = make([]byte, large)
	if _, err := rand.Read(l.Blob); err != nil {
		t.Fatal(err)
	}
	putFacts(t, s, l)
	wantHas(t, s, l.DiffID, l.Analysis, true)
	wantFacts(t, s, l)
	putFacts(t, s, l)
	wantFacts(t, s, l)
}

func copies(t *testing.T, s facts.Store) {
	l := Layer("copies")
	mine := Layer("copies")
	putFacts(t, s, mine)
	clear(mine.Blob)
	mine.NotRead[0].Path = "changed by the writer"
	for range 2 {
		got, err := s.Facts(t.Context(), l.DiffID, l.Analysis)
		if err != nil {
			t.Fatalf("Facts: %v", err)
		}
		if diff := cmp.Diff(l, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("Facts changed under a caller's hands (-want +got):\n%s", diff)
		}
		clear(got.Blob)
		got.NotRead[0].Path = "changed by a reader"
	}
}

func records(t *testing.T, s facts.Store) {
	first := facts.Record{Blob: digest("blob"), DiffID: digest("first"), Size: 1}
	for _, r := range []facts.Record{first, {Blob: first.Blob, DiffID: digest("second"), Size: 2}} {
		if err := s.PutRecord(t.Context(), r); err != nil {
			t.Fatalf("PutRecord: %v", err)
		}
		wantRecord(t, s, first)
	}
	_, err := s.Record(t.Context(), digest("other blob"))
	wantNotFound(t, "Record of another blob", err)
}

func holders(t *testing.T, s facts.Store) {
	blob := digest("blob")
	if err := s.PutHolder(t.Context(), "registry.example:5000", "team/app", blob); err != nil {
		t.Fatalf("PutHolder: %v", err)
	}
	for _, c := range []struct {
		host, repository string
		blob             image.Digest
		want             bool
	}{
		{"registry.example:5000", "team/app", blob, true},
		{"registry.example:5000", "team/app", digest("other"), false},
		{"registry.example:5000", "team", blob, false},
		{"registry.example:5000", "team/app/sub", blob, false},
		{"registry.example:5000", "team.app", blob, false}, // separators of keys are no part of names
		{"registry.example:5000", "team_app", blob, false},
		{"registry.example:5000/team", "app", blob, false},
		{"registry.example", "team/app", blob, false},
		{"registry.example", "5000/team/app", blob, false},
		{"", "team/app", blob, false},
	} {
		wantHolds(t, s, c.host, c.repository, c.blob, c.want)
	}
}

func verdicts(t *testing.T, s facts.Store) {
	at := time.Unix(1_700_000_000, 0).UTC()
	a := facts.Verdict{Key: "key-a", Code: reason.DigestMismatch, Detail: "sha256:…", At: at}
	b := facts.Verdict{Key: "key-b", Code: reason.OverBound, At: at}
	for _, v := range []facts.Verdict{a, b} {
		if err := s.PutVerdict(t.Context(), v); err != nil {
			t.Fatalf("PutVerdict: %v", err)
		}
		wantVerdict(t, s, v)
	}
	if err := s.ForgetVerdicts(t.Context(), "absent", a.Key); err != nil {
		t.Fatalf("ForgetVerdicts: %v", err)
	}
	_, err := s.Verdict(t.Context(), a.Key)
	wantNotFound(t, "Verdict after ForgetVerdicts", err)
	wantVerdict(t, s, b)
	if err := s.PutVerdict(t.Context(), a); err != nil {
		t.Fatalf("PutVerdict after ForgetVerdicts: %v", err)
	}
	wantVerdict(t, s, a)
}

func expiry(t *testing.T, s facts.Store) {
	v := facts.Verdict{Key: "key", Code: reason.Truncated, At: time.Unix(1_700_000_000, 0).UTC()}
	if err := s.PutVerdict(t.Context(), v); err != nil {
		t.Fatalf("PutVerdict: %v", err)
	}
	wantVerdict(t, s, v)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	// Reading must not keep it alive, so it is read all the time.
	for {
		_, err := s.Verdict(ctx, v.Key)
		if errors.Is(err, facts.ErrNotFound) {
			return
		}
		if err != nil {
			t.Fatalf("Verdict: %v", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the verdict did not expire")
		}
	}
}

func cancelled(t *testing.T, s facts.Store) {
	l := Layer("cancelled")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := map[string]func() error{
		"PutFacts":   func() error { return s.PutFacts(ctx, l) },
		"Facts":      func() error { _, err := s.Facts(ctx, l.DiffID, l.Analysis); return err },
		"HasFacts":   func() error { _, err := s.HasFacts(ctx, l.DiffID, l.Analysis); return err },
		"PutRecord":  func() error { return s.PutRecord(ctx, facts.Record{Blob: l.DiffID, DiffID: l.DiffID}) },
		"Record":     func() error { _, err := s.Record(ctx, l.DiffID); return err },
		"PutHolder":  func() error { return s.PutHolder(ctx, "registry.example", "app", l.DiffID) },
		"Holds":      func() error { _, err := s.Holds(ctx, "registry.example", "app", l.DiffID); return err },
		"PutVerdict": func() error { return s.PutVerdict(ctx, facts.Verdict{Key: "key", Code: reason.Truncated}) },
		"Verdict":    func() error { _, err := s.Verdict(ctx, "key"); return err },
		"Forget":     func() error { return s.ForgetVerdicts(ctx, "key") },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", name, err)
		}
	}
}

func concurrent(t *testing.T, s facts.Store) {
	const writers, layers = 4, 6
	blob := digest("blob")
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range layers {
				l := Layer(strconv.Itoa(i))
				if err := s.PutFacts(t.Context(), l); err != nil {
					t.Errorf("PutFacts: %v", err)
				}
				got, err := s.Facts(t.Context(), l.DiffID, l.Analysis)
				if err != nil || !bytes.Equal(got.Blob, l.Blob) {
					t.Errorf("Facts: %q, %v", got.Blob, err)
				}
			}
			if err := s.PutRecord(t.Context(), facts.Record{Blob: blob, DiffID: digest(strconv.Itoa(w)), Size: int64(w)}); err != nil {
				t.Errorf("PutRecord: %v", err)
			}
			if err := s.PutHolder(t.Context(), "registry.example", fmt.Sprintf("app-%d", w), blob); err != nil {
				t.Errorf("PutHolder: %v", err)
			}
		})
	}
	wg.Wait()
	first, err := s.Record(t.Context(), blob)
	if err != nil || first.DiffID != digest(strconv.FormatInt(first.Size, 10)) {
		t.Fatalf("Record is nobody's: %+v, %v", first, err)
	}
	wantRecord(t, s, first)
	for w := range writers {
		wantHolds(t, s, "registry.example", fmt.Sprintf("app-%d", w), blob, true)
	}
}

func putFacts(t *testing.T, s facts.Store, l facts.Layer) {
	t.Helper()
	if err := s.PutFacts(t.Context(), l); err != nil {
		t.Fatalf("PutFacts: %v", err)
	}
}

func wantFacts(t *testing.T, s facts.Store, want facts.Layer) {
	t.Helper()
	got, err := s.Facts(t.Context(), want.DiffID, want.Analysis)
	if err != nil {
		t.Fatalf("Facts: %v", err)
	}
	if !bytes.Equal(got.Blob, want.Blob) {
		t.Fatalf("Facts: blob of %d bytes is not the one of %d that was put", len(got.Blob), len(want.Blob))
	}
	got.Blob, want.Blob = nil, nil
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("Facts (-want +got):\n%s", diff)
	}
}

func wantHas(t *testing.T, s facts.Store, d image.Digest, analysis string, want bool) {
	t.Helper()
	if got, err := s.HasFacts(t.Context(), d, analysis); err != nil || got != want {
		t.Errorf("HasFacts: got %v, %v, want %v", got, err, want)
	}
}

func wantRecord(t *testing.T, s facts.Store, want facts.Record) {
	t.Helper()
	if got, err := s.Record(t.Context(), want.Blob); err != nil || got != want {
		t.Fatalf("Record: got %+v, %v, want %+v", got, err, want)
	}
}

func wantHolds(t *testing.T, s facts.Store, host, repository string, blob image.Digest, want bool) {
	t.Helper()
	if got, err := s.Holds(t.Context(), host, repository, blob); err != nil || got != want {
		t.Errorf("Holds(%q, %q, …): got %v, %v, want %v", host, repository, got, err, want)
	}
}

func wantVerdict(t *testing.T, s facts.Store, want facts.Verdict) {
	t.Helper()
	got, err := s.Verdict(t.Context(), want.Key)
	if err != nil {
		t.Fatalf("Verdict: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("Verdict (-want +got):\n%s", diff)
	}
}

func wantNotFound(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, facts.ErrNotFound) {
		t.Errorf("%s: got %v, want facts.ErrNotFound", what, err)
	}
}
