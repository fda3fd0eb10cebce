package bus_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/access/accesstest"
	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/system"
)

// as opens a bus with a role's credentials, once the streams are there, as its process does. (The pipeline's
// own roles run the whole end-to-end suite with theirs.)
func as(t *testing.T, s *accesstest.Server, r access.Role) *bus.Bus {
	t.Helper()
	nc, err := nats.Connect("", s.Options(t, r)...)
	must(t, err)
	t.Cleanup(nc.Close)
	b, err := bus.New(nc, bus.Config{AckWait: time.Second, Poll: 20 * time.Millisecond, Backoff: 20 * time.Millisecond}, bus.Options{Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	must(t, b.Await(t.Context()))
	return b
}

func provisionedByLayercache(t *testing.T) *accesstest.Server {
	t.Helper()
	s := accesstest.Start(t)
	nc := s.Connect(t, access.LayerCache)
	bustest.On(t, nc, bus.Config{}, bus.Options{})
	t.Cleanup(func() {
		for _, v := range s.Violations() {
			t.Error(v)
		}
	})
	return s
}

func TestAuditorMayDoItsWork(t *testing.T) {
	t.Parallel()
	s := provisionedByLayercache(t)
	b, ctx := as(t, s, access.PSAAuditor), t.Context()
	got := make(chan event.Event, 1)
	background(t, func(ctx context.Context) error {
		return b.ConsumeManifests(ctx, 1, func(_ context.Context, e event.Event, _ bus.Delivery) error {
			if e.ID == "bad" {
				return reason.Refusef(reason.Malformed, "no manifest")
			}
			got <- e
			return nil
		})
	})
	in := as(t, s, access.Ingest)
	for _, id := range []string{"bad", "good"} {
		_, err := in.PublishEvent(ctx, manifestEvent(id))
		must(t, err)
	}
	receive(t, "the event", got)
	a := finding.Asset{Workload: finding.Workload{Cluster: "prod", Namespace: "web", Kind: "Pod", Name: "api"}}
	if _, _, err := b.State(ctx, finding.ClassPSA, a); !errors.Is(err, bus.ErrNotFound) {
		t.Fatal(err)
	}
	st := someState("1")
	st.Asset, st.Open = a, nil
	_, err := b.PutState(ctx, finding.ClassPSA, st, 0)
	must(t, err)
	d := someDelta("a", 1)
	d.Asset, d.Finding.Class = a, finding.ClassPSA
	must(t, b.PublishDelta(ctx, d))
	scan := someScan("a")
	scan.Asset = &a
	must(t, b.PublishScan(ctx, scan))
}

func TestRouterMayDoItsWork(t *testing.T) {
	t.Parallel()
	s := provisionedByLayercache(t)
	b, ctx := as(t, s, access.AlertRouter), t.Context()
	deltas, notices, due := make(chan finding.Delta, 1), make(chan system.Notice, 8), make(chan string, 1)
	sent := make(chan alert.Notification, 1)
	background(t, func(ctx context.Context) error {
		return b.ConsumeDeltas(ctx, 1, func(_ context.Context, d finding.Delta, _ bus.Delivery) error { deltas <- d; return nil })
	})
	background(t, func(ctx context.Context) error {
		return b.ConsumeNotices(ctx, 1, func(_ context.Context, n system.Notice, _ bus.Delivery) error { notices <- n; return nil })
	})
	background(t, func(ctx context.Context) error {
		return b.ConsumeDue(ctx, 1, func(_ context.Context, group string) error { due <- group; return nil })
	})
	background(t, func(ctx context.Context) error {
		return b.ConsumeNotifications(ctx, 1, func(_ context.Context, n alert.Notification, _ bus.Delivery) error { sent <- n; return nil })
	})
	scanner := as(t, s, access.Scanner)
	must(t, errors.Join(scanner.PublishDelta(ctx, someDelta("a", 1)), scanner.PublishSystem(ctx, someNotice("a"))))
	receive(t, "the delta", deltas)
	receive(t, "the notice", notices)

	group := alert.Group{ID: "g", Receiver: "r", Integration: "webhook/0", Due: time.Now()}
	n := alert.Notification{ID: "n", Group: "g", Receiver: "r", Integration: "webhook/0", Reason: alert.ReasonFirst, Created: time.Now()}
	must(t, b.CommitAlerts(ctx, alert.Batch{
		Place:   &alert.Place{ID: "p", Revision: 1, Groups: []string{"g"}},
		Groups:  []alert.GroupWrite{{Group: group, Timer: true}},
		Members: []alert.MemberWrite{{Group: "g", ID: "m", Member: &alert.Member{Alert: alert.Alert{ID: "m", Revision: 1}}}},
		Out:     &n,
	}))
	receive(t, "the timer", due)
	receive(t, "the notification", sent)
	_, _, err := b.AlertPlace(ctx, "p")
	must(t, err)
	members, err := b.AlertMembers(ctx, "g")
	must(t, err)
	must(t, b.AlertGroups(ctx, func(alert.Group) error { return nil }))
	must(t, b.PutAlertAttempt(ctx, alert.Attempt{ID: "n", Tries: 1, At: time.Now()}))
	_, err = b.Notifications(ctx)
	must(t, err)
	for _, m := range members {
		must(t, b.DropAlerts(ctx, m.Sequence))
	}
	must(t, b.BuryNotification(ctx, n, 1, reason.Of(reason.Refusef(reason.Malformed, "no"))))
}
