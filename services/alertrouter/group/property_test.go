package group_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/services/alertrouter/group"
)

// world is a group as a store would keep it, and beside it what is true and what the receiver believes.
type world struct {
	now      time.Time
	sequence uint64
	group    *alert.Group
	revision uint64
	members  map[string]alert.Held
	out      *alert.Notification

	revisions map[string]uint64
	fires     map[string]bool     // what is true
	believed  map[string]bool     // what the receiver was told
	known     map[[2]string]bool  // (alert, "revision status") that the receiver was told
	ids       map[string]struct{} // of notifications
	most      group.Limits
}

func (w *world) next() uint64 { w.sequence++; return w.sequence }

func (w *world) get() (alert.Group, *alert.Group) {
	if w.group == nil {
		return group.Configured(target.Empty(), target), nil
	}
	return *w.group, w.group
}

func (w *world) put(g alert.Group) { w.group, w.revision = &g, w.next() }

func (w *world) list() []alert.Held {
	var all []alert.Held
	for _, m := range w.members {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b alert.Held) int { return int(a.Sequence) - int(b.Sequence) })
	return all
}

func (w *world) drop(sequence uint64) {
	for id, m := range w.members {
		if m.Sequence == sequence {
			delete(w.members, id)
		}
	}
}

func status(a alert.Alert) string {
	if a.Firing() {
		return "firing"
	}
	return "resolved"
}

// Whatever comes in whatever order, the receiver is told nothing twice and in the end knows what is true.
func TestReceiverKnowsTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{
			now: began, members: map[string]alert.Held{}, revisions: map[string]uint64{}, fires: map[string]bool{},
			believed: map[string]bool{}, known: map[[2]string]bool{}, ids: map[string]struct{}{},
			most: group.Limits{Alerts: rapid.IntRange(1, 4).Draw(t, "most"), Bytes: 1 << 20},
		}
		ids := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
		t.Repeat(map[string]func(*rapid.T){
			"fire": func(t *rapid.T) { w.fire(ids.Draw(t, "alert")) },
			"end":  func(t *rapid.T) { w.end(ids.Draw(t, "alert")) },
			"wait": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 400).Draw(t, "seconds")) * time.Second)
			},
			"timer":   func(t *rapid.T) { w.flush(t, rapid.IntRange(0, 9).Draw(t, "muted") == 0) },
			"deliver": func(t *rapid.T) { w.deliver(t, rapid.Bool().Draw(t, "dies before it drops")) },
			"":        func(t *rapid.T) { w.check(t) },
		})
		// Then nothing happens any more but time.
		for range 40 {
			w.deliver(t, false)
			if w.group == nil || w.group.Due.IsZero() || w.group.Due.Sub(w.now) > time.Hour {
				break
			}
			w.now = w.group.Due
			w.flush(t, false)
		}
		for id, fires := range w.fires {
			if w.believed[id] != fires {
				t.Fatalf("%s fires: %v, the receiver believes %v", id, fires, w.believed[id])
			}
		}
		if w.group == nil && len(w.members) > 0 {
			t.Fatalf("no group, and yet %d members", len(w.members))
		}
	})
}

func (w *world) fire(id string) {
	w.revisions[id]++
	w.fires[id] = true
	g, _ := w.get()
	var prev *alert.Held
	if m, ok := w.members[id]; ok {
		prev = &m
	}
	a := firing(id)
	a.Revision = w.revisions[id]
	next, m, _ := group.Fire(g, prev, a, w.now)
	w.put(next)
	w.members[id] = held(m, w.next())
}

func (w *world) end(id string) {
	m, ok := w.members[id]
	if !ok || w.group == nil || !w.fires[id] {
		return
	}
	w.revisions[id]++
	w.fires[id] = false
	a := firing(id)
	a.Revision, a.Ends = w.revisions[id], w.now
	next, ended, _ := group.End(*w.group, m, a, w.now)
	w.put(next)
	if ended == nil {
		delete(w.members, id)
		return
	}
	w.members[id] = held(*ended, w.next())
}

func (w *world) flush(t *rapid.T, muted bool) {
	if w.group == nil {
		return
	}
	f, ok := group.Flush(*w.group, w.revision, w.list(), true, muted, w.most, w.now)
	if !ok {
		return
	}
	if muted && f.Out != nil {
		t.Fatal("told although muted")
	}
	for _, s := range f.Drop {
		w.drop(s)
	}
	if f.Remove {
		w.group = nil
		return
	}
	mark := w.group.Mark
	w.put(f.Group)
	if f.Out == nil {
		return
	}
	if w.out != nil {
		t.Fatal("two notifications of one group are on their way")
	}
	if _, ok := w.ids[f.Out.ID]; ok {
		t.Fatalf("two notifications have the id %s", f.Out.ID)
	}
	if len(f.Out.Alerts) == 0 || len(f.Out.Alerts) > w.most.Alerts {
		t.Fatalf("a notification of %d alerts", len(f.Out.Alerts))
	}
	w.ids[f.Out.ID] = struct{}{}
	w.out = f.Out
	news := 0
	for _, a := range f.Out.Alerts {
		if a.Sequence <= mark {
			continue
		}
		news++
		what := [2]string{a.Alert.ID, status(a.Alert) + " " + time.Duration(a.Alert.Revision).String()}
		if w.known[what] {
			t.Fatalf("%v is told twice as news", what)
		}
		w.known[what] = true
		if !a.Alert.Firing() && !w.believed[a.Alert.ID] {
			t.Fatalf("%v is told, and nobody knows that it fired", what)
		}
	}
	if (news == 0) != (f.Out.Reason == alert.ReasonRepeat) {
		t.Fatalf("%d news, reason %s", news, f.Out.Reason)
	}
}

func (w *world) deliver(t *rapid.T, dies bool) {
	if w.out == nil {
		return
	}
	n := w.out
	w.out = nil
	for _, a := range n.Alerts {
		w.believed[a.Alert.ID] = a.Alert.Firing()
	}
	next, remove := group.Delivered(*w.group, w.now)
	if remove {
		if next.Untold {
			t.Fatal("removed with something to tell")
		}
		for _, s := range group.Spent(*n) {
			delete(w.members, s.Alert.ID)
		}
		w.group = nil
		return
	}
	w.put(next)
	if dies {
		return
	}
	for _, s := range group.Spent(*n) {
		w.drop(s.Sequence)
	}
}

func (w *world) check(t *rapid.T) {
	if w.group == nil {
		return
	}
	if (w.group.Sending != "") != (w.out != nil) {
		t.Fatalf("sending %q, and on its way is %v", w.group.Sending, w.out)
	}
	if w.group.Sending == "" && w.group.Due.IsZero() {
		t.Fatal("a group without a timer")
	}
}
