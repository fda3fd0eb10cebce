package work_test

import (
	"strings"
	"testing"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/key/keytest"
	"github.com/pratique-sec/pratique/pkg/work"
)

var (
	digestA  = image.Digest("sha256:" + strings.Repeat("a", 64))
	digestB  = image.Digest("sha256:" + strings.Repeat("b", 64))
	database = "sha256:" + strings.Repeat("d", 64)
	analysis = strings.Repeat("e", 64)
	amd64    = image.Platform{OS: "linux", Architecture: "amd64"}
	tag      = image.Reference{Host: "registry.example:5000", Repository: "team-a/api", Tag: "main"}
	asset    = finding.Asset{Host: tag.Host, Repository: tag.Repository, Track: "main-*", Platform: amd64}
)

func TestGolden(t *testing.T) {
	withDigest := tag
	withDigest.Digest = digestA
	arm := image.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	matched := image.Image{Reference: withDigest, Platform: amd64}
	g := keytest.Load(t)
	for name, got := range map[string]string{
		"image/unresolved tag":       work.ImageID(work.ImageJob{Reference: tag}),
		"image/platform of an index": work.ImageID(work.ImageJob{Reference: withDigest, Platform: &arm}),
		"layer":                      work.LayerKey(digestB, analysis),
		"match/asset":                work.MatchKey(work.MatchJob{Image: matched, Analysis: analysis, Asset: &asset, Generation: 7, Database: database}),
		"match/report only":          work.MatchKey(work.MatchJob{Image: matched, Analysis: analysis, Database: database}),
		"match/close":                work.MatchKey(work.MatchJob{Analysis: analysis, Asset: &asset, Generation: 8, Database: database, Close: "deleted"}),
	} {
		if want := g.Want(t, name); got != want {
			t.Errorf("%s: %s, frozen as %s", name, got, want)
		}
	}
}

// A job's key ignores what its result does not depend on, or single flight would be none.
func TestKeysIgnoreLaneAndOrigin(t *testing.T) {
	if work.ImageID(work.ImageJob{Reference: tag, Lane: work.Push}) != work.ImageID(work.ImageJob{Reference: tag, Lane: work.Interactive, Origin: work.Origin{EventID: "x"}}) {
		t.Error("image jobs of one reference have two ids")
	}
	if work.MatchKey(work.MatchJob{Lane: work.Push}) != work.MatchKey(work.MatchJob{Lane: work.Backfill, Origin: work.Origin{EventID: "x"}}) {
		t.Error("match jobs of one judgement have two keys")
	}
}

func TestClassOf(t *testing.T) {
	const mib = 1 << 20
	for size, want := range map[int64]work.Class{
		-1: work.XS, 0: work.XS, mib: work.XS, mib + 1: work.S, 10 * mib: work.S, 10*mib + 1: work.M,
		100 * mib: work.M, 100*mib + 1: work.L, 1 << 62: work.L,
	} {
		if got := work.ClassOf(size); got != want {
			t.Errorf("%d bytes: class %s, want %s", size, got, want)
		}
	}
}

func TestLaneHigher(t *testing.T) {
	order := append(append([]work.Lane{}, work.Lanes...), "no such lane")
	for i, a := range order {
		for j, b := range order {
			if got, want := a.Higher(b), i < j; got != want {
				t.Errorf("%q higher than %q: %v", a, b, got)
			}
		}
	}
}
