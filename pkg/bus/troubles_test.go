package bus_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/system"
)

// troubles are the present ones, by what they are about.
func troubles(t *testing.T, b *bus.Bus) map[string]system.Notice {
	t.Helper()
	all, err := b.Troubles(t.Context())
	must(t, err)
	out := map[string]system.Notice{}
	for _, n := range all {
		out[n.Subject] = n
	}
	return out
}

func wantSubjects(t *testing.T, got map[string]system.Notice, want ...string) {
	t.Helper()
	if have := slices.Sorted(maps.Keys(got)); !slices.Equal(have, want) {
		t.Fatalf("troubles with %q, want %q", have, want)
	}
}

func TestFullStreamsAreTroubles(t *testing.T) {
	t.Parallel()
	nc, now := bustest.Start(t), noon
	b := bustest.On(t, nc, bus.Config{MaxBytes: 1 << 20}, bus.Options{Now: func() time.Time { return now }})
	js, err := jetstream.New(nc)
	must(t, err)
	wantSubjects(t, troubles(t, b))

	fill := func(subject string) {
		for i := range 300 { // of 4 KiB each
			_, err := js.Publish(t.Context(), subject, make([]byte, 4<<10))
			if err != nil && i < 200 {
				t.Fatal(err)
			}
		}
	}
	fill("pratique.finding.v1.vuln.opened.low.x") // drops
	fill("pratique.event.image.x.push")           // refuses
	got := troubles(t, b)
	wantSubjects(t, got, "EVENTS", "FINDINGS")
	for subject, says := range map[string]string{"FINDINGS": "it drops its oldest", "EVENTS": "it takes nothing more"} {
		if n := got[subject]; n.Kind != system.StreamFull || !strings.Contains(n.Message, says) || !n.At.Equal(now) {
			t.Errorf("%s: %+v, want it to say %q", subject, n, says)
		}
	}

	now = now.Add(time.Hour)
	if again := troubles(t, b); again["FINDINGS"].ID != got["FINDINGS"].ID || again["FINDINGS"].ID == again["EVENTS"].ID {
		t.Error("the same trouble on the same day is another notice, or two troubles are one")
	}
	now = now.Add(24 * time.Hour)
	if troubles(t, b)["FINDINGS"].ID == got["FINDINGS"].ID {
		t.Error("a trouble that lasts is not told again the next day")
	}
}

func TestChangedConsumersAreTroubles(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	js, err := jetstream.New(nc)
	must(t, err)

	c, err := js.Consumer(t.Context(), "WORK", "match-push")
	must(t, err)
	changed := c.CachedInfo().Config
	changed.MaxDeliver = 3
	_, err = js.UpdateConsumer(t.Context(), "WORK", changed)
	must(t, err)
	changed.MaxDeliver, changed.AckWait = -1, time.Minute // an operator may
	changed.Name, changed.Durable, changed.FilterSubject = "match-interactive", "match-interactive", "pratique.work.interactive.match.*"
	_, err = js.UpdateConsumer(t.Context(), "WORK", changed)
	must(t, err)
	must(t, js.DeleteConsumer(t.Context(), "EVENTS", "layercache"))
	_, err = js.CreateConsumer(t.Context(), "EVENTS", jetstream.ConsumerConfig{
		Durable: "layercache", AckPolicy: jetstream.AckAllPolicy, MaxDeliver: -1, Metadata: map[string]string{"pratique-schema": "1000"},
	})
	must(t, err)
	_, err = js.CreateConsumer(t.Context(), "EVENTS", jetstream.ConsumerConfig{Durable: "theirs", AckPolicy: jetstream.AckNonePolicy})
	must(t, err)

	must(t, b.Provision(t.Context())) // leaves what somebody changed
	got := troubles(t, b)
	wantSubjects(t, got, "EVENTS/layercache", "WORK/match-push")
	for _, n := range got {
		if n.Kind != system.ConsumerMisconfigured || !strings.Contains(n.Message, "loses jobs") {
			t.Errorf("%+v", n)
		}
	}
}

// A paused consumer answers whoever asks as an empty one does: only its numbers tell.
func TestPausedConsumerIsATrouble(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	js, err := jetstream.New(nc)
	must(t, err)
	_, err = js.PauseConsumer(t.Context(), "WORK", "image-push", time.Now().Add(time.Hour))
	must(t, err)
	got := troubles(t, b)
	wantSubjects(t, got, "WORK/image-push")
	if n := got["WORK/image-push"]; n.Kind != system.ConsumerMisconfigured || !strings.Contains(n.Message, "nats consumer resume WORK image-push") {
		t.Errorf("%+v", n)
	}
	_, err = js.ResumeConsumer(t.Context(), "WORK", "image-push")
	must(t, err)
	wantSubjects(t, troubles(t, b))
}
