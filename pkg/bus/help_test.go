package bus_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/work"
)

// patience is how long a test waits for what must happen, on a busy machine.
const patience = 30 * time.Second

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// receive waits for a value.
func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("never came: %s", what)
		panic("unreachable")
	}
}

// background runs a Consume call until the test ends or stop is called, which waits for it.
func background(t *testing.T, consume func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = consume(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func digest(of string) image.Digest {
	sum := sha256.Sum256([]byte(of))
	return image.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// layerJob makes a job whose key is derived from a name.
func layerJob(name string, lane work.Lane, class work.Class) work.LayerJob {
	return work.LayerJob{
		Key: work.LayerKey(digest(name), "a1"), Analysis: "a1", Host: "registry.example", Repository: "team/app",
		Layer: image.Layer{Blob: digest(name), DiffID: digest("diff " + name), Size: 1, MediaType: "application/vnd.oci.image.layer.v1.tar+gzip"},
		Pool:  work.DefaultPool, Class: class, Lane: lane, Origin: origin(),
	}
}

func imageJob(tag string, lane work.Lane) work.ImageJob {
	return work.ImageJob{
		Reference: image.Reference{Host: "registry.example", Repository: "team/app", Tag: tag},
		Action:    event.Push, Lane: lane, Origin: origin(),
	}
}

func pushEvent(id string) event.Event {
	return event.Event{
		ID: id, Kind: event.KindImage, Source: "distribution", Action: event.Push, Cause: event.CausePush,
		Reference: image.Reference{Host: "registry.example", Repository: "team/app", Tag: "1"},
		Received:  time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC),
	}
}

func origin() work.Origin {
	return work.Origin{Cause: event.CausePush, EventID: "e1", Sequence: 1, Received: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
}

// pending is how many layer jobs are queued in a lane, in all classes.
func pending(t *testing.T, b *bus.Bus, lane work.Lane) (queued uint64, inFlight int) {
	t.Helper()
	all, err := b.Backlog(t.Context())
	must(t, err)
	for _, q := range all {
		if q.Kind == "layer" && q.Lane == lane {
			queued, inFlight = queued+q.Pending, inFlight+q.InFlight
		}
	}
	return queued, inFlight
}
