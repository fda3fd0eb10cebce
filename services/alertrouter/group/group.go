// Package group is the life of alerts that are told together, as values: what an alert that comes, the
// timer that fires and the notification that was delivered make of a group. It reads no clock and stores
// nothing; whoever calls it writes what it answers, compare-and-set.
//
// A member was told when its sequence is at or below the group's mark: telling a group writes the group
// alone, however many members it has. While a notification is on its way the group is not told again, so
// that a receiver gets news in order, and after an outage only how things are now.
package group

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/key"
)

// Target is where a route leads an alert: a group, and how that is told.
type Target struct {
	Receiver, Integration string
	Labels                map[string]string
	RouteLabels           map[string]string
	alert.Timing
	Mute, Active []string
}

// ID names the target's group.
func (t Target) ID() string { return ID(t.Receiver, t.Integration, t.Labels) }

// Empty is the target's group before its first alert.
func (t Target) Empty() alert.Group {
	return alert.Group{ID: t.ID(), Receiver: t.Receiver, Integration: t.Integration, Labels: t.Labels}
}

// Configured is a group with what the route says now.
func Configured(g alert.Group, t Target) alert.Group {
	g.RouteLabels, g.Timing, g.Mute, g.Active = t.RouteLabels, t.Timing, t.Mute, t.Active
	return g
}

// Fire puts an alert that fires into a group. prev is what the group holds of it, nil for nothing. timer
// tells that the group's timer must be set.
func Fire(g alert.Group, prev *alert.Held, a alert.Alert, now time.Time) (next alert.Group, m alert.Member, timer bool) {
	m = alert.Member{Alert: a, Told: told(g, prev)}
	next, timer = news(g, now)
	return next, m, timer
}

// End ends an alert of a group. One that was never told is taken out of it without a word: m is nil.
func End(g alert.Group, prev alert.Held, ended alert.Alert, now time.Time) (next alert.Group, m *alert.Member, timer bool) {
	if !told(g, &prev) {
		return g, nil, false
	}
	// It is known to receivers by the labels that it was told with.
	a := prev.Alert
	a.Revision, a.Ends, a.Trace = ended.Revision, ended.Ends, ended.Trace
	a.Annotations = ended.Annotations
	next, timer = news(g, now)
	return next, &alert.Member{Alert: a, Told: true}, timer
}

// told tells whether receivers believe that an alert fires.
func told(g alert.Group, m *alert.Held) bool {
	switch {
	case m == nil:
		return false
	case m.Sequence <= g.Mark:
		return m.Alert.Firing()
	default:
		return m.Told
	}
}

// news notes that there is something to tell, and when.
func news(g alert.Group, now time.Time) (alert.Group, bool) {
	g.Untold = true
	if g.Sending != "" {
		return g, false // its delivery sets the timer
	}
	due := now.Add(g.Wait)
	if !g.Flushed.IsZero() {
		due = later(g.Flushed.Add(g.Interval), now)
	}
	if !g.Due.IsZero() && !due.Before(g.Due) {
		return g, false
	}
	g.Due = due
	return g, true
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// Limits of one notification.
type Limits struct {
	Alerts int // most alerts
	Bytes  int // most text in them
}

// Flushed is what a look into a group leads to.
type Flushed struct {
	Group  alert.Group
	Out    *alert.Notification // nil: nothing is sent
	Remove bool                // the group is empty
	Timer  bool                // the group's timer is to be set
	Drop   []uint64            // members of no use any more, whatever else happens: to be dropped before the group is written
}

// Flush looks whether a group that is due has something to tell. revision is that of the group; together
// they name the notification. ok is false when it is not its time, or one is on its way.
func Flush(g alert.Group, revision uint64, members []alert.Held, sendResolved, muted bool, most Limits, now time.Time) (f Flushed, ok bool) {
	if g.Sending != "" || g.Due.IsZero() || now.Before(g.Due) {
		return Flushed{}, false
	}
	if muted {
		g.Due = now.Add(g.Interval)
		return Flushed{Group: g, Timer: true}, true
	}
	var fresh, old []alert.Held // to be told for the first time; told, and still firing
	for _, m := range members {
		switch known := m.Sequence <= g.Mark; {
		case !known && (m.Alert.Firing() || sendResolved):
			fresh = append(fresh, m)
		case known && m.Alert.Firing() && !m.Alert.Once:
			old = append(old, m)
		default:
			f.Drop = append(f.Drop, m.Sequence)
		}
	}
	slices.SortFunc(fresh, bySequence)
	repeat := !g.Flushed.Add(g.Repeat).After(now)
	if len(fresh) == 0 && (len(old) == 0 || !repeat) {
		g.Untold, g.Firing = false, len(old)
		f.Group = g
		f.Remove = len(old) == 0
		if !f.Remove {
			f.Group.Due, f.Timer = later(g.Flushed.Add(g.Repeat), now), true
		}
		return f, true
	}
	f.Group, f.Out = tell(g, revision, fresh, old, most, now)
	return f, true
}

func bySequence(a, b alert.Held) int { return cmp.Compare(a.Sequence, b.Sequence) }

// tell makes the notification. News that do not fit are told in the next one; of what was told before, as
// much as fits is told again, as Alertmanager does.
func tell(g alert.Group, revision uint64, fresh, old []alert.Held, most Limits, now time.Time) (alert.Group, *alert.Notification) {
	n := &alert.Notification{
		ID: NotificationID(g.ID, revision), Group: g.ID, Receiver: g.Receiver, Integration: g.Integration,
		Labels: g.Labels, RouteLabels: g.RouteLabels, Reason: reasonOf(g, fresh), Created: now,
	}
	room := most.Bytes
	fits := func(m alert.Held) bool {
		size := sizeOf(m.Alert)
		if len(n.Alerts) > 0 && (len(n.Alerts) >= most.Alerts || size > room) {
			return false
		}
		room -= size
		n.Alerts = append(n.Alerts, alert.Told{Alert: m.Alert, Sequence: m.Sequence})
		return true
	}
	remaining := 0 // firing or still to be told
	g.Untold = false
	for i, m := range fresh {
		if !fits(m) {
			g.Untold = true
			n.Truncated += len(fresh) - i
			remaining += len(fresh) - i
			break
		}
		g.Mark = max(g.Mark, m.Sequence)
		if m.Alert.Firing() && !m.Alert.Once {
			remaining++
		}
	}
	for i, m := range old {
		if !fits(m) {
			n.Truncated += len(old) - i
			break
		}
	}
	g.Firing = remaining + len(old)
	g.Sending, g.Flushed, g.Due = n.ID, now, time.Time{}
	return g, n
}

func reasonOf(g alert.Group, fresh []alert.Held) string {
	switch {
	case g.Flushed.IsZero():
		return alert.ReasonFirst
	case len(fresh) == 0:
		return alert.ReasonRepeat
	case slices.ContainsFunc(fresh, func(m alert.Held) bool { return m.Alert.Firing() }):
		return alert.ReasonNew
	default:
		return alert.ReasonResolved
	}
}

func sizeOf(a alert.Alert) int {
	n := len(a.ID) + len(a.Trace)
	for k, v := range a.Labels {
		n += len(k) + len(v)
	}
	for k, v := range a.Annotations {
		n += len(k) + len(v)
	}
	return n
}

// NotificationID names what a look into a group at one of its revisions decides to send. A revision is
// written once, and never comes again, so neither does the id.
func NotificationID(group string, revision uint64) string {
	return key.Of("notification.v1", group, strconv.FormatUint(revision, 10))
}

// Delivered is a group after its notification was taken, or given up. remove tells that nothing is left in
// it; otherwise its timer is to be set.
func Delivered(g alert.Group, now time.Time) (next alert.Group, remove bool) {
	g.Sending = ""
	switch {
	case g.Untold:
		g.Due = later(g.Flushed.Add(g.Interval), now)
	case g.Firing > 0:
		g.Due = later(g.Flushed.Add(g.Repeat), now)
	default:
		return g, true
	}
	return g, false
}

// Spent are the alerts that a notification told for the last time.
func Spent(n alert.Notification) []alert.Told {
	return slices.DeleteFunc(slices.Clone(n.Alerts), func(t alert.Told) bool { return t.Alert.Firing() && !t.Alert.Once })
}
