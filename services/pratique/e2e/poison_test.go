package e2e

import (
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts"
	"github.com/pratique-sec/pratique/pkg/facts/front"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts/redistest"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
	"github.com/pratique-sec/pratique/services/scanner/oracletest"
)

// suspect is what must become of a hostile image.
type suspect struct {
	outcome report.Outcome
	code    reason.Code
	found   []string // "package vulnerability", sorted
	layer   bool     // a layer's own bytes are at fault: remembered
	why     string
}

func failed(code reason.Code, why string) suspect {
	return suspect{outcome: report.Failed, code: code, why: why}
}

func badLayer(code reason.Code, why string) suspect {
	return suspect{outcome: report.Failed, code: code, layer: true, why: why}
}

func scanned(why string) suspect {
	return suspect{outcome: report.Findings, found: bullseyeFound, why: why}
}

// corpus is every image of `mkcorpus hostile`, as hostile/NAME. The first are scanned as if nothing
// were wrong with them, the next are refused by what their manifest or config says, the last by a layer.
var corpus = map[string]suspect{
	"plain":           scanned("the honest one that others aim at"),
	"deep-json":       scanned("a package.json that no parser takes is named as not read; it is no package database"),
	"devices":         scanned("what is no file, folder or link has nothing to read"),
	"symlinks":        scanned("links are never followed: nothing is unpacked"),
	"whiteout-tricks": scanned("whiteouts that name nothing below them hide nothing"),
	"huge-lock":       scanned("lock files are not what is installed"),
	"many-entries":    scanned("100,000 files are within bounds"),
	"many-packages":   scanned("20,000 packages without advisories are within bounds"),
	"dup-entries":     {outcome: report.Clean, why: "of two files with one name in a layer the last counts, as on disk: an empty package list"},
	"evil-strings": {outcome: report.Findings, why: "names are data; lodash is found in a folder whose name is an attack", found: slices.Concat([]string{
		"lodash CVE-2018-16487", "lodash CVE-2018-3721", "lodash CVE-2019-10744",
		"lodash CVE-2020-28500", "lodash CVE-2020-8203", "lodash CVE-2021-23337",
	}, bullseyeFound)},

	"cache-poison":          failed(reason.DiffIDMismatch, "claims the diffID of plain's layer for another one"),
	"diffid-mismatch":       failed(reason.DiffIDMismatch, "claims a diffID that its layer has not"),
	"diffid-too-few":        failed(reason.Malformed, "one diffID for three layers"),
	"bad-config":            failed(reason.Malformed, "half a config"),
	"bad-manifest":          failed(reason.Malformed, "half a manifest"),
	"wrong-manifest-digest": failed(reason.DigestMismatch, "the manifest has not the digest that the tag says"),
	"index-cycle":           failed(reason.DigestMismatch, "a cycle needs a wrong digest, and that is noticed first"),
	"nested-index":          failed(reason.IndexCycle, "2,000 indexes inside each other"),
	"wide-index":            failed(reason.OverBound, "100,000 entries are more than 4 MiB"),
	"huge-manifest":         failed(reason.OverBound, "32 MiB"),
	"many-layers":           failed(reason.OverBound, "5,000 layers"),
	"same-layer-5000":       failed(reason.OverBound, "5,000 layers, though of one blob"),
	"foreign-layer":         failed(reason.ForeignLayer, "a layer that only URLs lead to, which are not followed"),
	"wrong-size":            failed(reason.SizeMismatch, "the manifest says 7 bytes of plain's layer"),

	"wrong-digest":     badLayer(reason.DigestMismatch, "the blob is another one"),
	"missing-blob":     badLayer(reason.BlobMissing, "the registry has no such blob"),
	"not-a-tar":        badLayer(reason.Malformed, "noise"),
	"truncated-gzip":   badLayer(reason.Truncated, "half a stream, whole by its digest"),
	"truncated-tar":    badLayer(reason.Truncated, "a file that is longer than its tar"),
	"path-traversal":   badLayer(reason.OverBound, "a name of 10,004 bytes; those that lead out would be harmless"),
	"gzip-bomb":        badLayer(reason.OverBound, "inflates more than 500 times"),
	"zstd-bomb":        badLayer(reason.OverBound, "inflates more than 500 times"),
	"bomb-lockfile":    badLayer(reason.OverBound, "inflates more than 500 times"),
	"bomb-dpkg-status": badLayer(reason.OverBound, "inflates more than 500 times"),
}

// backends of the fact store.
var backends = map[string]func(t *testing.T) func(testing.TB, *bus.Bus) facts.Store{
	"bus": func(*testing.T) func(testing.TB, *bus.Bus) facts.Store {
		return func(_ testing.TB, b *bus.Bus) facts.Store { return busfacts.New(b) }
	},
	"redis before bus": func(t *testing.T) func(testing.TB, *bus.Bus) facts.Store {
		client := redistest.Start(t).Client
		return func(_ testing.TB, b *bus.Bus) facts.Store {
			quiet := slog.New(slog.DiscardHandler)
			return front.New(redisfacts.New(client, redisfacts.Options{Logger: quiet}), busfacts.New(b), quiet)
		}
	},
}

// Images that deceive, made here.
func TestPoison(t *testing.T) {
	s, table := handmade(t)
	poison(t, s.host, table)
	if paths := s.strayed(); len(paths) > 0 {
		t.Errorf("a foreign layer's URL was followed: %q", paths)
	}
}

// All images that deceive or exhaust, as others made them.
func TestPoisonCorpus(t *testing.T) {
	if testing.Short() {
		t.Skip("inflates some GiB")
	}
	address := oracletest.Hostile(t)
	resp, err := http.Get("http://" + address + "/v2/_catalog")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var catalog struct{ Repositories []string }
	if err := json.NewDecoder(resp.Body).Decode(&catalog); err != nil {
		t.Fatal(err)
	}
	var known []string
	for name := range corpus {
		known = append(known, "hostile/"+name)
	}
	slices.Sort(known)
	if d := gocmp.Diff(known, catalog.Repositories); d != "" {
		t.Fatalf("images of the table (-) and of the registry (+):\n%s", d)
	}
	poison(t, address, corpus)
}

// poison scans the table's images, at a registry, beside honest ones, in each order and on each backend.
func poison(t *testing.T, host string, table map[string]suspect) {
	t.Helper()
	o := options{hosts: []string{host}, database: bullseyeDatabase(t)}
	alone := start(t, o)
	first, _ := demoImages(t)
	alone.push(first...)
	alone.settle()
	want := alone.told(first)

	hostile := func(p *pipeline) map[string]string {
		ids := map[string]string{}
		for name := range table {
			if name != "plain" {
				ids[name] = p.request(host + "/hostile/" + name)
			}
		}
		return ids
	}
	honest := func(p *pipeline) map[string]string {
		ids := map[string]string{"plain": p.request(host + "/hostile/plain")}
		p.push(first...)
		return ids
	}
	wait := func(p *pipeline, ids map[string]string, check func(name string, got fate.Image)) {
		for name, id := range ids {
			check(name, p.decided(id))
		}
		p.settle()
	}
	type step = func(*pipeline) map[string]string
	for order, steps := range map[string][2]step{"hostile first": {hostile, honest}, "honest first": {honest, hostile}, "together": {hostile, honest}} {
		for backend, store := range backends {
			t.Run(order+"/"+backend, func(t *testing.T) {
				o := o
				o.facts = store(t)
				p := start(t, o)
				check := func(name string, got fate.Image) { p.is(t, host+"/hostile/"+name, table[name], got) }
				ids := steps[0](p)
				if order != "together" {
					wait(p, ids, check)
					clear(ids)
				}
				maps.Copy(ids, steps[1](p))
				wait(p, ids, check)

				if d := gocmp.Diff(want, p.told(first)); d != "" {
					t.Errorf("honest images alone (-) and in company (+):\n%s", d)
				}
				p.open(t, host, table)
				p.buried(t, host, table)
				p.consistent()
			})
		}
	}
}

// is compares how an image ended, in its fate and in its report.
func (p *pipeline) is(t *testing.T, name string, want suspect, got fate.Image) {
	t.Helper()
	if got.Outcome != want.outcome || got.Reason != want.code {
		t.Errorf("%s: %s %s (%s), want %s %s: %s", name, got.Outcome, got.Reason, got.Detail, want.outcome, want.code, want.why)
		return
	}
	reports, err := p.bus.Reports(t.Context(), got.Digest)
	if err != nil || len(reports) != 1 {
		t.Errorf("%s: %d reports, %v", name, len(reports), err)
		return
	}
	r := reports[0]
	if r.Outcome != want.outcome || r.Reason != want.code {
		t.Errorf("%s: reported as %s %s, want %s %s: %s", name, r.Outcome, r.Reason, want.outcome, want.code, want.why)
	}
	if d := gocmp.Diff(want.found, vulnerabilities(r)); d != "" {
		t.Errorf("%s: %s: what was to be found (-) and what was (+):\n%s", name, want.why, d)
	}
}

func vulnerabilities(r *report.Report) []string {
	var out []string
	for _, res := range r.Results {
		for _, v := range res.Vulnerabilities {
			out = append(out, v.Package+" "+v.ID)
		}
	}
	slices.Sort(out)
	return out
}

// told is all that is said about images: their reports, and their assets' open findings.
func (p *pipeline) told(images []demodata.Image) map[string]string {
	p.t.Helper()
	out := map[string]string{}
	for at, r := range p.reports(images...) {
		// An index's image is pushed by its digest and again as part of the index: its report names
		// whichever was judged last.
		r.Image.Tag, r.Image.Index = "", ""
		b, err := wire.ReportJSON(r)
		if err != nil {
			p.t.Fatal(err)
		}
		out[at] = strings.ReplaceAll(string(b), p.host, "HOST")
	}
	for asset, s := range p.states() {
		if asset.Host == p.host {
			out[asset.Repository+" "+asset.Track+" "+asset.Platform.String()] = strings.Join(openFindings(s), "\n")
		}
	}
	return out
}

func openFindings(s finding.State) []string {
	var out []string
	for _, f := range s.Open {
		out = append(out, f.Package+" "+f.Vulnerability)
	}
	slices.Sort(out)
	return out
}

// open checks that nothing is open on the suspects but what was found.
func (p *pipeline) open(t *testing.T, host string, table map[string]suspect) {
	t.Helper()
	got, want := map[string][]string{}, map[string][]string{}
	for asset, s := range p.states() {
		if name, ok := strings.CutPrefix(asset.Repository, "hostile/"); ok && asset.Host == host && len(s.Open) > 0 {
			got[name] = openFindings(s)
		}
	}
	for name, s := range table {
		if len(s.found) > 0 {
			want[name] = s.found
		}
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("open findings that were to be (-) and that are (+):\n%s", d)
	}
}

// buried checks that each refused image is one dead letter, and so is each layer that is at fault, and that
// both name the layer's verdict, which is remembered.
func (p *pipeline) buried(t *testing.T, host string, table map[string]suspect) {
	t.Helper()
	store := p.factsOn(p.bus)
	remembered := func(name string, l system.DeadLetter) {
		if table[name].layer && len(l.Verdicts) == 0 {
			t.Errorf("%s: the %s's dead letter names no verdict: driving it again would change nothing", name, l.Service)
		}
		for _, k := range l.Verdicts {
			if v, err := store.Verdict(t.Context(), k); err != nil || v.Code != l.Reason {
				t.Errorf("%s: the %s's verdict %+v, %v; want %s", name, l.Service, v, err, l.Reason)
			}
		}
	}
	layers := map[string]int{}
	for seq, l := range p.letters("scanner") {
		j, err := wire.DecodeLayerJob(l.Data)
		if err != nil {
			t.Fatalf("dead letter %d: %v", seq, err)
		}
		name := strings.TrimPrefix(j.Repository, "hostile/")
		layers[name]++
		remembered(name, l)
	}
	got, want := map[string]reason.Code{}, map[string]reason.Code{}
	for seq, l := range p.letters("layercache") {
		j, err := wire.DecodeImageJob(l.Data)
		if err != nil {
			t.Fatalf("dead letter %d: %v", seq, err)
		}
		name := strings.TrimPrefix(j.Reference.Repository, "hostile/")
		if got[name] != "" || j.Reference.Host != host {
			t.Errorf("a dead letter too many, for %s: %s", j.Reference.String(), l.Detail)
		}
		got[name] = l.Reason
		remembered(name, l)
	}
	for name, s := range table {
		if s.outcome == report.Failed {
			want[name] = s.code
		}
		if s.layer && layers[name] != 1 {
			t.Errorf("%s: %d dead letters of its layer, want 1", name, layers[name])
		}
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("dead letters that were to be (-) and that are (+):\n%s", d)
	}
}

// letters are a service's dead letters, by their sequence.
func (p *pipeline) letters(service string) map[uint64]system.DeadLetter {
	p.t.Helper()
	out := map[uint64]system.DeadLetter{}
	err := p.bus.DeadLetters(p.t.Context(), func(seq uint64, l system.DeadLetter) error {
		if l.Service == service {
			out[seq] = l
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// A refused image whose cause is gone is scanned when its dead letter is driven again, and not before:
// the verdict is remembered.
func TestRefusedImageIsDrivenAgain(t *testing.T) {
	s := newShelf(t)
	plain, diffID := archive(t, bullseye...)
	packed := zip(t, plain)
	s.image(t, "team-a/late", []entry{{MediaType: layerType, Digest: image.DigestOf(packed), Size: len(packed)}}, diffID)
	for backend, store := range backends {
		t.Run(backend, func(t *testing.T) {
			s.drop("team-a/late/blobs/" + string(image.DigestOf(packed)))
			p := start(t, options{hosts: []string{s.host}, database: bullseyeDatabase(t), facts: store(t)})
			reference := s.host + "/team-a/late"
			id := p.request(reference)
			p.is(t, reference, badLayer(reason.BlobMissing, "not pushed yet"), p.decided(id))
			p.settle()

			s.blob("team-a/late", packed, "")
			p.is(t, reference, badLayer(reason.BlobMissing, "remembered"), p.decided(p.request(reference)))
			p.settle()

			letters := slices.Sorted(maps.Keys(p.letters("layercache")))
			if len(letters) != 2 {
				t.Fatalf("%d dead letters, want one for each request", len(letters))
			}
			if err := p.bus.Redrive(t.Context(), letters[0], p.factsOn(p.bus).ForgetVerdicts); err != nil {
				t.Fatal(err)
			}
			p.settle()
			p.is(t, reference, scanned("its layer is there now"), p.decided(id))
			if left := slices.Collect(maps.Keys(p.letters("layercache"))); !slices.Equal(left, letters[1:]) {
				t.Errorf("dead letters %v are left, want %v", left, letters[1:])
			}
			p.consistent()
		})
	}
}

// Whoever knows a digest of another repository's layer, compressed or not, learns nothing by claiming it.
func TestFactsAreNotReadableByClaimingThem(t *testing.T) {
	s := newShelf(t)
	content, secret := archive(t, append(slices.Clone(bullseye[:4]), "var/lib/dpkg/status", status("secret", "1.0-1"))...)
	packed := zip(t, content)
	own, ownID := archive(t, append(slices.Clone(bullseye[:4]), "var/lib/dpkg/status", status("own", "1.0-1"))...)

	theirs := s.layer("team-a/app", packed)
	s.image(t, "team-a/app", []entry{theirs}, secret)
	mine := s.layer("team-b/claims-diffid", zip(t, own))
	s.image(t, "team-b/copies-manifest", []entry{theirs}, secret)
	s.image(t, "team-b/claims-blob", []entry{theirs, theirs}, secret, secret)
	s.image(t, "team-b/claims-diffid", []entry{mine}, secret)
	s.layer("team-b/claims-both", zip(t, own))
	s.image(t, "team-b/claims-both", []entry{mine, theirs}, ownID, secret)
	s.image(t, "team-b/holds-it", []entry{s.layer("team-b/holds-it", packed)}, secret)

	found := suspect{outcome: report.Findings, found: []string{"secret CVE-2026-0001"}, why: "who holds the layer may know what is in it"}
	// A report is its manifest's, whoever asks for it by digest: this one may be team-a's.
	copied := badLayer(reason.BlobMissing, "whoever has team-a's manifest has not its layer")
	owner := map[string]suspect{"team-a/app": found}
	claims := map[string]suspect{
		"team-b/claims-blob":     badLayer(reason.BlobMissing, "only team-a holds the layer"),
		"team-b/claims-both":     badLayer(reason.BlobMissing, "only team-a holds the second layer"),
		"team-b/copies-manifest": copied,
		"team-b/claims-diffid":   failed(reason.DiffIDMismatch, "the layer's content is not what is claimed"),
		"team-b/holds-it":        found,
	}
	for order, steps := range map[string][]map[string]suspect{"owner first": {owner, claims}, "claims first": {claims, owner}} {
		for backend, store := range backends {
			t.Run(order+"/"+backend, func(t *testing.T) {
				p := start(t, options{hosts: []string{s.host}, database: bullseyeDatabase(t), facts: store(t)})
				for _, step := range append(steps, claims) { // again: now that all is known
					ids := map[string]string{}
					for name := range step {
						ids[name] = p.request(s.host + "/" + name)
					}
					for name, id := range ids {
						got, want := p.decided(id), step[name]
						if got.Outcome != want.outcome || got.Reason != want.code {
							t.Errorf("%s: %s %s (%s), want %s %s: %s", name, got.Outcome, got.Reason, got.Detail, want.outcome, want.code, want.why)
						}
						if name != "team-b/copies-manifest" {
							p.is(t, name, want, got)
							p.silent(t, name, want, got.Digest)
						}
					}
				}
				p.settle()
				for asset, s := range p.states() {
					if f := openFindings(s); len(f) > 0 && asset.Repository != "team-a/app" && asset.Repository != "team-b/holds-it" {
						t.Errorf("%s has open findings: %q", asset.Repository, f)
					}
				}
			})
		}
	}
}

// silent checks that the report of a refused image tells of no package at all.
func (p *pipeline) silent(t *testing.T, name string, want suspect, d image.Digest) {
	t.Helper()
	if want.outcome != report.Failed {
		return
	}
	reports, err := p.bus.Reports(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		if len(r.Results) > 0 || len(r.NotRead) > 0 {
			t.Errorf("%s: its report has %d results and %d files", name, len(r.Results), len(r.NotRead))
		}
	}
}

// A tag whose manifest lies about a layer's size does nothing to another tag of its repository.
func TestLieAboutSizeIsTheManifestsAlone(t *testing.T) {
	s := newShelf(t)
	plain, diffID := archive(t, bullseye...)
	lie := s.layer("team-a/app", zip(t, plain))
	good := lie
	lie.Size = 7
	s.image(t, "team-a/app", []entry{lie}, diffID)
	s.tag("team-a/app", "lie")
	s.image(t, "team-a/app", []entry{good}, diffID)
	s.tag("team-a/app", "good")

	for backend, store := range backends {
		t.Run(backend, func(t *testing.T) {
			p := start(t, options{hosts: []string{s.host}, database: bullseyeDatabase(t), facts: store(t)})
			reference := s.host + "/team-a/app"
			p.is(t, reference+":lie", failed(reason.SizeMismatch, "7 bytes are claimed"), p.decided(p.request(reference+":lie")))
			p.is(t, reference+":good", scanned("it tells the truth"), p.decided(p.request(reference+":good")))
			p.settle()
		})
	}
}

// request asks for a scan over HTTP and returns the submission's id.
func (p *pipeline) request(reference string) string {
	p.t.Helper()
	var id string
	p.until("the request for "+reference+" is taken", func() bool { // ingest may still be starting
		var err error
		id, err = p.ask(p.t.Context(), reference)
		if err != nil && reason.Of(err).Kind != reason.Retry {
			p.t.Fatalf("request for %s: %v", reference, err)
		}
		return err == nil
	})
	return id
}

// decided waits until a submission of one image is, and says how.
func (p *pipeline) decided(id string) fate.Image {
	p.t.Helper()
	f, _ := p.followed(p.t.Context(), id)
	if len(f.Images) != 1 {
		p.t.Fatalf("request %s: %d images: %s %s", id, len(f.Images), f.Reason, f.Detail)
	}
	return f.Images[0]
}
