package e2e

import (
	"slices"
	"testing"

	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
)

// Whoever asks for a scan can follow it to its end: through the stages, never back, to the outcome of
// every platform's image.
func TestFateOfARequest(t *testing.T) { inBoth(t, fateOfARequest) }

func fateOfARequest(t *testing.T, start wiring) {
	p := start(t, options{silent: true})
	first, _ := demoImages(t)
	for _, i := range first {
		if i.Artifact {
			continue
		}
		if err := p.store(t.Context(), i.Repository, i.Tag, i); err != nil {
			t.Fatal(err)
		}
		id, err := p.ask(t.Context(), p.host+"/"+i.Name())
		if err != nil {
			t.Fatal(err)
		}
		f, seen := p.followed(t.Context(), id)
		order := []fate.Stage{fate.Accepted, fate.Planning, fate.Waiting, fate.Matching, fate.Decided}
		if !slices.IsSortedFunc(seen, func(a, b fate.Stage) int { return slices.Index(order, a) - slices.Index(order, b) }) {
			t.Errorf("%s: went through %v", i.Name(), seen)
		}
		images, err := i.Images()
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Images) != len(images) || f.Request != id {
			t.Errorf("%s: the fate of %q has %d images, want %d of %q", i.Name(), f.Request, len(f.Images), len(images), id)
		}
		for _, img := range f.Images {
			r, err := p.bus.Report(t.Context(), img.Digest, img.Platform)
			if err != nil {
				t.Fatal(err)
			}
			if img.Outcome != r.Outcome || img.Outcome == report.Failed || len(img.Missing) > 0 {
				t.Errorf("%s %s: fate %+v, report %s", i.Name(), img.Platform, img, r.Outcome)
			}
		}
	}
}

// What never resolves to an image has a fate, too, with the reason.
func TestFateOfWhatNeverResolves(t *testing.T) { inBoth(t, fateOfWhatNeverResolves) }

func fateOfWhatNeverResolves(t *testing.T, start wiring) {
	p := start(t, options{silent: true})
	first, _ := demoImages(t)
	i := first[0]
	if err := p.store(t.Context(), i.Repository, i.Tag, i); err != nil {
		t.Fatal(err)
	}
	missing := "sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for reference, want := range map[string]reason.Code{
		p.host + "/" + i.Repository + ":no-such-tag": reason.NotFound,
		p.host + "/" + i.Repository + "@" + missing:  reason.NotFound,
		p.host + "/no/such/repository:1.0":           reason.NotFound,
		"registry.not-configured.example/a/b:1.0":    reason.HostNotAllowed,
		"127.0.0.1:1/a/b:1.0":                        reason.HostNotAllowed,
	} {
		id, err := p.ask(t.Context(), reference)
		if err != nil {
			t.Fatal(err)
		}
		f, _ := p.followed(t.Context(), id)
		code := f.Reason
		for _, img := range f.Images {
			code = img.Reason
		}
		if code != want {
			t.Errorf("%s: reason %q, want %q (%s)", reference, code, want, f.Detail)
		}
		var failed []reason.Code
		for _, s := range p.scans() {
			if s.Request == id {
				failed = append(failed, s.Reason)
				if s.Outcome != report.Failed {
					t.Errorf("%s: a scan of outcome %s", reference, s.Outcome)
				}
			}
		}
		if !slices.Equal(failed, []reason.Code{want}) {
			t.Errorf("%s: scans %v, want one of %q", reference, failed, want)
		}
	}
	p.settle()
	if n := len(p.deltas()); n != 0 {
		t.Errorf("%d findings of nothing", n)
	}
}
