package busfacts_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/compact"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts/busfactstest"
	"github.com/pratique-sec/pratique/pkg/facts/factstest"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// shortLived shortens the bucket's age: the server's clock can not be turned.
func shortLived(t *testing.T) facts.Store {
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	config, ok := busfactstest.API(t, nc, "STREAM.INFO.KV_failures", nil)["config"].(map[string]any)
	if !ok || config["max_age"] != float64(6*time.Hour) {
		t.Fatalf("verdicts do not live for 6 h: %v", config)
	}
	config["max_age"], config["duplicate_window"] = time.Second, time.Second
	busfactstest.API(t, nc, "STREAM.UPDATE.KV_failures", config)
	return busfacts.New(b)
}

func TestContract(t *testing.T) {
	factstest.Run(t, busfactstest.Emptied(t), factstest.Features{ShortLived: shortLived})
}

// Another installation on the same server knows nothing of this one's facts.
func TestInstallationsAreApart(t *testing.T) {
	nc := bustest.Start(t)
	mine := busfacts.New(bustest.On(t, nc, bus.Config{}, bus.Options{}))
	others := busfacts.New(bustest.On(t, nc, bus.Config{Root: "other"}, bus.Options{}))
	l := factstest.Layer("content")
	if err := mine.PutFacts(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	for store, want := range map[facts.Store]bool{mine: true, others: false} {
		if has, err := store.HasFacts(t.Context(), l.DiffID, l.Analysis); has != want || err != nil {
			t.Errorf("HasFacts: got %v, %v, want %v", has, err, want)
		}
	}
}

// Whatever lies under a key that is not ours is absent, is logged, is gone after the first look, and
// can be made again.
func TestDamagedValuesAreAbsent(t *testing.T) {
	l := factstest.Layer("damaged")
	other, err := wire.EncodeFacts(factstest.Layer("other"))
	if err != nil {
		t.Fatal(err)
	}
	otherRecord, err := wire.EncodeRecord(facts.Record{Blob: image.DigestOf([]byte("x")), DiffID: l.DiffID})
	if err != nil {
		t.Fatal(err)
	}
	packed := compact.Pack(bytes.Repeat([]byte("facts"), 100))
	values := map[string][]byte{
		"empty":             {},
		"noise":             []byte("\xff\x00noise"),
		"cut off":           packed[:len(packed)-3],
		"not facts":         packed,
		"other facts":       compact.Pack(other),
		"other record":      otherRecord,
		"no object":         []byte("object:" + strings.Repeat("0", 64)),
		"object name":       []byte("object:../../etc/passwd"),
		"empty object name": []byte("object:"),
	}
	for name, value := range values {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			b := bustest.New(t, bus.Config{}, bus.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			s := busfacts.New(b)
			keys := map[string]string{
				"facts":    bus.Key("f", l.DiffID.Hex(), l.Analysis),
				"blobs":    bus.Key("r", l.DiffID.Hex()),
				"failures": bus.Key("key"),
			}
			holder := bus.Key("h", "registry.example", "app", l.DiffID.Hex())
			for bucket, key := range keys {
				if _, err := b.Bucket(bucket).Put(t.Context(), key, value); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.Bucket("blobs").Put(t.Context(), holder, value); err != nil {
				t.Fatal(err)
			}

			if _, err := s.Facts(t.Context(), l.DiffID, l.Analysis); !errors.Is(err, facts.ErrNotFound) {
				t.Errorf("Facts: %v", err)
			}
			if has, err := s.HasFacts(t.Context(), l.DiffID, l.Analysis); has || err != nil {
				t.Errorf("HasFacts after Facts found the damage: %v, %v", has, err)
			}
			if _, err := s.Record(t.Context(), l.DiffID); !errors.Is(err, facts.ErrNotFound) {
				t.Errorf("Record: %v", err)
			}
			if _, err := s.Verdict(t.Context(), "key"); !errors.Is(err, facts.ErrNotFound) {
				t.Errorf("Verdict: %v", err)
			}
			if held, err := s.Holds(t.Context(), "registry.example", "app", l.DiffID); held || err != nil {
				t.Errorf("Holds: %v, %v", held, err)
			}
			if n := strings.Count(log.String(), "discard unusable value"); n != 4 {
				t.Errorf("%d of 4 damaged values were logged:\n%s", n, &log)
			}

			if err := s.PutFacts(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Facts(t.Context(), l.DiffID, l.Analysis); err != nil {
				t.Errorf("Facts made again: %v", err)
			}
		})
	}
}

// PutRecord heals a damaged record by itself: nobody may have looked at it before.
func TestPutRecordReplacesDamage(t *testing.T) {
	b := bustest.New(t, bus.Config{}, bus.Options{})
	s := busfacts.New(b)
	r := facts.Record{Blob: image.DigestOf([]byte("blob")), DiffID: image.DigestOf([]byte("diff")), Size: 1}
	if _, err := b.Bucket("blobs").Put(t.Context(), bus.Key("r", r.Blob.Hex()), []byte("\xffnoise")); err != nil {
		t.Fatal(err)
	}
	if err := s.PutRecord(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Record(t.Context(), r.Blob); err != nil || got != r {
		t.Fatalf("Record: %+v, %v", got, err)
	}
}

// A full object store drops chunks: facts whose object is damaged are absent, and put again they are
// whole again.
func TestLostChunksAreHealed(t *testing.T) {
	nc := bustest.Start(t)
	s := busfacts.New(bustest.On(t, nc, bus.Config{}, bus.Options{}))
	l := factstest.Layer("large")
	l.Blob = make([]byte, 2<<20)
	if _, err := rand.Read(l.Blob); err != nil {
		t.Fatal(err)
	}
	if err := s.PutFacts(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	busfactstest.API(t, nc, "STREAM.MSG.DELETE.OBJ_facts", map[string]any{"seq": 3})
	if _, err := s.Facts(t.Context(), l.DiffID, l.Analysis); !errors.Is(err, facts.ErrNotFound) {
		t.Fatalf("Facts without a chunk: %v", err)
	}
	if err := s.PutFacts(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	got, err := s.Facts(t.Context(), l.DiffID, l.Analysis)
	if err != nil || !bytes.Equal(got.Blob, l.Blob) {
		t.Fatalf("Facts put again: %d bytes, %v", len(got.Blob), err)
	}
}
