package scanner

import (
	"context"
	"testing"
	"time"
)

// What is announced is what somebody does: an announcement that is repeated stands, and one that nobody
// repeats gives way to that of whoever is there.
func TestAnnouncementOfNobodyGivesWay(t *testing.T) {
	const every = 100 * time.Millisecond
	h := newBench(t, Config{AnnounceEvery: every})
	h.run(t)
	h.announced(t, analysis)
	const older = "an older version"
	for range 10 { // it is upgraded soon, but not yet
		must(t, h.bus.PutSetting(t.Context(), "analysis.default", older))
		<-time.After(every)
		if id, err := h.bus.Setting(t.Context(), "analysis.default"); err != nil || id != older {
			t.Fatalf("announced is %q (%v), although somebody does %q", id, err, older)
		}
	}
	h.announced(t, analysis)

	// And it is repeated, for those of other versions to hear.
	heard := 0
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, h.bus.WatchSetting(ctx, "analysis.default", func(id string) {
		if id != analysis {
			t.Errorf("announced is %q", id)
		}
		if heard++; heard == 4 {
			cancel()
		}
	}))
	if heard < 4 {
		t.Errorf("said %d times", heard)
	}
}
