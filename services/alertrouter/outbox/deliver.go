package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/services/alertrouter/group"
)

// Deliver sends a notification, unless that was done, and notes that it was taken. An error hands it back;
// it is of no further use otherwise.
func (o *Outbox) Deliver(ctx context.Context, n alert.Notification) (Outcome, error) {
	switch g, _, err := o.Store.AlertGroup(ctx, n.Group); {
	case errors.Is(err, bus.ErrNotFound), err == nil && g.Sending != n.ID:
		return Stale, nil
	case err != nil:
		return "", err
	}
	tried, err := o.Store.AlertAttempt(ctx, n.ID)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return "", err
	}
	began := false
	_, sender := o.Routing()
	err = sender.Send(ctx, n, o.Now(), func(ctx context.Context) error {
		if tried.Open {
			o.Log.WarnContext(ctx, "notification is sent again, nobody saw the last attempt end",
				slog.String("notification", n.ID), slog.String("receiver", n.Receiver), slog.String("integration", n.Integration))
			if o.Repeat != nil {
				o.Repeat()
			}
		}
		tried = alert.Attempt{ID: n.ID, Tries: tried.Tries + 1, Open: true, At: o.Now()}
		began = true
		return o.Store.PutAlertAttempt(ctx, tried)
	})
	if err == nil {
		return Sent, o.delivered(ctx, n)
	}
	e := reason.Of(err)
	switch {
	case e.Kind != reason.Retry:
		return o.giveUp(ctx, n, tried.Tries, e)
	case o.Now().Sub(n.Created) > o.GiveUp && tried.Tries > 0:
		e.Err = fmt.Errorf("not taken for %v: %w", o.GiveUp, e.Err)
		return o.giveUp(ctx, n, tried.Tries, e)
	case !began:
		return Wait, err
	}
	tried.Open, tried.Error, tried.At = false, e.Error(), o.Now()
	if err := o.Store.PutAlertAttempt(ctx, tried); err != nil {
		o.Log.WarnContext(ctx, "note attempt failed", slog.Any("error", err)) // the next one counts as a possible repeat
	}
	return Retry, err
}

// giveUp makes a dead letter of a notification; then its group goes on as if it had been taken.
func (o *Outbox) giveUp(ctx context.Context, n alert.Notification, tries int, why *reason.Error) (Outcome, error) {
	o.Log.ErrorContext(ctx, "notification given up", slog.String("notification", n.ID), slog.String("receiver", n.Receiver),
		slog.String("integration", n.Integration), slog.Int("alerts", len(n.Alerts)), slog.Int("attempts", tries), slog.Any("error", why))
	refused := &reason.Error{Kind: reason.Refuse, Code: why.Code, Err: why.Err}
	if err := o.Store.BuryNotification(ctx, n, tries, refused); err != nil {
		return "", err
	}
	return Dead, o.delivered(ctx, n)
}

// delivered notes that a notification is done with. It does not give up while ctx lasts: to hand the
// message back now would send it again.
func (o *Outbox) delivered(ctx context.Context, n alert.Notification) error {
	for {
		err := o.settle(ctx, n)
		if err == nil {
			return nil
		}
		if !errors.Is(err, bus.ErrConflict) {
			o.Log.WarnContext(ctx, "note delivery failed, will retry", slog.String("notification", n.ID), slog.Any("error", err))
			if sleep(ctx, o.Backoff) != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return err
		}
	}
}

func (o *Outbox) settle(ctx context.Context, n alert.Notification) error {
	defer o.locks.lock(n.Group)()
	g, revision, err := o.Store.AlertGroup(ctx, n.Group)
	switch {
	case errors.Is(err, bus.ErrNotFound), err == nil && g.Sending != n.ID:
		return nil
	case err != nil:
		return err
	}
	next, remove := group.Delivered(g, o.Now())
	batch := alert.Batch{Groups: []alert.GroupWrite{{Group: next, Revision: revision, Remove: remove, Timer: !remove}}}
	spent := group.Spent(n)
	if remove { // with it, or they would be found by the next group of this name
		for _, t := range spent {
			batch.Members = append(batch.Members, alert.MemberWrite{Group: n.Group, ID: t.Alert.ID})
		}
		return o.Store.CommitAlerts(ctx, batch)
	}
	if err := o.Store.CommitAlerts(ctx, batch); err != nil {
		return err
	}
	for _, t := range spent {
		if err := o.Store.DropAlerts(ctx, t.Sequence); err != nil {
			o.Log.DebugContext(ctx, "drop told alert failed, the next look does it", slog.Any("error", err))
			break
		}
	}
	return nil
}
