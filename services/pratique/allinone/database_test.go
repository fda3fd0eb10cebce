package allinone

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/services/scanner/advisory/build"
)

// Each load of another database is one notice, however often it is repeated.
func TestLoadedDatabaseIsTold(t *testing.T) {
	b := bustest.New(t, bus.Config{}, bus.Options{})
	load := func(updated time.Time) vulndb.Pointer {
		t.Helper()
		dir := t.TempDir()
		rows := strings.NewReader(`{"b":"debian 12","p":"tar","i":"CVE-2026-0001","f":"1.35"}`)
		described := strings.NewReader(`{"i":"CVE-2026-0001","s":"cve","t":"Tar","sev":"HIGH"}`)
		if err := build.Build(t.Context(), dir, rows, described, build.Meta{UpdatedAt: updated, NextUpdate: updated.AddDate(0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		p, err := LoadDatabase(t.Context(), b, vulndb.Vulnerabilities, dir, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	first := load(day)
	load(day)
	second := load(day.AddDate(0, 0, 1))

	enough := errors.New("enough")
	var told []system.Notice
	err := b.WatchSystem(t.Context(), 1, func(_ uint64, n system.Notice) error {
		if told = append(told, n); n.Subject == second.Digest {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if len(told) != 2 || told[0].Subject != first.Digest || told[0].Kind != system.DatabaseLoaded || !told[0].At.Equal(first.LoadedAt) || first.LoadedAt.IsZero() {
		t.Errorf("told %+v", told)
	}
}
