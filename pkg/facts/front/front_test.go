package front_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts/busfactstest"
	"github.com/pratique-sec/pratique/pkg/facts/factstest"
	"github.com/pratique-sec/pratique/pkg/facts/front"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts/redistest"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func durable(t *testing.T) facts.Store {
	return busfacts.New(bustest.New(t, bus.Config{}, bus.Options{}))
}

func redisStore(s *redistest.Server) facts.Store {
	return redisfacts.New(s.Client, redisfacts.Options{Logger: quiet()})
}

func TestContract(t *testing.T) {
	server := redistest.Start(t)
	durable := busfactstest.Emptied(t)
	factstest.Run(t, func(t *testing.T) facts.Store {
		if err := server.Client.FlushAll(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
		return front.New(redisStore(server), durable(t), quiet())
	})
}

// With Redis away nothing is lost but time.
func TestContractWithoutRedis(t *testing.T) {
	server := redistest.Start(t)
	server.Stop()
	durable := busfactstest.Emptied(t)
	factstest.Run(t, func(t *testing.T) facts.Store {
		return front.New(redisStore(server), durable(t), quiet())
	})
}

// A flush costs a read of the durable store, which fills the fast one again.
func TestReadsFillTheFastStore(t *testing.T) {
	ctx := t.Context()
	server := redistest.Start(t)
	fast := redisStore(server)
	s := front.New(fast, durable(t), quiet())
	l := factstest.Layer("content")
	r := facts.Record{Blob: image.DigestOf([]byte("blob")), DiffID: l.DiffID}
	if err := errors.Join(s.PutFacts(ctx, l), s.PutRecord(ctx, r), s.PutHolder(ctx, "registry.example", "app", r.Blob)); err != nil {
		t.Fatal(err)
	}
	read := func() {
		t.Helper()
		_, errFacts := s.Facts(ctx, l.DiffID, l.Analysis)
		_, errRecord := s.Record(ctx, r.Blob)
		held, errHolds := s.Holds(ctx, "registry.example", "app", r.Blob)
		has, errHas := s.HasFacts(ctx, l.DiffID, l.Analysis)
		if err := errors.Join(errFacts, errRecord, errHolds, errHas); err != nil || !held || !has {
			t.Fatal(held, has, err)
		}
	}
	read()
	if err := server.Client.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	read()
	read()
	want := map[string]float64{
		"facts hit": 2, "has hit": 3, "holder hit": 2, "record hit": 2,
		"facts miss": 1, "holder miss": 1, "record miss": 1,
	}
	if diff := cmp.Diff(want, reads(t, s)); diff != "" {
		t.Errorf("reads of the fast store (-want +got):\n%s", diff)
	}
}

// reads is pratique_facts_front_reads_total by "<what> <result>".
func reads(t *testing.T, s *front.Store) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(s)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "pratique_facts_front_reads_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			counts[labels["what"]+" "+labels["result"]] = m.GetCounter().GetValue()
		}
	}
	return counts
}

// An outage of the fast store is nobody's error. It is counted, said once, and not waited for each time.
func TestFastOutage(t *testing.T) {
	ctx := t.Context()
	var log bytes.Buffer
	server := redistest.Start(t)
	s := front.New(redisStore(server), durable(t), slog.New(slog.NewTextHandler(&log, nil)))
	l := factstest.Layer("content")
	if err := s.PutFacts(ctx, l); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	const n = 20
	for range n {
		if _, err := s.Facts(ctx, l.DiffID, l.Analysis); err != nil {
			t.Fatal(err)
		}
	}
	got := reads(t, s)
	if got["facts error"] == 0 || got["facts paused"] == 0 || got["facts error"]+got["facts paused"] != n {
		t.Errorf("reads of the fast store: %v", got)
	}
	if said := strings.Count(log.String(), "\n"); said != 1 {
		t.Errorf("said %d times:\n%s", said, &log)
	}
}

// A fast store that does not answer is not waited for.
func TestFastHangs(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := front.New(hanging{}, durable(t), quiet())
	l := factstest.Layer("content")
	if err := s.PutFacts(ctx, l); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Facts(ctx, l.DiffID, l.Analysis); err != nil {
		t.Fatal(err)
	}
}

// hanging answers nothing until its caller gives up.
type hanging struct{ facts.Store }

func (hanging) PutFacts(ctx context.Context, _ facts.Layer) error {
	<-ctx.Done()
	return ctx.Err()
}

func (hanging) Facts(ctx context.Context, _ image.Digest, _ string) (facts.Layer, error) {
	<-ctx.Done()
	return facts.Layer{}, ctx.Err()
}

// The fast store never holds a record that lost in the durable one.
func TestDurableRecordWins(t *testing.T) {
	ctx := t.Context()
	fast, slow := durable(t), durable(t)
	first := facts.Record{Blob: image.DigestOf([]byte("blob")), DiffID: image.DigestOf([]byte("first"))}
	if err := slow.PutRecord(ctx, first); err != nil {
		t.Fatal(err)
	}
	s := front.New(fast, slow, quiet())
	if err := s.PutRecord(ctx, facts.Record{Blob: first.Blob, DiffID: image.DigestOf([]byte("second"))}); err != nil {
		t.Fatal(err)
	}
	for name, store := range map[string]facts.Store{"front": s, "fast": fast} {
		if got, err := store.Record(ctx, first.Blob); err != nil || got != first {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// What the durable store did not take is not stored, and never seen through the fast one.
func TestDurableDecides(t *testing.T) {
	ctx := t.Context()
	fast := durable(t)
	s := front.New(fast, broken{}, quiet())
	l := factstest.Layer("content")
	r := facts.Record{Blob: l.DiffID, DiffID: l.DiffID}
	for name, err := range map[string]error{
		"PutFacts": s.PutFacts(ctx, l), "PutRecord": s.PutRecord(ctx, r), "PutHolder": s.PutHolder(ctx, "registry.example", "app", l.DiffID),
	} {
		if !errors.Is(err, errBroken) {
			t.Errorf("%s: got %v, want the durable store's error", name, err)
		}
	}
	if has, err := fast.HasFacts(ctx, l.DiffID, l.Analysis); has || err != nil {
		t.Errorf("the fast store has facts that the durable one refused: %v, %v", has, err)
	}
	if _, err := s.Facts(ctx, l.DiffID, l.Analysis); !errors.Is(err, errBroken) {
		t.Errorf("Facts: got %v: an outage must not look like absence", err)
	}
}

var errBroken = reason.Retryf(reason.BusUnavailable, "broken")

// broken answers every call that the test makes with errBroken.
type broken struct{ facts.Store }

func (broken) PutFacts(context.Context, facts.Layer) error { return errBroken }
func (broken) Facts(context.Context, image.Digest, string) (facts.Layer, error) {
	return facts.Layer{}, errBroken
}
func (broken) PutRecord(context.Context, facts.Record) error { return errBroken }
func (broken) PutHolder(context.Context, string, string, image.Digest) error {
	return errBroken
}
