// Package outbox takes alerts to receivers so that whoever dies on the way, nothing is lost and nothing
// is told twice. Each step reads records, decides by package group, and writes all that follows in one
// batch that is refused as a whole when a record was changed meanwhile: an alert with its groups and their
// timers, a group with the notification that it is to be told by, a group whose notification was taken.
//
// The one thing that no batch can hold is the receiver's answer. Who dies between it and the last step
// leaves an attempt that is noted as open, and the next one sends the same again under the same key.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/services/alertrouter/group"
	"github.com/pratique-sec/pratique/services/alertrouter/route"
)

// Store keeps the records; *bus.Bus is one. What is not there is bus.ErrNotFound, with the revision to
// write it with; a batch that lost is bus.ErrConflict.
type Store interface {
	AlertPlace(ctx context.Context, id string) (alert.Place, uint64, error)
	AlertGroup(ctx context.Context, id string) (alert.Group, uint64, error)
	AlertMember(ctx context.Context, group, id string) (alert.Held, error)
	AlertMembers(ctx context.Context, group string) ([]alert.Held, error)
	AlertGroups(ctx context.Context, fn func(alert.Group) error) error
	AlertAttempt(ctx context.Context, notification string) (alert.Attempt, error)
	CommitAlerts(ctx context.Context, b alert.Batch) error
	PutAlertAttempt(ctx context.Context, a alert.Attempt) error
	DropAlerts(ctx context.Context, sequences ...uint64) error
	BuryNotification(ctx context.Context, n alert.Notification, attempts int, why *reason.Error) error
}

// Sender tells receivers; *receiver.Set is one.
type Sender interface {
	Send(ctx context.Context, n alert.Notification, now time.Time, attempt func(context.Context) error) error
}

// Routing is where alerts go at the moment. It may change from call to call.
type Routing func() (*route.Table, Sender)

// Outcome is what became of an event or notification, as metrics count it.
type Outcome string

// Outcomes of Apply.
const (
	Routed    Outcome = "routed"
	Unrouted  Outcome = "unrouted"  // no route leads to a receiver, or none that asks for its cause
	Duplicate Outcome = "duplicate" // this revision was applied already
)

// Outcomes of Deliver.
const (
	Sent  Outcome = "sent"
	Retry Outcome = "retry"
	Dead  Outcome = "dead"  // given up, or refused: in DEADLETTER
	Stale Outcome = "stale" // somebody has sent it already
	Wait  Outcome = "wait"  // its receiver is paused, or busy
)

// Outbox is stateless but for locks that spare its own goroutines conflicts.
type Outbox struct {
	Store   Store
	Routing Routing
	Limits  group.Limits
	GiveUp  time.Duration // how long a notification is tried
	Backoff time.Duration // between attempts to note what a receiver has taken
	Now     func() time.Time
	Log     *slog.Logger
	Repeat  func() // is told of each attempt that may repeat one whose end nobody saw; nil: nobody is

	locks stripes
}

// maxConflicts bounds how often a batch is tried that loses: each time somebody else got on.
const maxConflicts = 200

// Event is a transition of an alert.
type Event struct {
	Alert  alert.Alert // without Starts, Ends and the label of its cause
	Cause  string      // "" for what has none
	Quiet  func(cause string) bool
	Opened bool // it is new: where no route wants it nothing needs to be remembered
	Ended  bool
	At     time.Time
}

// Apply brings an event to every group that it belongs to.
func (o *Outbox) Apply(ctx context.Context, e Event) (Outcome, error) {
	for range maxConflicts {
		outcome, err := o.apply(ctx, e)
		if !errors.Is(err, bus.ErrConflict) {
			return outcome, err
		}
	}
	return "", reason.Retryf(reason.BusUnavailable, "apply alert %s: %d others were faster", e.Alert.ID, maxConflicts)
}

func (o *Outbox) apply(ctx context.Context, e Event) (Outcome, error) {
	place, revision, err := o.Store.AlertPlace(ctx, e.Alert.ID)
	switch {
	case errors.Is(err, bus.ErrNotFound):
	case err != nil:
		return "", err
	case place.Revision >= e.Alert.Revision:
		return Duplicate, nil
	}
	next := alert.Place{ID: e.Alert.ID, Revision: e.Alert.Revision, Cause: e.Cause, Starts: e.At}
	if len(place.Groups) > 0 { // it fires: why and since when it does stays
		next.Cause, next.Starts = place.Cause, place.Starts
	}
	a := e.Alert
	a.Starts = next.Starts
	if next.Cause != "" {
		a.Labels = maps.Clone(a.Labels)
		a.Labels[route.LabelCause] = next.Cause
	}
	var targets []group.Target
	if e.Ended {
		a.Ends = e.At
	} else {
		table, _ := o.Routing()
		targets = table.Match(a.Labels, e.Quiet(next.Cause))
	}
	for _, t := range targets {
		next.Groups = append(next.Groups, t.ID())
	}
	left := slices.DeleteFunc(slices.Clone(place.Groups), func(id string) bool { return slices.Contains(next.Groups, id) })
	if len(targets) == 0 && len(left) == 0 && e.Opened {
		return Unrouted, nil
	}
	defer o.locks.lock(append(slices.Clone(next.Groups), left...)...)()
	slices.Sort(next.Groups)
	if a.Once { // it never ends: the place is kept for a while, to know it again
		next.Groups = nil
	}
	batch := alert.Batch{Place: &next, PlaceRevision: revision}
	for _, t := range targets {
		if err := o.fire(ctx, &batch, t, a); err != nil {
			return "", err
		}
	}
	for _, id := range left {
		ended := a
		ended.Ends = e.At
		if err := o.end(ctx, &batch, id, ended); err != nil {
			return "", err
		}
	}
	if err := o.Store.CommitAlerts(ctx, batch); err != nil {
		return "", err
	}
	if len(targets) == 0 && len(left) == 0 {
		return Unrouted, nil
	}
	return Routed, nil
}

func (o *Outbox) fire(ctx context.Context, b *alert.Batch, t group.Target, a alert.Alert) error {
	g, revision, err := o.Store.AlertGroup(ctx, t.ID())
	if errors.Is(err, bus.ErrNotFound) {
		g, err = t.Empty(), nil
	}
	if err != nil {
		return err
	}
	var prev *alert.Held
	switch held, err := o.Store.AlertMember(ctx, g.ID, a.ID); {
	case err == nil:
		prev = &held
	case !errors.Is(err, bus.ErrNotFound):
		return err
	}
	next, member, timer := group.Fire(group.Configured(g, t), prev, a, o.Now())
	b.Groups = append(b.Groups, alert.GroupWrite{Group: next, Revision: revision, Timer: timer})
	b.Members = append(b.Members, alert.MemberWrite{Group: g.ID, ID: a.ID, Member: &member})
	return nil
}

// end ends an alert in a group that it has left. The group is written even where nothing is to be told:
// whoever has just read it, and the alert in it, must read again.
func (o *Outbox) end(ctx context.Context, b *alert.Batch, id string, ended alert.Alert) error {
	g, revision, err := o.Store.AlertGroup(ctx, id)
	if errors.Is(err, bus.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	held, err := o.Store.AlertMember(ctx, id, ended.ID)
	if errors.Is(err, bus.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	next, member, timer := group.End(g, held, ended, o.Now())
	b.Groups = append(b.Groups, alert.GroupWrite{Group: next, Revision: revision, Timer: timer})
	b.Members = append(b.Members, alert.MemberWrite{Group: id, ID: ended.ID, Member: member})
	return nil
}

// soon is how much before its time a group's timer may fire, by a server whose clock is ahead.
const soon = 5 * time.Second

// Flush looks whether a group whose timer fired has something to tell, and if so puts it into the outbox.
func (o *Outbox) Flush(ctx context.Context, id string) error {
	for range maxConflicts {
		wait, err := o.flush(ctx, id)
		switch {
		case err == nil && wait == 0:
			return nil
		case err == nil:
			if err := sleep(ctx, wait); err != nil {
				return err
			}
		case !errors.Is(err, bus.ErrConflict):
			return err
		}
	}
	return reason.Retryf(reason.BusUnavailable, "flush group %s: %d others were faster", id, maxConflicts)
}

func (o *Outbox) flush(ctx context.Context, id string) (wait time.Duration, err error) {
	defer o.locks.lock(id)()
	g, revision, err := o.Store.AlertGroup(ctx, id)
	if errors.Is(err, bus.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := o.Now()
	if early := g.Due.Sub(now); g.Sending == "" && early > 0 && early <= soon {
		return early, nil
	}
	members, err := o.Store.AlertMembers(ctx, id)
	if err != nil {
		return 0, err
	}
	table, _ := o.Routing()
	how, ok := table.Integration(g.Receiver, g.Integration)
	if !ok {
		return 0, o.dissolve(ctx, g, revision, members)
	}
	f, ok := group.Flush(g, revision, members, how.SendResolved, table.Muted(g.Mute, g.Active, now), o.Limits, now)
	if !ok {
		return 0, nil // another timer is set, or a delivery sets it
	}
	if err := o.Store.DropAlerts(ctx, f.Drop...); err != nil {
		return 0, err
	}
	return 0, o.Store.CommitAlerts(ctx, alert.Batch{
		Groups: []alert.GroupWrite{{Group: f.Group, Revision: revision, Remove: f.Remove, Timer: f.Timer}},
		Out:    f.Out,
	})
}

// dissolve removes a group that nobody is told of any more.
func (o *Outbox) dissolve(ctx context.Context, g alert.Group, revision uint64, members []alert.Held) error {
	if g.Sending != "" {
		return nil // its notification finds out
	}
	o.Log.WarnContext(ctx, "group dropped, its receiver is no longer configured",
		slog.String("receiver", g.Receiver), slog.String("integration", g.Integration), slog.Int("alerts", len(members)))
	for _, m := range members {
		if err := o.Store.DropAlerts(ctx, m.Sequence); err != nil {
			return err
		}
	}
	return o.Store.CommitAlerts(ctx, alert.Batch{Groups: []alert.GroupWrite{{Group: g, Revision: revision, Remove: true}}})
}

// overdue is how late a group is that missed its timer.
const overdue = time.Minute

// Sweep finds groups whose timer or notification was lost, which the store does not do by itself.
func (o *Outbox) Sweep(ctx context.Context) error {
	var late, stuck []alert.Group
	now := o.Now()
	err := o.Store.AlertGroups(ctx, func(g alert.Group) error {
		switch {
		case g.Sending == "" && now.After(g.Due.Add(overdue)):
			late = append(late, g)
		case g.Sending != "" && now.After(g.Flushed.Add(o.GiveUp+time.Hour)):
			stuck = append(stuck, g)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read groups: %w", err)
	}
	for _, g := range late {
		if err := o.Flush(ctx, g.ID); err != nil {
			return err
		}
	}
	for _, g := range stuck {
		o.Log.WarnContext(ctx, "notification was lost, its group goes on", slog.String("notification", g.Sending), slog.String("receiver", g.Receiver))
		if err := o.delivered(ctx, alert.Notification{ID: g.Sending, Group: g.ID}); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
