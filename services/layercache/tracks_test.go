package layercache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/track"
	"github.com/pratique-sec/pratique/pkg/work"
)

var (
	amd64 = image.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = image.Platform{OS: "linux", Architecture: "arm64"}
)

const (
	testHost = "r.example"
	testRepo = "team/app"
)

func newService(t interface{ Fatal(...any) }, b Bus, r Registry) *Service {
	s, err := New(Config{}, Deps{Bus: b, Registry: r, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	s.analysis.set("analysis-1")
	return s
}

func TestAdvance(t *testing.T) {
	const a, b = image.Digest("sha256:a"), image.Digest("sha256:b")
	plain := look{host: testHost, repository: testRepo, name: "v1", tag: "v1", sequence: 9}
	member := func(tag string, sequence uint64) look {
		return look{host: testHost, repository: testRepo, name: "main-*", tag: tag, family: true, sequence: sequence}
	}
	rec := func(l look, tag string, d image.Digest, generation, sequence uint64) track.Record {
		return track.Record{Host: testHost, Repository: testRepo, Track: l.name, Tag: tag, Digest: d, Generation: generation, Sequence: sequence}
	}
	tests := []struct {
		name    string
		rec     track.Record
		look    look
		digest  image.Digest
		want    track.Record
		current bool
	}{
		{"first", track.Record{}, plain, a, rec(plain, "v1", a, 1, 9), true},
		{"never there", track.Record{}, plain, "", track.Record{}, false},
		{"unchanged", rec(plain, "v1", a, 3, 4), plain, a, rec(plain, "v1", a, 3, 4), true},
		{"moved", rec(plain, "v1", a, 3, 4), plain, b, rec(plain, "v1", b, 4, 9), true},
		{"gone", rec(plain, "v1", a, 3, 4), plain, "", rec(plain, "v1", "", 4, 4), true},
		{"back", rec(plain, "v1", "", 4, 4), plain, a, rec(plain, "v1", a, 5, 9), true},
		{"family, newer member", rec(member("", 0), "main-1", a, 1, 4), member("main-2", 5), b, rec(member("", 0), "main-2", b, 2, 5), true},
		{"family, newer member, same image", rec(member("", 0), "main-1", a, 1, 4), member("main-2", 5), a, rec(member("", 0), "main-2", a, 1, 5), true},
		{"family, older member", rec(member("", 0), "main-2", a, 1, 5), member("main-1", 4), b, rec(member("", 0), "main-2", a, 1, 5), false},
		{"family, newer member that is gone", rec(member("", 0), "main-1", a, 1, 4), member("main-2", 5), "", rec(member("", 0), "main-1", a, 1, 4), false},
		{"family, current member is gone", rec(member("", 0), "main-1", a, 1, 4), member("main-1", 7), "", rec(member("", 0), "main-1", "", 2, 4), true},
		{"family, late push after that", rec(member("", 0), "main-1", "", 2, 4), member("main-2", 5), b, rec(member("", 0), "main-2", b, 3, 5), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, current := advance(tt.rec, tt.look, tt.digest)
			if diff := cmp.Diff(tt.want, got); diff != "" || current != tt.current {
				t.Errorf("current %v, record (-want +got):\n%s", current, diff)
			}
		})
	}
}

// A tag that was deleted between the registry's answer and the write of the record leaves no event that
// would find the record: the look itself must notice.
func TestObserveConfirmsWhatItWrote(t *testing.T) {
	m := newMemory()
	answers := []image.Digest{"sha256:a", "", ""}
	tr := tracks{store: m, now: time.Now}
	seen, err := tr.observe(t.Context(), look{host: testHost, repository: testRepo, name: "v1", tag: "v1",
		resolve: func(context.Context) (image.Digest, error) {
			d := answers[0]
			answers = answers[1:]
			return d, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	if seen.digest != "" || seen.record.Generation != 2 || len(answers) != 0 {
		t.Errorf("sight %+v, %d answers left", seen, len(answers))
	}
}

func TestObserveHandsBackWhatNeverRests(t *testing.T) {
	n := 0
	tr := tracks{store: newMemory(), now: time.Now}
	_, err := tr.observe(t.Context(), look{host: testHost, repository: testRepo, name: "v1", tag: "v1",
		resolve: func(context.Context) (image.Digest, error) {
			n++
			return image.Digest(fmt.Sprint(n)), nil
		}})
	if e := reason.Of(err); e.Kind != reason.Retry || e.Code != reason.Superseded {
		t.Errorf("error %v", err)
	}
}

// The platform's job that is in the way may be of an earlier generation, and its match would then change
// nothing: the index's job must not end before its own is stored.
func TestIndexWaitsForAnEarlierPlatformsJob(t *testing.T) {
	m, r := newMemory(), newShelf()
	s := newService(t, m, r)
	index, children := r.index("1", amd64)
	r.tags[testRepo+":v1"] = index
	child := work.ImageJob{Reference: image.Reference{Host: testHost, Repository: testRepo, Tag: "v1", Digest: children[amd64]}, Platform: &amd64}
	m.jobs[work.ImageID(child)] = child
	parent := work.ImageJob{Reference: image.Reference{Host: testHost, Repository: testRepo, Tag: "v1"}, Action: event.Push, Lane: work.Push}
	if err := s.handleImage(t.Context(), parent, bus.Delivery{}); !errors.Is(err, bus.ErrBusy) {
		t.Fatalf("error %v, want busy", err)
	}
	delete(m.jobs, work.ImageID(child))
	if err := s.handleImage(t.Context(), parent, bus.Delivery{}); err != nil {
		t.Fatal(err)
	}
	got := m.jobs[work.ImageID(child)]
	if got.Generation != 1 || got.Asset == nil || got.Index != index {
		t.Errorf("job %+v", got)
	}
}

// A delete of a tag that is there again is planned by the delete's own job: one for the tag has the
// same id, and would be refused for as long as this one is held.
func TestDeletedTagThatIsBack(t *testing.T) {
	m, r := newMemory(), newShelf()
	s := newService(t, m, r)
	ref := image.Reference{Host: testHost, Repository: testRepo, Tag: "v1"}
	r.tags[testRepo+":v1"] = r.image("1", amd64)
	push := work.ImageJob{Reference: ref, Action: event.Push, Lane: work.Push}
	if err := s.handleImage(t.Context(), push, bus.Delivery{}); err != nil {
		t.Fatal(err)
	}
	again := r.image("2", amd64)
	r.tags[testRepo+":v1"] = again
	gone := work.ImageJob{Reference: ref, Action: event.Delete, Lane: work.Push}
	m.jobs[work.ImageID(gone)] = gone
	if err := s.handleImage(t.Context(), gone, bus.Delivery{}); err != nil {
		t.Fatal(err)
	}
	if n := len(m.matches); n != 2 || m.matches[1].Image.Digest != again || m.matches[1].Generation != 2 {
		t.Errorf("matches %+v", m.matches)
	}
}

// A platform that somebody asked for once is judged again whenever the track moves.
func TestAskedPlatformStaysWatched(t *testing.T) {
	m, r := newMemory(), newShelf()
	s := newService(t, m, r)
	ref := image.Reference{Host: testHost, Repository: testRepo, Tag: "v1"}
	r.tags[testRepo+":v1"], _ = r.index("1", amd64, arm64)
	ask := work.ImageJob{Reference: ref, Action: event.Request, Platforms: []image.Platform{arm64}, Lane: work.Interactive}
	if err := s.handleImage(t.Context(), ask, bus.Delivery{}); err != nil {
		t.Fatal(err)
	}
	clear(m.jobs)
	r.tags[testRepo+":v1"], _ = r.index("2", amd64, arm64)
	push := work.ImageJob{Reference: ref, Action: event.Push, Lane: work.Push}
	if err := s.handleImage(t.Context(), push, bus.Delivery{}); err != nil {
		t.Fatal(err)
	}
	if len(m.jobs) != 2 {
		t.Errorf("%d platforms were planned, want both", len(m.jobs))
	}
}

// A closing that died after the record was written is finished by the redelivery, although the record
// does not point to the deleted digest any more.
func TestInterruptedClosingIsFinished(t *testing.T) {
	m, r := newMemory(), newShelf()
	s := newService(t, m, r)
	d := r.image("1", amd64)
	r.tags[testRepo+":v1"] = d
	push := work.ImageJob{Reference: image.Reference{Host: testHost, Repository: testRepo, Tag: "v1"}, Action: event.Push, Lane: work.Push}
	if err := s.handleImage(t.Context(), push, bus.Delivery{}); err != nil {
		t.Fatal(err)
	}
	delete(r.tags, testRepo+":v1")
	delete(r.manifests, d)
	gone := work.ImageJob{Reference: image.Reference{Host: testHost, Repository: testRepo, Digest: d}, Action: event.Delete, Lane: work.Push}
	dying := true
	m.step = func(context.Context) error {
		if dying && m.tracks[testHost+"/"+testRepo+":v1"].Digest == "" {
			return errKilled
		}
		return nil
	}
	if err := s.handleImage(t.Context(), gone, bus.Delivery{}); !errors.Is(err, errKilled) {
		t.Fatalf("error %v", err)
	}
	dying = false
	if err := s.handleImage(t.Context(), gone, bus.Delivery{}); err != nil {
		t.Fatal(err)
	}
	last := m.matches[len(m.matches)-1]
	if last.Close == "" || last.Generation != 2 || len(m.images) != 0 {
		t.Errorf("last match %+v, kept %d", last, len(m.images))
	}
}

// TestTracksFollowTheRegistry plays with pushes, moves and deletes of tags and digests, in any order and
// number, while two planners work on the events in any interleaving, die in between, and get events
// twice and late. In the end every asset is judged on what the registry has, whatever order the matches
// are judged in.
func TestTracksFollowTheRegistry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGame(t)
		t.Repeat(map[string]func(*rapid.T){
			"push":       g.push,
			"delete tag": g.deleteTag,
			"delete":     g.deleteDigest,
			"ask":        g.ask,
			"again":      g.repeatEvent,
			"accept":     g.accept,
			"start":      g.start,
			"step":       g.advance,
			"work":       g.work,
			"rest":       g.drain,
			"kill":       g.kill,
		})
		g.drain(t)
		g.check(t)
	})
}

// game is the model: the registry as it is, what happened to it, and the planners at work.
type game struct {
	bus      *memory
	registry *shelf
	service  *Service

	events   []event.Event // not yet image jobs; index+1 of all is the sequence
	all      []event.Event
	sequence map[string]uint64
	running  []*player
	images   map[image.Digest]map[image.Platform]image.Digest // what each digest has for a platform
	made     int
	newest   map[string]string // tag of the newest push of a family
}

// player is one planner with one job. It rests before each step that others can see.
type player struct {
	id      string
	rests   chan struct{}
	goes    chan bool // false: dies here
	done    chan error
	dead    bool
	ended   bool
	outcome error
}

var errKilled = errors.New("killed")

type playerKey struct{}

func newGame(t *rapid.T) *game {
	g := &game{
		bus: newMemory(), registry: newShelf(),
		images: map[image.Digest]map[image.Platform]image.Digest{}, sequence: map[string]uint64{}, newest: map[string]string{},
	}
	step := func(ctx context.Context) error {
		p, ok := ctx.Value(playerKey{}).(*player)
		if !ok {
			return nil
		}
		if p.dead {
			return errKilled
		}
		p.rests <- struct{}{}
		if p.dead = !<-p.goes; p.dead {
			return errKilled
		}
		return nil
	}
	g.bus.step, g.registry.step = step, step
	g.service = newService(t, g.bus, g.registry)
	return g
}

var gameTags = []string{"v1", "latest", "main-1111111", "main-2222222", "main-3333333"}

func (g *game) tell(action event.Action, tag string, d image.Digest, platforms ...image.Platform) {
	e := event.Event{
		ID: fmt.Sprint(len(g.all)), Kind: event.KindImage, Action: action, Cause: event.CausePush,
		Reference: image.Reference{Host: testHost, Repository: testRepo, Tag: tag, Digest: d},
		Platforms: platforms,
		Received:  time.Now(),
	}
	g.all = append(g.all, e)
	g.sequence[e.ID] = uint64(len(g.all))
	g.events = append(g.events, e)
}

func (g *game) push(t *rapid.T) {
	tag := rapid.SampledFrom(gameTags).Draw(t, "tag")
	var d image.Digest
	if known := slices.Sorted(maps.Keys(g.images)); len(known) > 0 && rapid.Bool().Draw(t, "known") {
		d = rapid.SampledFrom(known).Draw(t, "digest")
		if _, there := g.registry.manifests[d]; !there {
			t.Skip("its manifest is gone")
		}
	} else {
		g.made++
		name := fmt.Sprint(g.made)
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			d = g.registry.image(name, amd64)
			g.images[d] = map[image.Platform]image.Digest{amd64: d}
		case 1:
			d = g.registry.image(name, arm64)
			g.images[d] = map[image.Platform]image.Digest{arm64: d}
		case 2:
			index, children := g.registry.index(name, amd64, arm64)
			d, g.images[index] = index, children
		default:
			d = g.registry.chart(name)
			g.images[d] = nil
		}
	}
	g.registry.tags[testRepo+":"+tag] = d
	if name, family := g.service.patterns.Of(tag); family {
		g.newest[name] = tag
	}
	g.tell(event.Push, tag, d)
}

func (g *game) deleteTag(t *rapid.T) {
	tag := rapid.SampledFrom(gameTags).Draw(t, "tag")
	if _, ok := g.registry.tags[testRepo+":"+tag]; !ok {
		t.Skip("not there")
	}
	delete(g.registry.tags, testRepo+":"+tag)
	g.tell(event.Delete, tag, "")
}

func (g *game) deleteDigest(t *rapid.T) {
	tags := slices.Sorted(maps.Keys(g.registry.tags))
	if len(tags) == 0 {
		t.Skip("empty")
	}
	d := g.registry.tags[rapid.SampledFrom(tags).Draw(t, "tag")]
	for _, tag := range tags {
		if g.registry.tags[tag] == d {
			delete(g.registry.tags, tag)
		}
	}
	delete(g.registry.manifests, d)
	g.tell(event.Delete, "", d)
}

// ask is somebody who wants another platform, on a plain tag.
func (g *game) ask(t *rapid.T) {
	g.tell(event.Request, rapid.SampledFrom(gameTags[:2]).Draw(t, "tag"), "", arm64)
}

func (g *game) repeatEvent(t *rapid.T) {
	if len(g.all) == 0 {
		t.Skip("none")
	}
	g.events = append(g.events, rapid.SampledFrom(g.all).Draw(t, "event"))
}

// accept turns some event into a job; the order of events is no promise.
func (g *game) accept(t *rapid.T) {
	if len(g.events) == 0 {
		t.Skip("none")
	}
	i := rapid.IntRange(0, len(g.events)-1).Draw(t, "event")
	g.acceptEvent(t, i)
}

func (g *game) acceptEvent(t *rapid.T, i int) {
	e := g.events[i]
	err := g.service.handleEvent(context.Background(), e, bus.Delivery{Sequence: g.sequence[e.ID], Attempt: 1})
	if errors.Is(err, bus.ErrBusy) {
		return // comes again
	}
	if err != nil {
		t.Fatal(err)
	}
	g.events = slices.Delete(g.events, i, i+1)
}

func (g *game) queued() []string {
	var ids []string
	for id := range g.bus.jobs {
		if !slices.ContainsFunc(g.running, func(p *player) bool { return p.id == id }) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (g *game) start(t *rapid.T) {
	ids := g.queued()
	if len(ids) == 0 || len(g.running) == 2 {
		t.Skip("nothing to start")
	}
	g.begin(rapid.SampledFrom(ids).Draw(t, "job"))
}

func (g *game) begin(id string) {
	p := &player{id: id, rests: make(chan struct{}), goes: make(chan bool), done: make(chan error, 1)}
	job := g.bus.jobs[id]
	go func() {
		ctx := context.WithValue(context.Background(), playerKey{}, p)
		p.done <- g.service.handleImage(ctx, job, bus.Delivery{Attempt: 1, Queued: time.Now()})
	}()
	g.running = append(g.running, p)
	g.rest(p)
}

// rest waits until a player rests again or has ended: only one of them ever moves.
func (g *game) rest(p *player) {
	select {
	case <-p.rests:
	case p.outcome = <-p.done:
		p.ended = true
	}
}

func (g *game) advance(t *rapid.T) {
	if len(g.running) == 0 {
		t.Skip("nobody works")
	}
	g.move(t, rapid.IntRange(0, len(g.running)-1).Draw(t, "planner"), true)
}

// work lets one planner take several steps.
func (g *game) work(t *rapid.T) {
	if len(g.running) == 0 {
		t.Skip("nobody works")
	}
	p := g.running[rapid.IntRange(0, len(g.running)-1).Draw(t, "planner")]
	for range rapid.IntRange(2, 12).Draw(t, "steps") {
		if i := slices.Index(g.running, p); i >= 0 {
			g.move(t, i, true)
		}
	}
}

func (g *game) kill(t *rapid.T) {
	if len(g.running) == 0 || rapid.IntRange(0, 4).Draw(t, "spared") > 0 {
		t.Skip("nobody dies")
	}
	g.move(t, rapid.IntRange(0, len(g.running)-1).Draw(t, "planner"), false)
}

func (g *game) move(t *rapid.T, i int, lives bool) {
	p := g.running[i]
	if !p.ended {
		p.goes <- lives
		g.rest(p)
	}
	if !p.ended {
		return
	}
	g.running = slices.Delete(g.running, i, i+1)
	if e := reason.Of(p.outcome); p.outcome == nil || e.Kind == reason.Refuse {
		if p.outcome != nil && e.Code != reason.NotFound && e.Code != reason.NotAnImage {
			t.Fatalf("refused: %v", p.outcome)
		}
		delete(g.bus.jobs, p.id) // acknowledged
	}
}

// drain lets the planners finish everything that has happened so far.
func (g *game) drain(t *rapid.T) {
	begun := 0
	for range 10_000 {
		for i := len(g.events) - 1; i >= 0; i-- {
			g.acceptEvent(t, i)
		}
		if len(g.running) > 0 {
			g.move(t, 0, true)
			continue
		}
		ids := g.queued()
		if len(ids) == 0 {
			if len(g.events) == 0 {
				return
			}
			continue
		}
		g.begin(ids[begun%len(ids)]) // in turn: one may have to wait for another
		begun++
	}
	t.Fatal("the planners never come to rest")
}

func (g *game) check(t *rapid.T) {
	// Judging: of an asset, the highest generation stands, whoever comes last.
	state := map[string]work.MatchJob{}
	judged := map[string]image.Digest{}
	for _, j := range rapid.Permutation(append(slices.Clone(g.bus.matches), g.bus.matches...)).Draw(t, "matches") {
		if j.Asset == nil {
			continue // an older member of a family: a report only
		}
		k := assetName(*j.Asset)
		// One generation of a track is one image, or its end.
		of := fmt.Sprintf("%s %d", k, j.Generation)
		if before, ok := judged[of]; ok && before != j.Image.Digest {
			t.Errorf("%s: judged on %q and %q", of, before, j.Image.Digest)
		}
		judged[of] = j.Image.Digest
		if before, ok := state[k]; !ok || j.Generation >= before.Generation {
			state[k] = j
		}
	}
	for _, tag := range gameTags {
		name, family := g.service.patterns.Of(tag)
		rec := g.bus.tracks[testHost+"/"+testRepo+":"+name]
		if family {
			if newest := g.newest[name]; newest != "" && g.registry.tags[testRepo+":"+newest] != "" && rec.Tag != newest {
				t.Errorf("family %s is at %q, its newest is %q", name, rec.Tag, newest)
			}
			tag = rec.Tag
		}
		there := g.registry.tags[testRepo+":"+tag]
		if rec.Digest != there {
			t.Errorf("track %s is at %q, its tag %q at %q", name, rec.Digest, tag, there)
		}
		for _, p := range []image.Platform{amd64, arm64} {
			k := testHost + "/" + testRepo + ":" + name + " " + p.String()
			want := g.images[there][p]
			watched := slices.Contains(rec.Platforms, p)
			switch {
			case watched && want == "":
				t.Errorf("%s is still watched, the registry has none", k)
			case !watched && want != "" && (p == amd64 || len(g.images[there]) == 1):
				t.Errorf("%s is not watched, the registry has %q", k, want)
			case !watched:
				want = "" // an index's other platform, for which nobody asked
			}
			if got := state[k].Image.Digest; got != want {
				t.Errorf("%s is judged on %q (generation %d, close %q), the registry has %q", k, got, state[k].Generation, state[k].Close, want)
			}
			if kept, ok := g.bus.images[k]; want != "" && (!ok || kept.Image.Digest != want || kept.Generation != rec.Generation) {
				t.Errorf("%s: a new database would match %q of generation %d, the registry has %q", k, kept.Image.Digest, kept.Generation, want)
			}
		}
	}
	if t.Failed() {
		var b strings.Builder
		for _, e := range g.all {
			fmt.Fprintf(&b, "%s %s %s\n", e.ID, e.Action, e.Reference.String())
		}
		t.Log(b.String())
	}
}
