package group_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/key/keytest"
	"github.com/pratique-sec/pratique/services/alertrouter/group"
)

var (
	began  = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	target = group.Target{
		Receiver: "team", Integration: "webhook/0", Labels: map[string]string{"repository": "team/api"},
		Timing: alert.Timing{Wait: 30 * time.Second, Interval: 5 * time.Minute, Repeat: 4 * time.Hour},
	}
	many = group.Limits{Alerts: 100, Bytes: 1 << 20}
)

func fresh() alert.Group { return group.Configured(target.Empty(), target) }

func firing(id string) alert.Alert {
	return alert.Alert{ID: id, Revision: 1, Labels: map[string]string{"id": id}, Starts: began}
}

// held is a member as it was stored.
func held(m alert.Member, sequence uint64) alert.Held {
	return alert.Held{Member: m, Sequence: sequence}
}

func TestIDNamesReceiverAndLabelsAlone(t *testing.T) {
	if got, want := target.ID(), keytest.Load(t).Want(t, "alert group"); got != want {
		t.Errorf("id is %s, frozen as %s", got, want)
	}
	moved := target
	moved.Timing, moved.Mute, moved.RouteLabels = alert.Timing{Wait: 1}, []string{"x"}, map[string]string{"a": "b"}
	if moved.ID() != target.ID() {
		t.Error("the rest of the configuration changed the id")
	}
	if got, want := group.NotificationID(target.ID(), 41), keytest.Load(t).Want(t, "notification"); got != want {
		t.Errorf("id is %s, frozen as %s", got, want)
	}
}

// A group's first hours, step by step.
func TestTiming(t *testing.T) {
	now := began
	g, m, timer := group.Fire(fresh(), nil, firing("a"), now)
	if !timer || !g.Due.Equal(now.Add(30*time.Second)) {
		t.Fatalf("due at %v, timer %v", g.Due, timer)
	}
	if _, ok := group.Flush(g, 7, []alert.Held{held(m, 1)}, true, false, many, now.Add(29*time.Second)); ok {
		t.Fatal("told before its time")
	}
	// A second one does not put it off.
	now = now.Add(20 * time.Second)
	g, second, timer := group.Fire(g, nil, firing("b"), now)
	if timer {
		t.Error("the timer was set again")
	}
	now = began.Add(30 * time.Second)
	members := []alert.Held{held(m, 1), held(second, 2)}
	f, ok := group.Flush(g, 7, members, true, false, many, now)
	if !ok || f.Out == nil || len(f.Out.Alerts) != 2 || f.Out.Reason != alert.ReasonFirst {
		t.Fatalf("flushed %+v, %v", f, ok)
	}
	if f.Out.ID != group.NotificationID(g.ID, 7) || f.Group.Sending != f.Out.ID || f.Group.Mark != 2 || !f.Group.Due.IsZero() {
		t.Errorf("group is %+v", f.Group)
	}
	g, remove := group.Delivered(f.Group, now.Add(time.Second))
	if remove || !g.Due.Equal(now.Add(4*time.Hour)) {
		t.Errorf("due at %v, want the repeat", g.Due)
	}
	// News are told no sooner than an interval after the last.
	told := now
	now = now.Add(time.Minute)
	g, third, timer := group.Fire(g, nil, firing("c"), now)
	if !timer || !g.Due.Equal(told.Add(5*time.Minute)) {
		t.Errorf("due at %v", g.Due)
	}
	now = told.Add(5 * time.Minute)
	f, _ = group.Flush(g, 8, append(members, held(third, 3)), true, false, many, now)
	if f.Out == nil || f.Out.Reason != alert.ReasonNew || len(f.Out.Alerts) != 3 || f.Out.Alerts[0].Alert.ID != "c" {
		t.Fatalf("flushed %+v", f)
	}
	g, _ = group.Delivered(f.Group, now)
	members = append(members, held(third, 3))
	// What still fires is repeated.
	now = now.Add(4 * time.Hour)
	f, _ = group.Flush(g, 9, members, true, false, many, now)
	if f.Out == nil || f.Out.Reason != alert.ReasonRepeat || len(f.Out.Alerts) != 3 {
		t.Fatalf("flushed %+v", f)
	}
	g, _ = group.Delivered(f.Group, now)
	// All end: told, and the group is no more.
	for i, m := range members {
		ended := m.Alert
		ended.Ends, ended.Revision = now, 2
		var next *alert.Member
		g, next, _ = group.End(g, m, ended, now)
		if next == nil {
			t.Fatal("ended without a word")
		}
		members[i] = held(*next, uint64(10+i))
	}
	now = now.Add(5 * time.Minute)
	f, _ = group.Flush(g, 10, members, true, false, many, now)
	if f.Out == nil || f.Out.Reason != alert.ReasonResolved || len(group.Spent(*f.Out)) != 3 {
		t.Fatalf("flushed %+v", f)
	}
	if _, remove := group.Delivered(f.Group, now); !remove {
		t.Error("an empty group stays")
	}
}

func TestWhatWasNeverToldEndsWithoutAWord(t *testing.T) {
	g, m, _ := group.Fire(fresh(), nil, firing("a"), began)
	g, next, _ := group.End(g, held(m, 1), firing("a"), began.Add(time.Second))
	if next != nil {
		t.Fatalf("stays as %+v", next)
	}
	f, ok := group.Flush(g, 7, nil, true, false, many, began.Add(time.Minute))
	if !ok || f.Out != nil || !f.Remove {
		t.Errorf("flushed %+v, %v", f, ok)
	}
}

func TestResolvedIsNotToldToWhoDoesNotWantIt(t *testing.T) {
	g := fresh()
	g.Mark, g.Flushed, g.Due, g.Firing = 5, began, began.Add(time.Hour), 2
	a, b := held(alert.Member{Alert: firing("a")}, 4), held(alert.Member{Alert: firing("b")}, 5)
	ended := a.Alert
	ended.Ends = began.Add(time.Minute)
	g, m, _ := group.End(g, a, ended, began.Add(time.Minute))
	f, _ := group.Flush(g, 7, []alert.Held{held(*m, 6), b}, false, false, many, g.Due)
	if f.Out != nil || f.Remove || cmp.Diff([]uint64{6}, f.Drop) != "" || !f.Group.Due.Equal(began.Add(4*time.Hour)) {
		t.Errorf("flushed %+v", f)
	}
}

func TestMutedWaits(t *testing.T) {
	g, m, _ := group.Fire(fresh(), nil, firing("a"), began)
	f, ok := group.Flush(g, 7, []alert.Held{held(m, 1)}, true, true, many, g.Due)
	if !ok || f.Out != nil || !f.Timer || !f.Group.Due.Equal(g.Due.Add(5*time.Minute)) || f.Group.Mark != 0 {
		t.Errorf("flushed %+v", f)
	}
}

// News that do not fit are told next, and nothing is told twice because of it.
func TestNewsThatDoNotFitComeNext(t *testing.T) {
	g := fresh()
	var members []alert.Held
	for i, id := range []string{"a", "b", "c", "d", "e"} {
		var m alert.Member
		g, m, _ = group.Fire(g, nil, firing(id), began)
		members = append(members, held(m, uint64(i+1)))
	}
	var told []string
	for revision := uint64(7); revision < 20; revision++ {
		f, ok := group.Flush(g, revision, members, true, false, group.Limits{Alerts: 2, Bytes: 1 << 20}, g.Due)
		if !ok {
			t.Fatal("not due")
		}
		if f.Out == nil || f.Out.Reason == alert.ReasonRepeat {
			break
		}
		mark := g.Mark
		for _, a := range f.Out.Alerts {
			if a.Sequence > mark {
				told = append(told, a.Alert.ID)
			}
		}
		g, _ = group.Delivered(f.Group, f.Group.Flushed)
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "d", "e"}, told); diff != "" {
		t.Error(diff)
	}
}

func TestOneThatIsLargerThanTheBoundIsToldAlone(t *testing.T) {
	g, m, _ := group.Fire(fresh(), nil, firing("a"), began)
	f, _ := group.Flush(g, 7, []alert.Held{held(m, 1)}, true, false, group.Limits{Alerts: 2, Bytes: 1}, g.Due)
	if f.Out == nil || len(f.Out.Alerts) != 1 {
		t.Errorf("flushed %+v", f)
	}
}
