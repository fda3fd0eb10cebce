package bus_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/report"
)

func manifestEvent(id string) event.Event {
	return event.Event{
		ID: id, Kind: event.KindManifest, Source: "api", Action: event.Request, Cause: event.CauseRequest,
		Received: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC),
		Manifests: event.Manifests{
			Cluster: "prod", Namespace: "default",
			Body: bytes.Repeat([]byte("kind: Pod # of which there are many\n---\n"), 100_000),
		},
	}
}

// Who plans images never sees manifests, and who audits manifests sees nothing else.
func TestEachKindOfEventHasItsConsumer(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	manifests, images := make(chan event.Event, 10), make(chan event.Event, 10)
	background(t, func(ctx context.Context) error {
		return b.ConsumeManifests(ctx, 1, func(_ context.Context, e event.Event, _ bus.Delivery) error { manifests <- e; return nil })
	})
	background(t, func(ctx context.Context) error {
		return b.ConsumeEvents(ctx, 1, func(_ context.Context, e event.Event, _ bus.Delivery) error { images <- e; return nil })
	})
	seq, err := b.PublishEvent(t.Context(), manifestEvent("m"))
	must(t, err)
	_, err = b.PublishEvent(t.Context(), pushEvent("i"))
	must(t, err)
	if diff := cmp.Diff(manifestEvent("m"), receive(t, "the manifests", manifests)); diff != "" {
		t.Errorf("manifests changed on their way (-want +got):\n%s", diff)
	}
	if got := receive(t, "the image event", images); got.ID != "i" {
		t.Errorf("the planner got %q", got.ID)
	}
	if len(images)+len(manifests) != 0 {
		t.Error("an event went both ways")
	}
	if got, err := b.Event(t.Context(), seq); err != nil || got.Manifests.Cluster != "prod" {
		t.Errorf("read again: %+v, %v", got, err)
	}
}

// An installation of before manifests has a consumer of all events. It keeps its position, and what it has
// in flight stays acknowledgeable: a new one would plan a week's images again.
func TestProvisionNarrowsAConsumer(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	js, err := jetstream.New(nc)
	must(t, err)
	must(t, js.DeleteConsumer(t.Context(), "EVENTS", "layercache"))
	_, err = js.CreateConsumer(t.Context(), "EVENTS", jetstream.ConsumerConfig{
		Durable: "layercache", FilterSubject: "pratique.event.>", AckPolicy: jetstream.AckExplicitPolicy, MaxWaiting: 10_000,
		Metadata: map[string]string{"pratique-schema": "1"},
	})
	must(t, err)
	for _, id := range []string{"done", "in flight", "waiting"} {
		_, err := b.PublishEvent(t.Context(), pushEvent(id))
		must(t, err)
	}
	next := func() *nats.Msg {
		m, err := nc.Request("$JS.API.CONSUMER.MSG.NEXT.EVENTS.layercache", []byte("1"), nats.DefaultTimeout)
		must(t, err)
		return m
	}
	must(t, next().AckSync())
	inFlight := next()

	must(t, b.Provision(t.Context()))
	_, err = b.PublishEvent(t.Context(), manifestEvent("m"))
	must(t, err)
	must(t, inFlight.AckSync())
	seen := make(chan string, 10)
	background(t, func(ctx context.Context) error {
		return b.ConsumeEvents(ctx, 1, func(_ context.Context, e event.Event, _ bus.Delivery) error { seen <- e.ID; return nil })
	})
	if got := receive(t, "the event that waited", seen); got != "waiting" {
		t.Errorf("delivered %q", got)
	}
	_, err = b.PublishEvent(t.Context(), pushEvent("last"))
	must(t, err)
	if got := receive(t, "the next event", seen); got != "last" {
		t.Errorf("delivered %q", got)
	}
}

// Subjects are API: cluster, namespace and kind are the scope, the name the leaf.
func TestSubjectsOfWorkloads(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	a := finding.Asset{Workload: finding.Workload{Cluster: "eu.prod", Namespace: "team-a", Kind: "Deployment", Name: "api.v2"}}
	f := finding.Finding{ID: "f", Revision: 1, Class: finding.ClassPSA, Severity: report.High, PodSecurity: finding.PodSecurity{Check: "privileged"}}
	must(t, b.PublishDelta(t.Context(), finding.Delta{EventID: "e", Asset: a, Transition: finding.Opened, Finding: f}))
	must(t, b.PublishScan(t.Context(), finding.Scan{ID: "s", Asset: &a, Outcome: report.Findings}))
	_, err := b.PutState(t.Context(), finding.ClassPSA, finding.State{Asset: a, Generation: 1, Open: []finding.Finding{f}}, 0)
	must(t, err)
	js, err := jetstream.New(nc)
	must(t, err)
	for stream, subject := range map[string]string{
		"FINDINGS": "pratique.finding.v1.psa.opened.high.eu%2Eprod.team-a.Deployment.api%2Ev2",
		"SCANS":    "pratique.scan.v1.findings.eu%2Eprod.team-a.Deployment.api%2Ev2",
		"STATE":    "pratique.state.v1.psa.eu%2Eprod.team-a.Deployment.api%2Ev2",
	} {
		s, err := js.Stream(t.Context(), stream)
		must(t, err)
		if _, err := s.GetLastMsgForSubject(t.Context(), subject); err != nil {
			t.Errorf("%s: nothing on %s: %v", stream, subject, err)
		}
	}
	if s, _, err := b.State(t.Context(), finding.ClassPSA, a); err != nil || len(s.Open) != 1 {
		t.Errorf("state %+v, %v", s, err)
	}
}
