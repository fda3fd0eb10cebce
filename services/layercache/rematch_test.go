package layercache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

// library is a bus with kept images, a current database and a queue of matches that may be busy.
type library struct {
	Bus

	kept     []work.MatchJob
	current  vulndb.Pointer
	setting  string
	busy     map[string]int // how often a match key is still refused
	dieAfter int            // publishes until the process dies; 0: never
	matches  []work.MatchJob
	refused  func() // called when a match is refused as busy; may be nil
}

func (l *library) Setting(context.Context, string) (string, error) {
	if l.setting == "" {
		return "", bus.ErrNotFound
	}
	return l.setting, nil
}

func (l *library) PutSetting(_ context.Context, _, value string) error {
	l.setting = value
	return nil
}

func (l *library) Pointer(context.Context, vulndb.Kind) (vulndb.Pointer, error) {
	return l.current, nil
}

func (l *library) Images(_ context.Context, fn func(work.MatchJob) error) error {
	for _, j := range l.kept {
		if err := fn(j); err != nil {
			return err
		}
	}
	return nil
}

func (l *library) PublishMatch(_ context.Context, j work.MatchJob) error {
	if l.dieAfter > 0 && len(l.matches) == l.dieAfter {
		return errKilled
	}
	if k := work.MatchKey(j); l.busy[k] > 0 {
		l.busy[k]--
		if l.refused != nil {
			l.refused()
		}
		return bus.ErrBusy
	}
	l.matches = append(l.matches, j)
	return nil
}

func newLibrary(names ...string) *library {
	l := &library{busy: map[string]int{}, current: vulndb.Pointer{Kind: vulndb.Vulnerabilities, Digest: "sha256:new", Sequence: 4}}
	for _, n := range names {
		l.kept = append(l.kept, work.MatchJob{
			Image:      image.Image{Reference: image.Reference{Host: testHost, Repository: n, Digest: image.DigestOf([]byte(n))}},
			Asset:      &finding.Asset{Host: testHost, Repository: n, Track: "v1", Platform: amd64},
			Generation: 3, Database: "sha256:old", Lane: work.Interactive,
			Origin: work.Origin{Cause: event.CauseRequest, Request: "7-x"},
		})
	}
	return l
}

func TestRematchQueuesEveryImageOnce(t *testing.T) {
	l := newLibrary("a", "b", "c")
	s := newService(t, l, nil)
	for range 2 {
		if err := s.rematchAll(t.Context(), l.current); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.matches) != 3 || l.setting != "4" {
		t.Fatalf("%d matches, recorded %q", len(l.matches), l.setting)
	}
	for _, j := range l.matches {
		if j.Database != "sha256:new" || j.Lane != work.Backfill || j.Origin.Cause != event.CauseRematch || j.Origin.Request != "" || j.Generation != 3 {
			t.Errorf("match %+v", j)
		}
	}
}

func TestRematchAsksAgainForWhatIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary("a", "b")
		l.busy[work.MatchKey(rematchJob(l.kept[0], l.current))] = 3
		if err := newService(t, l, nil).rematchAll(t.Context(), l.current); err != nil {
			t.Fatal(err)
		}
		if len(l.matches) != 2 || l.setting != "4" {
			t.Errorf("%d matches, recorded %q", len(l.matches), l.setting)
		}
	})
}

// What was not recorded is begun again: a death in the middle loses no image.
func TestInterruptedRematchIsRepeated(t *testing.T) {
	l := newLibrary("a", "b", "c")
	l.dieAfter = 2
	s := newService(t, l, nil)
	if err := s.rematchAll(t.Context(), l.current); !errors.Is(err, errKilled) {
		t.Fatalf("error %v", err)
	}
	if l.setting != "" {
		t.Fatalf("recorded %q", l.setting)
	}
	l.dieAfter, l.matches = 0, nil
	if err := s.rematchAll(t.Context(), l.current); err != nil || len(l.matches) != 3 {
		t.Errorf("%d matches, %v", len(l.matches), err)
	}
}

// A database that is loaded again after another is judged again: meanwhile images were judged on that one.
func TestRematchOnADatabaseThatComesBack(t *testing.T) {
	l := newLibrary("a")
	s := newService(t, l, nil)
	for range 2 {
		l.current.Sequence++
		if err := s.rematchAll(t.Context(), l.current); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.matches) != 2 || l.setting != "6" {
		t.Errorf("%d matches, recorded %q", len(l.matches), l.setting)
	}
}

// A pass that waits for what is busy ends when its database is not the current one any more, and does
// not record itself over a later one.
func TestWaitingRematchYieldsToANewerDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary("a")
		p := l.current
		l.busy[work.MatchKey(rematchJob(l.kept[0], p))] = 3
		l.refused = func() { l.current.Sequence, l.setting = 5, "5" }
		if err := newService(t, l, nil).rematchAll(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if len(l.matches) != 0 || l.setting != "5" {
			t.Errorf("%d matches, recorded %q", len(l.matches), l.setting)
		}
	})
}

func TestRematchYieldsToANewerDatabase(t *testing.T) {
	l := newLibrary("a")
	if err := newService(t, l, nil).rematchAll(t.Context(), vulndb.Pointer{Digest: "sha256:older", Sequence: 3}); err != nil {
		t.Fatal(err)
	}
	if len(l.matches) != 0 || l.setting != "" {
		t.Errorf("%d matches, recorded %q", len(l.matches), l.setting)
	}
}
