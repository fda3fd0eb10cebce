package bus_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/work"
)

func TestProvisionAtOnceAndAgain(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	var all sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		b, err := bus.New(bustest.Connect(t, s), bus.Config{MaxBytes: 64 << 20}, bus.Options{Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		all.Go(func() { errs <- b.Provision(t.Context()) })
	}
	all.Wait()
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// Two installations on one server share nothing.
func TestRootsAreApart(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t)
	one := bustest.On(t, nc, bus.Config{MaxBytes: 64 << 20}, bus.Options{})
	two := bustest.On(t, nc, bus.Config{MaxBytes: 64 << 20, Root: "other"}, bus.Options{})
	must(t, one.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	must(t, two.PublishLayer(t.Context(), layerJob("a", work.Push, work.S)))
	if queued, _ := pending(t, two, work.Push); queued != 1 {
		t.Errorf("the second installation has %d jobs, want 1", queued)
	}
	if _, err := bus.New(nc, bus.Config{Root: "a.b"}, bus.Options{}); err == nil {
		t.Error("a root of two tokens was accepted")
	}
}

func TestProvisionUpdatesOnlyWhatIsOlder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, schema string
		updated      bool
	}{
		{"made by hand", "", true},
		{"made by an older release", "0", true},
		{"made by this release, limit changed since", "2", false},
		{"made by a newer release", "3", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			nc := bustest.Start(t)
			js, err := jetstream.New(nc)
			must(t, err)
			_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
				Name: "SYSTEM", Subjects: []string{"pratique.system.v1.>"}, MaxBytes: 1 << 20,
				Metadata: map[string]string{"pratique-schema": c.schema},
			})
			must(t, err)
			bustest.On(t, nc, bus.Config{}, bus.Options{})
			s, err := js.Stream(t.Context(), "SYSTEM")
			must(t, err)
			if updated := s.CachedInfo().Config.MaxBytes != 1<<20; updated != c.updated {
				t.Errorf("updated: %v, want %v", updated, c.updated)
			}
		})
	}
}

// A consumer whose filter changes must still deliver what was stored before.
func TestProvisionReplacesAConsumerWithAnotherFilter(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	js, err := jetstream.New(nc)
	must(t, err)
	must(t, js.DeleteConsumer(t.Context(), "WORK", "image-push"))
	_, err = js.CreateConsumer(t.Context(), "WORK", jetstream.ConsumerConfig{Durable: "image-push", FilterSubject: "pratique.work.push.old.*", AckPolicy: jetstream.AckExplicitPolicy})
	must(t, err)
	must(t, b.PublishImage(t.Context(), imageJob("1", work.Push)))
	// Its position is now behind the image job.
	_, err = js.Publish(t.Context(), "pratique.work.push.old.x", []byte("x"))
	must(t, err)
	_, err = nc.Request("$JS.API.CONSUMER.MSG.NEXT.WORK.image-push", []byte("1"), nats.DefaultTimeout)
	must(t, err)

	must(t, b.Provision(t.Context()))
	got := make(chan work.ImageJob, 1)
	background(t, func(ctx context.Context) error {
		return b.ConsumeImages(ctx, 1, func(_ context.Context, j work.ImageJob, _ bus.Delivery) error {
			got <- j
			return nil
		})
	})
	receive(t, "the image job", got)
}

func TestAwait(t *testing.T) {
	nc := bustest.Start(t)
	b, err := bus.New(nc, bus.Config{MaxBytes: 64 << 20}, bus.Options{Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	if err := b.Await(t.Context()); !errors.Is(err, bus.ErrNotProvisioned) {
		t.Fatalf("on an empty server: %v", err)
	}
	must(t, b.Provision(t.Context()))
	must(t, b.Await(t.Context()))
	must(t, b.PutSetting(t.Context(), "provisioned", "0"))
	if err := b.Await(t.Context()); !errors.Is(err, bus.ErrNotProvisioned) {
		t.Fatalf("on what an older release provisioned: %v", err)
	}
	must(t, b.PutSetting(t.Context(), "provisioned", "1000"))
	must(t, b.Await(t.Context()))
	must(t, b.Provision(t.Context()))
	if v, err := b.Setting(t.Context(), "provisioned"); err != nil || v != "1000" {
		t.Errorf("an older release took the number back to %q, %v", v, err)
	}
}
