package scanner

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

// run starts the service and stops it at the test's end.
func (h *bench) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
}

// load puts a database where scanners find it.
func (h *bench) load(t *testing.T, k vulndb.Kind, content string) vulndb.Pointer {
	t.Helper()
	p := pointer(k, content, 0)
	must(t, h.bus.PutObject(t.Context(), objects, p.Digest, strings.NewReader(content)))
	p, err := h.bus.PutPointer(t.Context(), p)
	must(t, err)
	return p
}

// announced waits until planners are told an analysis.
func (h *bench) announced(t *testing.T, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	found := false
	must(t, h.bus.WatchSetting(ctx, "analysis.default", func(id string) {
		if id == want {
			found = true
			cancel()
		}
	}))
	if !found {
		t.Fatalf("analysis %s was not announced", want)
	}
}

// Through the real queues: blob → facts → notice, match → finding; a refusal becomes a dead letter.
func TestServiceOnTheBus(t *testing.T) {
	h := newBench(t, Config{})
	notices := h.notices(t)
	h.registry.body = "a layer"
	h.run(t)
	h.announced(t, analysis)

	job := layerJob("a layer")
	must(t, h.bus.PublishLayer(t.Context(), job))
	wantNotice(t, notices, work.Notice{Key: job.Key})
	rec, err := h.facts.Record(t.Context(), job.Layer.Blob)
	must(t, err)

	m := matchJob("a", "main", 1)
	m.Image.Layers = []image.Layer{{Blob: job.Layer.Blob, DiffID: rec.DiffID, Size: job.Layer.Size}}
	h.matcher.finds(m.Image.Digest, "CVE-2021-1")
	must(t, h.bus.PublishMatch(t.Context(), m))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = h.bus.WatchDeltas(ctx, 1, func(_ uint64, d finding.Delta) error {
		wantDeltas(t, []finding.Delta{d}, "opened CVE-2021-1 r1")
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}

	bad := layerJob("of another registry")
	bad.Layer.Size = -1 // what the fake does not look at
	h.analyzer.mu.Lock()
	h.analyzer.err = reason.Refusef(reason.Malformed, "no tar")
	h.analyzer.mu.Unlock()
	must(t, h.bus.PublishLayer(t.Context(), bad))
	wantNotice(t, notices, work.Notice{Key: bad.Key, Failed: true})
	err = h.bus.WatchSystem(ctx, 1, func(_ uint64, n system.Notice) error {
		if n.Kind != system.DeadLettered {
			return nil
		}
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	var letters []system.DeadLetter
	must(t, h.bus.DeadLetters(ctx, func(_ uint64, l system.DeadLetter) error {
		letters = append(letters, l)
		return nil
	}))
	if len(letters) != 1 || letters[0].Reason != reason.Malformed || len(letters[0].Verdicts) != 1 || letters[0].Verdicts[0] != bad.Key {
		t.Errorf("dead letters %+v", letters)
	}
}

// A scanner has no database, gets one, and gets the next; one that can not be loaded is tried again.
func TestDatabasesAreFollowed(t *testing.T) {
	h := newBench(t, Config{DatabaseWait: patience})
	delete(h.databases.in, vulndb.Vulnerabilities)
	h.databases.fail = 1
	loaded := make(chan vulndb.Pointer, 8)
	h.databases.onLoad = func(p vulndb.Pointer) {
		if p.Kind == vulndb.Java {
			h.analyzer.set("analysis-with-" + p.Digest[7:17])
		}
		loaded <- p
	}
	wait := func(want vulndb.Pointer) {
		t.Helper()
		select {
		case p := <-loaded:
			if p.Digest != want.Digest || p.Sequence != want.Sequence {
				t.Fatalf("loaded %+v, want %+v", p, want)
			}
		case <-time.After(patience):
			t.Fatal("not loaded")
		}
	}
	h.run(t)
	h.announced(t, analysis) // no Java index: that of an empty one

	j := matchJob("a", "main", 1)
	judged := make(chan error, 1)
	go func() { judged <- h.judge(t.Context(), j, first) }()
	one := h.load(t, vulndb.Vulnerabilities, "the first")
	wait(one)
	must(t, <-judged)
	if h.databases.content[vulndb.Vulnerabilities] != "the first" {
		t.Error("other bytes than were put there")
	}
	wait(h.load(t, vulndb.Vulnerabilities, "the second"))

	java := h.load(t, vulndb.Java, "a Java index")
	wait(java)
	h.announced(t, "analysis-with-"+java.Digest[7:17])
}

// A scanner that starts when there is a Java index announces nothing before it has it.
func TestJavaComesBeforeTheFirstAnnouncement(t *testing.T) {
	h := newBench(t, Config{})
	java := h.load(t, vulndb.Java, "a Java index")
	h.databases.onLoad = func(vulndb.Pointer) {
		if _, err := h.bus.Setting(context.Background(), "analysis.default"); !errors.Is(err, bus.ErrNotFound) {
			t.Errorf("something was announced before: %v", err)
		}
		h.analyzer.set("with-java")
		h.databases.onLoad = nil
	}
	h.run(t)
	h.announced(t, "with-java")
	if p, ok := h.databases.Current(vulndb.Java); !ok || p.Digest != java.Digest {
		t.Errorf("in use: %+v", p)
	}
}

func TestOldDatabaseIsToldOnce(t *testing.T) {
	h := newBench(t, Config{AgeCheck: time.Millisecond})
	old := dbOne
	old.UpdatedAt = noon.Add(-100 * time.Hour)
	h.databases.set(old)
	h.run(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var told system.Notice
	err := h.bus.WatchSystem(ctx, 1, func(_ uint64, n system.Notice) error {
		told = n
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if told.Kind != system.DatabaseStale || told.Subject != old.Digest || !strings.Contains(told.Message, "4 days old") {
		t.Errorf("notice %+v", told)
	}
	if again := h.stale(old); again.ID != told.ID {
		t.Error("another scanner would tell it again")
	}
}

func TestMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	h := newBench(t, Config{})
	h.registry.body = "a layer"
	s, err := New(Config{}, Deps{
		Bus: h.bus, Registry: h.registry, Facts: h.facts, Analyzer: h.analyzer, Matcher: h.matcher, Databases: h.databases,
		Logger: slog.New(slog.DiscardHandler), Registerer: r, Now: h.now,
	})
	must(t, err)
	must(t, s.analyse(t.Context(), layerJob("a layer"), first))
	must(t, s.analyse(t.Context(), layerJob("a layer"), first))
	j := matchJob("a", "main", 1)
	h.matcher.finds(j.Image.Digest, "CVE-2021-1", "CVE-2021-2")
	must(t, s.judge(t.Context(), j, first))
	for name, c := range map[string]struct {
		c    prometheus.Collector
		want float64
	}{
		"layers analysed": {s.metrics.layers.WithLabelValues(layerAnalysed), 1},
		"layers known":    {s.metrics.layers.WithLabelValues(layerKnown), 1},
		"bytes":           {s.metrics.layerBytes, 7},
		"matches":         {s.metrics.matches.WithLabelValues(string(report.Findings)), 1},
		"findings":        {s.metrics.findings.WithLabelValues(string(finding.Opened)), 2},
	} {
		if got := testutil.ToFloat64(c.c); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	const want = `
# HELP pratique_scanner_database_age_seconds Age of the database in use by its own word, by kind; NaN when there is none.
# TYPE pratique_scanner_database_age_seconds gauge
pratique_scanner_database_age_seconds{kind="javadb"} NaN
pratique_scanner_database_age_seconds{kind="vulndb"} 3600
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), "pratique_scanner_database_age_seconds"); err != nil {
		t.Error(err)
	}
	if _, err := New(Config{MatchSlots: -1}, Deps{}); err == nil {
		t.Error("-1 slots were accepted")
	}
}
