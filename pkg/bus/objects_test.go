package bus_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
)

func TestObjects(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	_, err := b.Object(ctx, "vulndb", "absent")
	wantIs(t, "Object", err, bus.ErrNotFound)
	must(t, b.DropObject(ctx, "vulndb", "absent"))

	content := make([]byte, 300<<10) // three chunks
	_, _ = rand.Read(content)
	for _, c := range [][]byte{content, {}} {
		name := digest(string(c)).Hex()
		must(t, b.PutObject(ctx, "vulndb", name, bytes.NewReader(c)))
		must(t, b.PutObject(ctx, "vulndb", name, strings.NewReader("what is there already is left alone")))
		if got := readObject(t, b, name); !bytes.Equal(got, c) {
			t.Errorf("got %d bytes, want %d", len(got), len(c))
		}
		must(t, b.DropObject(ctx, "vulndb", name))
		must(t, b.DropObject(ctx, "vulndb", name))
		_, err = b.Object(ctx, "vulndb", name)
		wantIs(t, "Object that was dropped", err, bus.ErrNotFound)
		must(t, b.PutObject(ctx, "vulndb", name, bytes.NewReader(c)))
		if got := readObject(t, b, name); !bytes.Equal(got, c) {
			t.Errorf("put again: got %d bytes, want %d", len(got), len(c))
		}
	}
}

// What could not be read from the caller is the caller's error, and is not stored.
func TestObjectSourceFails(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	broken := errors.New("disk on fire")
	err := b.PutObject(ctx, "vulndb", "a", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)))
	wantIs(t, "PutObject", err, broken)
	_, err = b.Object(ctx, "vulndb", "a")
	wantIs(t, "Object", err, bus.ErrNotFound)
}

// Damage never reads as content: lost and changed chunks end in ErrNotFound, and putting heals lost ones.
func TestDamagedObject(t *testing.T) {
	ctx := t.Context()
	content := make([]byte, 300<<10)
	_, _ = rand.Read(content)
	for name, damage := range map[string]func(t *testing.T, s jetstream.Stream, js jetstream.JetStream){
		"first chunk lost": func(t *testing.T, s jetstream.Stream, _ jetstream.JetStream) { must(t, s.DeleteMsg(ctx, 1)) },
		"last chunk lost":  func(t *testing.T, s jetstream.Stream, _ jetstream.JetStream) { must(t, s.DeleteMsg(ctx, 3)) },
		"all chunks lost": func(t *testing.T, s jetstream.Stream, _ jetstream.JetStream) {
			must(t, s.Purge(ctx, jetstream.WithPurgeSequence(4)))
		},
		"chunk changed": func(t *testing.T, s jetstream.Stream, js jetstream.JetStream) {
			m, err := s.GetMsg(ctx, 3)
			must(t, err)
			must(t, s.DeleteMsg(ctx, 3))
			m.Data[0]++
			_, err = js.Publish(ctx, m.Subject, m.Data)
			must(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			nc := bustest.Start(t)
			b := bustest.On(t, nc, bus.Config{}, bus.Options{})
			must(t, b.PutObject(ctx, "vulndb", "a", bytes.NewReader(content)))
			js, err := jetstream.New(nc)
			must(t, err)
			s, err := js.Stream(ctx, "OBJ_vulndb")
			must(t, err)
			damage(t, s, js)
			r, err := b.Object(ctx, "vulndb", "a")
			must(t, err)
			_, err = io.ReadAll(r)
			wantIs(t, "Read", err, bus.ErrNotFound)
			if name == "chunk changed" {
				return // nothing tells without reading it whole
			}
			must(t, b.PutObject(ctx, "vulndb", "a", bytes.NewReader(content)))
			if got := readObject(t, b, "a"); !bytes.Equal(got, content) {
				t.Errorf("put again: got %d bytes, want %d", len(got), len(content))
			}
		})
	}
}

func readObject(t *testing.T, b *bus.Bus, name string) []byte {
	t.Helper()
	r, err := b.Object(t.Context(), "vulndb", name)
	must(t, err)
	defer r.Close()
	got, err := io.ReadAll(iotest.OneByteReader(io.LimitReader(r, 1)))
	must(t, err)
	rest, err := io.ReadAll(r)
	must(t, err)
	return append(got, rest...)
}
