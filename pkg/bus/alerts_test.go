package bus_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
)

func alertGroup(id string) alert.Group {
	return alert.Group{ID: id, Receiver: "team", Integration: "webhook/0", Untold: true}
}

func alertMember(id string) *alert.Member {
	return &alert.Member{Alert: alert.Alert{ID: id, Revision: 1, Labels: map[string]string{"a": id}}}
}

// members are the ids of a group's alerts.
func members(t *testing.T, b *bus.Bus, group string) (ids []string) {
	t.Helper()
	all, err := b.AlertMembers(t.Context(), group)
	must(t, err)
	for _, m := range all {
		ids = append(ids, m.Alert.ID)
	}
	return ids
}

func TestAlertBatchIsStoredAsAWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	place := alert.Place{ID: "f1", Revision: 1, Groups: []string{"g1", "g2"}}
	must(t, b.CommitAlerts(t.Context(), alert.Batch{
		Place:   &place,
		Groups:  []alert.GroupWrite{{Group: alertGroup("g1")}, {Group: alertGroup("g2")}},
		Members: []alert.MemberWrite{{Group: "g1", ID: "f1", Member: alertMember("f1")}, {Group: "g2", ID: "f1", Member: alertMember("f1")}},
	}))
	got, placeRevision, err := b.AlertPlace(t.Context(), "f1")
	if err != nil || cmp.Diff(place, got) != "" {
		t.Fatalf("place is %+v, %v", got, err)
	}
	g1, revision, err := b.AlertGroup(t.Context(), "g1")
	if err != nil || g1.ID != "g1" {
		t.Fatalf("group is %+v, %v", g1, err)
	}
	// One stale revision among three records refuses all of them.
	place.Revision = 2
	err = b.CommitAlerts(t.Context(), alert.Batch{
		Place: &place, PlaceRevision: placeRevision,
		Groups:  []alert.GroupWrite{{Group: alertGroup("g1"), Revision: revision}, {Group: alertGroup("g2"), Revision: revision}},
		Members: []alert.MemberWrite{{Group: "g1", ID: "f2", Member: alertMember("f2")}},
		Out:     &alert.Notification{ID: "n1", Group: "g1", Receiver: "team"},
	})
	if !errors.Is(err, bus.ErrConflict) {
		t.Fatalf("CommitAlerts = %v", err)
	}
	if got, _, _ := b.AlertPlace(t.Context(), "f1"); got.Revision != 1 {
		t.Error("the place was written")
	}
	if diff := cmp.Diff([]string{"f1"}, members(t, b, "g1")); diff != "" {
		t.Error(diff)
	}
	if n, err := b.Notifications(t.Context()); n != 0 || err != nil {
		t.Errorf("%d notifications, %v", n, err)
	}
	// Removing, and beginning again on what was removed.
	must(t, b.CommitAlerts(t.Context(), alert.Batch{
		Groups:  []alert.GroupWrite{{Group: g1, Revision: revision, Remove: true}},
		Members: []alert.MemberWrite{{Group: "g1", ID: "f1"}},
	}))
	_, revision, err = b.AlertGroup(t.Context(), "g1")
	if !errors.Is(err, bus.ErrNotFound) || len(members(t, b, "g1")) != 0 {
		t.Fatalf("a removed group: %v", err)
	}
	must(t, b.CommitAlerts(t.Context(), alert.Batch{Groups: []alert.GroupWrite{{Group: alertGroup("g1"), Revision: revision}}}))
	if err := b.CommitAlerts(t.Context(), alert.Batch{}); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

func TestAlertTimer(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	fired := make(chan string, 10)
	background(t, func(ctx context.Context) error {
		return b.ConsumeDue(ctx, 2, func(_ context.Context, group string) error {
			fired <- group
			return nil
		})
	})
	set := func(id string, at time.Time, revision uint64) {
		g := alertGroup(id)
		g.Due = at
		must(t, b.CommitAlerts(t.Context(), alert.Batch{Groups: []alert.GroupWrite{{Group: g, Revision: revision, Timer: true}}}))
	}
	set("never", time.Now().Add(time.Hour), 0)
	set("past", time.Now().Add(-time.Hour), 0)
	if got := receive(t, "the one of the past", fired); got != "past" {
		t.Errorf("%s fired", got)
	}
	// Set again, it fires at its new time alone.
	at := time.Now().Add(700 * time.Millisecond)
	set("moved", time.Now().Add(time.Hour), 0)
	_, revision, err := b.AlertGroup(t.Context(), "moved")
	must(t, err)
	set("moved", at, revision)
	if got := receive(t, "the one that was moved", fired); got != "moved" {
		t.Errorf("%s fired", got)
	}
	if early := time.Until(at); early > 0 {
		t.Errorf("%v too early", early)
	}
}

func TestNotificationsComeWholeAndGo(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	n := alert.Notification{
		ID: "n1", Group: "g1", Receiver: "a team / with *.> in its name", Integration: "webhook/0", Reason: alert.ReasonNew, Created: time.Now().UTC(),
		Alerts: []alert.Told{{Alert: alert.Alert{ID: "f1", Labels: map[string]string{"a": strings.Repeat("x", 1<<20)}}, Sequence: 7}},
	}
	must(t, b.CommitAlerts(t.Context(), alert.Batch{Groups: []alert.GroupWrite{{Group: alertGroup("g1")}}, Out: &n}))
	got := make(chan alert.Notification, 10)
	background(t, func(ctx context.Context) error {
		return b.ConsumeNotifications(ctx, 2, func(_ context.Context, n alert.Notification, _ bus.Delivery) error {
			got <- n
			return nil
		})
	})
	if diff := cmp.Diff(n, receive(t, "the notification", got)); diff != "" {
		t.Error(diff)
	}
	eventually(t, "it is gone", func() bool {
		n, err := b.Notifications(t.Context())
		return err == nil && n == 0
	})
}

func TestAlertAttempts(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	if _, err := b.AlertAttempt(t.Context(), "n1"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("AlertAttempt = %v", err)
	}
	want := alert.Attempt{ID: "n1", Tries: 2, Open: true, At: time.Now().UTC()}
	must(t, b.PutAlertAttempt(t.Context(), want))
	if got, err := b.AlertAttempt(t.Context(), "n1"); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("AlertAttempt = %+v, %v", got, err)
	}
	must(t, b.DropAlerts(t.Context(), 1, 999)) // one that is not there is no error
}

// A full ALERTS would drop its oldest groups: deltas wait in FINDINGS instead.
func TestFullAlertsTakesNoDeltas(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	js, err := jetstream.New(nc)
	must(t, err)
	s, err := js.Stream(t.Context(), "ALERTS")
	must(t, err)
	small := s.CachedInfo().Config
	small.MaxBytes = 1 << 20
	_, err = js.UpdateStream(t.Context(), small)
	must(t, err)
	noise := make([]byte, 64<<10)
	for i := range 15 { // 94 %
		for at := range noise {
			noise[at] = byte('a' + rand.N(26))
		}
		m := alertMember("f1")
		m.Alert.Annotations = map[string]string{"noise": string(noise)}
		must(t, b.CommitAlerts(t.Context(), alert.Batch{Members: []alert.MemberWrite{{Group: fmt.Sprintf("g%d", i), ID: "f1", Member: m}}}))
	}
	took := make(chan string, 10)
	background(t, func(ctx context.Context) error {
		return b.ConsumeDeltas(ctx, 2, func(_ context.Context, d finding.Delta, _ bus.Delivery) error {
			took <- d.EventID
			return nil
		})
	})
	must(t, b.PublishDelta(t.Context(), finding.Delta{
		EventID: "e1", Transition: finding.Opened, Finding: finding.Finding{ID: "f1", Class: finding.ClassVuln},
		Asset: finding.Asset{Host: "h", Repository: "r", Track: "t", Platform: image.Platform{OS: "linux", Architecture: "amd64"}},
	}))
	eventually(t, "it was handed back", func() bool {
		c, err := js.Consumer(t.Context(), "FINDINGS", "alertrouter")
		must(t, err)
		return c.CachedInfo().NumAckPending == 1 && c.CachedInfo().Delivered.Consumer == 1
	})
	if len(took) > 0 {
		t.Error("it was taken")
	}
}
