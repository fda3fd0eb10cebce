package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/loadtest/internal/drive"
	"github.com/pratique-sec/pratique/loadtest/internal/real"
	"github.com/pratique-sec/pratique/services/ingest/source"
)

func TestUsage(t *testing.T) {
	for args, says := range map[string]string{
		"-only cold,warm": `"warm" is no part`,
		"extra":           `"extra"`,
		"-no-such-flag":   "no-such-flag",
	} {
		var out, err bytes.Buffer
		if e := bench(t.Context(), strings.Fields(args), &out, &err); e == nil || !strings.Contains(e.Error(), says) {
			t.Errorf("%s: %v", args, e)
		}
	}
}

// Each post of a caller must be another event, or JetStream would recognise it and store nothing.
func TestMarksMakeOtherEvents(t *testing.T) {
	host, stop, err := real.NewRegistry().Serve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	set, err := real.Own(t.Context(), host, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ref, err := (&runner{host: host}).reference(set.Images[0])
	if err != nil {
		t.Fatal(err)
	}
	body, err := drive.Notification(ref, set.Images[0].Image)
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMark(body)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for range 2000 {
		m.next()
		batch, err := source.All[0].Parse(body, time.Now())
		if err != nil || len(batch.Events) != 1 {
			t.Fatalf("%v, %+v", err, batch)
		}
		ids[batch.Events[0].ID] = true
	}
	if len(ids) != 2000 {
		t.Errorf("%d distinct events of 2000", len(ids))
	}
	if _, err := newMark([]byte(`{}`)); err == nil {
		t.Error("a body without an id was taken")
	}
}

// A rebuilt image keeps its layers and its tag, and has another digest in every round.
func TestRebuilt(t *testing.T) {
	host, stop, err := real.NewRegistry().Serve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	r := &runner{host: host}
	if r.set, err = real.Own(t.Context(), host, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	digests, tags := map[string]bool{}, map[string]bool{}
	for n := range 2 {
		images, err := r.rebuilt(n)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range images {
			d, err := i.Image.Digest()
			if err != nil {
				t.Fatal(err)
			}
			digests[d.String()], tags[i.Name()] = true, true
		}
	}
	if len(tags) != knownImages || len(digests) != 2*knownImages {
		t.Errorf("%d tags and %d digests", len(tags), len(digests))
	}
}
