package bus_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/track"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

func TestTracks(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	_, rev, err := b.Track(ctx, "registry.example", "team/app", "1.0")
	wantIs(t, "Track", err, bus.ErrNotFound)
	r := someTrack("team/app", "1.0")
	must(t, b.PutTrack(ctx, r, rev))
	wantIs(t, "PutTrack over one that is there", b.PutTrack(ctx, r, 0), bus.ErrConflict)
	got, rev, err := b.Track(ctx, r.Host, r.Repository, r.Track)
	must(t, err)
	if diff := cmp.Diff(r, got); diff != "" {
		t.Errorf("Track (-want +got):\n%s", diff)
	}
	r.Generation++
	must(t, b.PutTrack(ctx, r, rev))
	wantIs(t, "PutTrack of an old revision", b.PutTrack(ctx, r, rev), bus.ErrConflict)

	family := someTrack("team/app", "main-*")
	for _, other := range []track.Record{family, someTrack("team", "app"), someTrack("team/app/1", "x"), someTrack("team/ap", "p")} {
		must(t, b.PutTrack(ctx, other, 0))
	}
	all, err := b.Tracks(ctx, "registry.example", "team/app")
	must(t, err)
	if diff := cmp.Diff([]track.Record{r, family}, all); diff != "" {
		t.Errorf("Tracks (-want +got):\n%s", diff)
	}
	none, err := b.Tracks(ctx, "registry.example", "nobody")
	if err != nil || len(none) != 0 {
		t.Errorf("Tracks of nobody: %v, %v", none, err)
	}
}

// A damaged record is an error: taken for absent, its generations would be given out again.
func TestDamagedTrack(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	_, err := b.Bucket("tracks").Put(ctx, bus.Key("registry.example", "team", "app", "1"), []byte("\xffnoise"))
	must(t, err)
	_, _, errOne := b.Track(ctx, "registry.example", "team/app", "1")
	_, errAll := b.Tracks(ctx, "registry.example", "team/app")
	for _, err := range []error{errOne, errAll} {
		if err == nil || errors.Is(err, bus.ErrNotFound) || reason.Of(err).Code != reason.Malformed {
			t.Errorf("got %v, want %s", err, reason.Malformed)
		}
	}
}

func TestImages(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	must(t, b.Images(ctx, func(work.MatchJob) error { return errors.New("there is none") }))
	must(t, b.DropImage(ctx, someMatch("1", 1)))
	lone := someMatch("", 0)
	lone.Asset = nil
	must(t, errors.Join(b.PutImage(ctx, someMatch("1", 2)), b.PutImage(ctx, someMatch("2", 1)), b.PutImage(ctx, lone)))

	must(t, b.PutImage(ctx, someMatch("1", 1))) // a planner that was overtaken
	must(t, b.DropImage(ctx, someMatch("1", 1)))
	if got := kept(t, b); got["1"] != 2 || len(got) != 3 {
		t.Errorf("kept: %v", got)
	}
	must(t, b.PutImage(ctx, someMatch("1", 3)))
	if got := kept(t, b); got["1"] != 3 {
		t.Errorf("kept: %v", got)
	}
	must(t, b.DropImage(ctx, someMatch("1", 4)))
	must(t, b.DropImage(ctx, lone))
	if got := kept(t, b); len(got) != 1 || got["2"] != 1 {
		t.Errorf("kept: %v", got)
	}

	_, err := b.Bucket("images").Put(ctx, "a.noise", []byte("\xffnoise"))
	must(t, err)
	if got := kept(t, b); len(got) != 1 {
		t.Errorf("kept with noise: %v", got)
	}
	if _, _, err := b.Bucket("images").Get(ctx, "a.noise"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("the noise is still there: %v", err)
	}
}

// kept is the generation by track, "" for the image without an asset.
func kept(t *testing.T, b *bus.Bus) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	must(t, b.Images(t.Context(), func(j work.MatchJob) error {
		name := ""
		if j.Asset != nil {
			name = j.Asset.Track
		}
		all[name] = j.Generation
		return nil
	}))
	return all
}

func TestFates(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	key := fate.ReferenceKey(someImage("image").Reference)
	_, err := b.Fate(ctx, key)
	wantIs(t, "Fate", err, bus.ErrNotFound)
	for range 2 { // the second changes nothing, and writes nothing
		must(t, b.UpdateFate(ctx, key, planning))
	}
	_, rev, err := b.Bucket("fates").Get(ctx, key)
	if err != nil || rev != 1 {
		t.Errorf("revision %d, %v, want 1", rev, err)
	}
	var want fate.Fate
	planning(&want)
	got, err := b.Fate(ctx, key)
	must(t, err)
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("Fate (-want +got):\n%s", diff)
	}

	_, err = b.Bucket("fates").Put(ctx, key, []byte("\xffnoise"))
	must(t, err)
	_, err = b.Fate(ctx, key)
	wantIs(t, "damaged Fate", err, bus.ErrNotFound)
	must(t, b.UpdateFate(ctx, key, planning))
	_, err = b.Fate(ctx, key)
	must(t, err)
}

// Of concurrent changes none is lost.
func TestConcurrentFates(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := b.UpdateFate(ctx, "id.1", func(f *fate.Fate) { planning(f); f.Attempts++ }); err != nil {
				t.Errorf("UpdateFate: %v", err)
			}
		})
	}
	all.Wait()
	if got, err := b.Fate(ctx, "id.1"); err != nil || got.Attempts != 8 {
		t.Errorf("attempts: %d, %v, want 8", got.Attempts, err)
	}
}

func TestSettings(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	_, err := b.Setting(ctx, "analysis.default")
	wantIs(t, "Setting", err, bus.ErrNotFound)

	seen := make(chan string, 10)
	watch := func(ctx context.Context) error {
		return b.WatchSetting(ctx, "analysis.default", func(v string) { seen <- v })
	}
	background(t, watch)
	must(t, b.PutSetting(ctx, "analysis.other", "not asked for"))
	must(t, b.PutSetting(ctx, "analysis.default", "a1"))
	if v := receive(t, "the first value", seen); v != "a1" {
		t.Errorf("watched %q", v)
	}
	must(t, b.PutSetting(ctx, "analysis.default", "a2"))
	if v := receive(t, "the second value", seen); v != "a2" {
		t.Errorf("watched %q", v)
	}
	background(t, watch)
	if v := receive(t, "the present value", seen); v != "a2" {
		t.Errorf("a new watcher began with %q", v)
	}
	if v, err := b.Setting(ctx, "analysis.default"); err != nil || v != "a2" {
		t.Errorf("Setting: %q, %v", v, err)
	}
}

func TestPointers(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{Now: func() time.Time { return noon }})
	_, err := b.Pointer(ctx, vulndb.Vulnerabilities)
	wantIs(t, "Pointer", err, bus.ErrNotFound)
	seen := make(chan vulndb.Pointer, 10)
	background(t, func(ctx context.Context) error {
		return b.WatchPointer(ctx, vulndb.Vulnerabilities, func(p vulndb.Pointer) { seen <- p })
	})
	// Going back to an earlier database is news; loading the current one again is not.
	for _, step := range []struct {
		name     string
		sequence uint64
		news     bool
	}{{"a", 1, true}, {"a", 1, false}, {"b", 2, true}, {"a", 3, true}} {
		want := somePointer(step.name)
		want.Sequence = step.sequence
		got, err := b.PutPointer(ctx, somePointer(step.name))
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("PutPointer (-want +got):\n%s", diff)
		}
		if step.news {
			if p := receive(t, "the pointer", seen); p != want {
				t.Errorf("watched %+v, want %+v", p, want)
			}
		}
	}
	if _, err := b.Pointer(ctx, vulndb.Java); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("Pointer of the Java index: %v", err)
	}
}

func TestConcurrentPointersGetTheirOwnSequence(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	var all sync.WaitGroup
	var mu sync.Mutex
	sequences := map[uint64]bool{}
	for _, name := range []string{"a", "b", "c", "d"} {
		all.Go(func() {
			p, err := b.PutPointer(ctx, somePointer(name))
			if err != nil {
				t.Errorf("PutPointer: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			sequences[p.Sequence] = true
		})
	}
	all.Wait()
	if len(sequences) != 4 {
		t.Errorf("sequences: %v", sequences)
	}
}
