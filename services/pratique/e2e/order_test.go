package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

// TestStateEndsWhereTheRegistryIs runs programs of pushes, deletions, requests and everything that
// arrives late or twice against one installation, and compares what is left with a model of the
// registry:
//
//   - STATE of each tag is about what the tag points to, with the findings that this image's report has,
//     or closed;
//   - there is one evaluation for each change that the planner saw, and no other. It sees each change
//     that had time to settle before the next;
//   - every request is decided; no revision of a finding is told twice; the fold of FINDINGS is STATE.
func TestStateEndsWhereTheRegistryIs(t *testing.T) {
	p := start(t, options{silent: true, planners: 2, scanners: 2})
	things := shelves(t)
	databases := []string{demoDatabase(t, func(line string) bool { return !strings.Contains(line, `"lodash"`) }), usual}
	runs, loaded := 0, 0
	outer := p.t
	defer func() { p.t = outer }()
	rapid.Check(t, func(t *rapid.T) {
		p.t = checkedBy{outer, t}
		runs++
		m := &model{
			pipeline: p, things: things, repository: fmt.Sprintf("order/r%d", runs),
			points: map[string]thing{}, changes: map[string][]thing{}, blurred: map[string]bool{},
		}
		for _, b := range rapid.SliceOfN(batches, 1, 6).Draw(t, "program") {
			g, ctx := errgroup.WithContext(outer.Context())
			m.mark(b.ops)
			for _, o := range b.ops {
				g.Go(func() error { return m.run(ctx, o) })
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			if b.load {
				p.load(databases[loaded%len(databases)])
				loaded++
			}
			if b.settle {
				m.settle()
			}
		}
		m.settle()
		m.check(t)
		p.forget("FINDINGS", "SCANS", "KV_images") // the next program is about another repository
	})
}

// checkedBy is the test with a property's way to fail, so that a failure is shrunk and can be repeated.
type checkedBy struct {
	testing.TB
	rapid *rapid.T
}

func (c checkedBy) Errorf(format string, args ...any) { c.rapid.Errorf(format, args...) }
func (c checkedBy) Fatalf(format string, args ...any) { c.rapid.Fatalf(format, args...) }
func (c checkedBy) Error(args ...any)                 { c.rapid.Error(args...) }
func (c checkedBy) Fatal(args ...any)                 { c.rapid.Fatal(args...) }

// op is one thing that happens. What does not apply to its kind is ignored.
type op struct {
	kind  string
	tag   string
	thing int
	old   int // which of what was kept: a notification, a match job
}

func (o op) String() string { return fmt.Sprintf("%s %s %d %d", o.kind, o.tag, o.thing, o.old) }

// batch is what happens at once. Without settle the next one begins while the pipeline is at work.
type batch struct {
	ops    []op
	load   bool // and then a new database
	settle bool
}

var (
	tags = []string{"1.0", "edge"}
	ops  = rapid.Custom(func(t *rapid.T) op {
		return op{
			kind: rapid.SampledFrom([]string{
				"push", "push", "push", "push", "untagged", "untag", "untag", "delete", "delete all",
				"request", "request", "again", "old match",
			}).Draw(t, "kind"),
			tag:   rapid.SampledFrom(tags).Draw(t, "tag"),
			thing: rapid.IntRange(0, 4).Draw(t, "thing"),
			old:   rapid.IntRange(0, 20).Draw(t, "old"),
		}
	})
	batches = rapid.Custom(func(t *rapid.T) batch {
		return batch{
			ops:    rapid.SliceOfN(ops, 1, 4).Draw(t, "ops"),
			load:   rapid.IntRange(0, 7).Draw(t, "load") == 0,
			settle: rapid.IntRange(0, 2).Draw(t, "settle") > 0,
		}
	})
)

// thing is what a tag can point to; the zero value is nothing.
type thing struct {
	demodata.Image
	digest    image.Digest
	platforms []image.Platform // that are judged; none of a signature
}

// shelves are the things: two images of which one is the other rebuilt, one of another base, an index
// and a signature.
func shelves(t *testing.T) []thing {
	t.Helper()
	first, rebuilt := demoImages(t)
	var out []thing
	for _, i := range []demodata.Image{first[0], rebuilt[0], first[2], first[4], first[7]} {
		d, err := digestOf(i)
		if err != nil {
			t.Fatal(err)
		}
		th := thing{Image: i, digest: d}
		switch {
		case i.Artifact:
		case i.Index != nil:
			th.platforms = []image.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
		default:
			th.platforms = []image.Platform{{OS: "linux", Architecture: "amd64"}}
		}
		out = append(out, th)
	}
	if out[3].Index == nil || !out[4].Artifact {
		t.Fatal("the demo's images are others")
	}
	return out
}

// model is what a repository should look like to the pipeline.
type model struct {
	pipeline   *pipeline
	things     []thing
	repository string

	mu       sync.Mutex // held over a change of the registry: the model's order is the registry's
	points   map[string]thing
	changes  map[string][]thing // each thing that a tag came to point to, in order
	busy     map[string]bool    // tags that may have changed since the pipeline was settled
	blurred  map[string]bool    // tags that may have changed twice in between: then not every change is seen
	told     []notice
	matches  []work.MatchJob
	requests []string
}

// mark notes which tags a batch may change.
func (m *model) mark(ops []op) {
	if m.busy == nil {
		m.busy = map[string]bool{}
	}
	for _, o := range ops {
		var changed []string
		switch o.kind {
		case "push", "untag":
			changed = []string{o.tag}
		case "delete", "delete all":
			changed = tags
		}
		for _, tag := range changed {
			m.blurred[tag] = m.blurred[tag] || m.busy[tag]
			m.busy[tag] = true
		}
	}
}

// settle waits for the pipeline, and keeps the matches that it knows now, for later.
func (m *model) settle() {
	p := m.pipeline
	p.until("the pipeline is idle and has re-matched", func() bool { return p.rematched() && p.idle() })
	m.busy = nil
	err := p.bus.Images(p.t.Context(), func(j work.MatchJob) error {
		if j.Image.Repository == m.repository {
			m.matches = append(m.matches, j)
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	slices.SortFunc(m.matches, func(a, b work.MatchJob) int {
		return cmp.Or(cmp.Compare(a.Generation, b.Generation), cmp.Compare(work.MatchKey(a), work.MatchKey(b)))
	})
}

func (m *model) point(tag string, to thing) {
	if m.points[tag].digest == to.digest {
		return
	}
	m.points[tag] = to
	m.changes[tag] = append(m.changes[tag], to)
}

func (m *model) run(ctx context.Context, o op) error {
	th := m.things[o.thing]
	switch o.kind {
	case "push":
		return m.push(ctx, o.tag, th)
	case "untagged":
		return m.push(ctx, "", th)
	case "untag":
		return m.remove(ctx, notice{action: "delete", tag: o.tag}, func(tag string, _ thing) bool { return tag == o.tag })
	case "delete":
		return m.remove(ctx, notice{action: "delete", digest: th.digest}, func(_ string, at thing) bool { return at.digest == th.digest })
	case "delete all":
		return m.remove(ctx, notice{action: "delete"}, func(string, thing) bool { return true })
	case "request":
		id, err := m.pipeline.ask(ctx, m.pipeline.host+"/"+m.repository+":"+o.tag)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.requests = append(m.requests, id)
		return err
	case "again":
		m.mu.Lock()
		if len(m.told) == 0 {
			m.mu.Unlock()
			return nil
		}
		n := m.told[o.old%len(m.told)]
		m.mu.Unlock()
		if o.old%2 == 0 { // told again with another id, so that it is planned again
			return m.tell(ctx, n)
		}
		return m.pipeline.notify(ctx, n)
	case "old match":
		return m.match(ctx, o.old)
	default:
		return fmt.Errorf("no such operation: %s", o.kind)
	}
}

// push stores a thing, under a tag or without, and tells of it and of what an index lists.
func (m *model) push(ctx context.Context, tag string, th thing) error {
	m.mu.Lock()
	err := m.pipeline.store(ctx, m.repository, tag, th.Image)
	if err == nil && tag != "" {
		m.point(tag, th)
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	if th.Index != nil {
		index, err := th.Index.IndexManifest()
		if err != nil {
			return err
		}
		for _, d := range index.Manifests {
			if err := m.tell(ctx, notice{action: "push", digest: image.Digest(d.Digest.String()), mediaType: string(types.OCIManifestSchema1)}); err != nil {
				return err
			}
		}
	}
	kind := types.OCIManifestSchema1
	if th.Index != nil {
		kind = types.OCIImageIndex
	}
	return m.tell(ctx, notice{action: "push", tag: tag, digest: th.digest, mediaType: string(kind)})
}

// remove takes away the tags that which chooses, with the manifest where that is what is deleted.
func (m *model) remove(ctx context.Context, n notice, which func(tag string, at thing) bool) error {
	m.mu.Lock()
	var gone []string
	for tag, at := range m.points {
		if at.digest != "" && which(tag, at) {
			gone = append(gone, ":"+tag)
			m.point(tag, thing{})
		}
	}
	if n.digest != "" {
		gone = append(gone, "@"+string(n.digest))
	}
	var err error
	for _, what := range gone {
		ref, perr := name.ParseReference(m.pipeline.host+"/"+m.repository+what, name.Insecure)
		if perr != nil {
			err = errors.Join(err, perr)
			continue
		}
		if derr := remote.Delete(ref, remote.WithContext(ctx)); derr != nil && !strings.Contains(derr.Error(), "UNKNOWN") {
			err = errors.Join(err, derr)
		}
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return m.tell(ctx, n) // also when there was nothing
}

func (m *model) tell(ctx context.Context, n notice) error {
	m.mu.Lock()
	n.id, n.repository = fmt.Sprint(len(m.told)), m.repository
	m.told = append(m.told, n)
	m.mu.Unlock()
	return m.pipeline.notify(ctx, n)
}

// match queues a match again that was queued long ago, as a message that comes back would.
func (m *model) match(ctx context.Context, which int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.matches) == 0 {
		return nil
	}
	j := m.matches[which%len(m.matches)]
	j.Lane = work.Lanes[which%len(work.Lanes)]
	if err := m.pipeline.bus.PublishMatch(ctx, j); !errors.Is(err, bus.ErrBusy) {
		return err
	}
	return nil
}

// check compares what is left with the model.
func (m *model) check(t *rapid.T) {
	p := m.pipeline
	states := p.states()
	evaluations := m.evaluations(t)
	for _, tag := range tags {
		at := m.points[tag]
		rec, _, err := p.bus.Track(p.t.Context(), p.host, m.repository, tag)
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			t.Fatal(err)
		}
		if rec.Digest != at.digest {
			t.Errorf("%s: the track is at %q, the registry at %q", tag, rec.Digest, at.digest)
		}
		for asset, s := range states {
			if asset.Repository != m.repository || asset.Track != tag || slices.Contains(at.platforms, asset.Platform) {
				continue
			}
			if s.Outcome != report.Closed || len(s.Open) > 0 {
				t.Errorf("%s %s: outcome %s with %d open findings, nothing is there", tag, asset.Platform, s.Outcome, len(s.Open))
			}
		}
		for _, platform := range at.platforms {
			asset := finding.Asset{Host: p.host, Repository: m.repository, Track: tag, Platform: platform}
			m.judged(t, asset, states[asset], rec.Generation)
		}
		m.counted(t, tag, rec.Generation, evaluations[tag])
	}
	for _, id := range m.requests {
		f, err := p.bus.Fate(p.t.Context(), fate.RequestKey(id))
		if err != nil {
			t.Fatal(err)
		}
		if f.Stage != fate.Decided {
			t.Errorf("request %s is at %s: %+v", id, f.Stage, f)
		}
	}
	p.consistent(m.repository)
}

// judged wants an asset's state to be about the image that its tag points to.
func (m *model) judged(t *rapid.T, a finding.Asset, s finding.State, generation uint64) {
	p := m.pipeline
	at := m.points[a.Track]
	d := at.digest
	if at.Index != nil {
		index, err := at.Index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range index.Manifests {
			if c.Platform.Architecture == a.Platform.Architecture {
				d = image.Digest(c.Digest.String())
			}
		}
	}
	if s.Image != d || s.Generation != generation {
		t.Errorf("%s %s: state of %q, generation %d; want %q, %d", a.Track, a.Platform, s.Image, s.Generation, d, generation)
		return
	}
	r, err := p.bus.Report(p.t.Context(), d, a.Platform)
	if err != nil {
		t.Fatal(err)
	}
	ptr, err := p.bus.Pointer(p.t.Context(), vulndb.Vulnerabilities)
	if err != nil {
		t.Fatal(err)
	}
	if r.Database.Digest != ptr.Digest || s.Database.Digest != ptr.Digest {
		t.Errorf("%s %s: report on database %d, state on %d, current is %d", a.Track, a.Platform, r.Database.Sequence, s.Database.Sequence, ptr.Sequence)
	}
	if s.Outcome != r.Outcome {
		t.Errorf("%s %s: state %s, report %s", a.Track, a.Platform, s.Outcome, r.Outcome)
	}
	if got, want := names(s.Open), names(finding.FromReport(a, r)); got != want {
		t.Errorf("%s %s: open\n%s\nwant\n%s", a.Track, a.Platform, got, want)
	}
}

func names(open []finding.Finding) string {
	var out strings.Builder
	for _, f := range open {
		fmt.Fprintf(&out, "%s %s %s\n", f.ID, f.Vulnerability, f.Severity)
	}
	return out.String()
}

// evaluation is one judgement of an asset, or its closing.
type evaluation struct {
	generation uint64
	platform   image.Platform
	closed     bool
}

func (e evaluation) String() string {
	return fmt.Sprintf("%d %s closed=%v", e.generation, e.platform, e.closed)
}

// evaluations are those that SCANS tells of, by track. Each is told once for each database and request.
func (m *model) evaluations(t *rapid.T) map[string]map[evaluation]bool {
	type told struct {
		asset finding.Asset
		evaluation
		database uint64 // its sequence: the same one may come back after another
		request  string
	}
	seen := map[told]bool{}
	out := map[string]map[evaluation]bool{}
	for _, s := range m.pipeline.scans() {
		if s.Reference.Repository != m.repository || s.Asset == nil || s.Outcome == report.Failed || s.Outcome == report.Skipped {
			continue
		}
		e := evaluation{s.Generation, s.Asset.Platform, s.Outcome == report.Closed}
		k := told{*s.Asset, e, s.Database.Sequence, s.Request}
		if seen[k] {
			t.Errorf("%v is in SCANS twice", k)
		}
		seen[k] = true
		if out[s.Asset.Track] == nil {
			out[s.Asset.Track] = map[evaluation]bool{}
		}
		out[s.Asset.Track][e] = true
	}
	return out
}

// counted wants one evaluation for each change that the planner saw.
func (m *model) counted(t *rapid.T, tag string, generation uint64, got map[evaluation]bool) {
	changes := m.changes[tag]
	if generation > uint64(len(changes)) {
		t.Errorf("%s: generation %d after %d changes", tag, generation, len(changes))
	}
	for e := range got {
		if e.generation > generation {
			t.Errorf("%s: evaluation %s, and the track is at %d", tag, e, generation)
		}
	}
	if m.blurred[tag] {
		return
	}
	if generation != uint64(len(changes)) {
		t.Errorf("%s: generation %d after %d changes, with time for each", tag, generation, len(changes))
	}
	want := map[evaluation]bool{}
	var before []image.Platform
	for i, c := range changes {
		for _, p := range c.platforms {
			want[evaluation{uint64(i + 1), p, false}] = true
		}
		for _, p := range before {
			if !slices.Contains(c.platforms, p) {
				want[evaluation{uint64(i + 1), p, true}] = true
			}
		}
		before = c.platforms
	}
	if !maps.Equal(got, want) {
		t.Errorf("%s: evaluations %v, want %v", tag, sorted(got), sorted(want))
	}
}

func sorted(m map[evaluation]bool) []string {
	var out []string
	for e := range m {
		out = append(out, e.String())
	}
	slices.Sort(out)
	return out
}

// forget empties streams.
func (p *pipeline) forget(streams ...string) {
	p.t.Helper()
	for _, name := range streams {
		s, err := p.js.Stream(p.t.Context(), name)
		if err == nil {
			err = s.Purge(p.t.Context())
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
}

// rematched tells whether every known image was queued for the current database.
func (p *pipeline) rematched() bool {
	ptr, err := p.bus.Pointer(p.t.Context(), vulndb.Vulnerabilities)
	if err != nil {
		return false
	}
	done, err := p.bus.Setting(p.t.Context(), "rematched")
	return err == nil && done == fmt.Sprint(ptr.Sequence)
}
