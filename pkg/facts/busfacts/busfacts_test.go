package busfacts_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/compact"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts"
	"github.com/pratique-sec/pratique/pkg/facts/factstest"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/wire"
)

func open(t *testing.T) facts.Store { return busfacts.New(bustest.New(t, bus.Config{}, bus.Options{})) }

// shortLived shortens the bucket's age: the server's clock can not be turned.
func shortLived(t *testing.T) facts.Store {
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), "KV_failures")
	if err != nil {
		t.Fatal(err)
	}
	c := s.CachedInfo().Config
	if c.MaxAge != 6*time.Hour {
		t.Errorf("verdicts live for %v, not 6 h", c.MaxAge)
	}
	c.MaxAge, c.Duplicates = time.Second, time.Second
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return busfacts.New(b)
}

func TestContract(t *testing.T) {
	factstest.Run(t, open, factstest.Features{ShortLived: shortLived})
}

// Another installation on the same server knows nothing of this one's facts.
func TestContractUnderAnotherRoot(t *testing.T) {
	factstest.Run(t, func(t *testing.T) facts.Store {
		nc := bustest.Start(t)
		first := busfacts.New(bustest.On(t, nc, bus.Config{}, bus.Options{}))
		l := factstest.Layer("first installation")
		if err := first.PutFacts(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		other := busfacts.New(bustest.On(t, nc, bus.Config{Root: "other"}, bus.Options{}))
		if has, err := other.HasFacts(t.Context(), l.DiffID, l.Analysis); has || err != nil {
			t.Fatalf("HasFacts of the other installation: %v, %v", has, err)
		}
		return other
	})
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
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	chunks, err := js.Stream(t.Context(), "OBJ_facts")
	if err != nil {
		t.Fatal(err)
	}
	if err := chunks.DeleteMsg(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
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
