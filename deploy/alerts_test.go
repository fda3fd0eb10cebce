package deploy_test

import (
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
)

const alertsFile = "prometheus/alerts.yaml"

// rules are the alerts, read as Prometheus reads them: strictly, with expressions and templates.
func rules(t *testing.T) rulefmt.RuleGroup {
	t.Helper()
	b, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(b, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Errorf("%s: %v", alertsFile, err)
	}
	if t.Failed() || len(groups.Groups) != 1 {
		t.Fatalf("%s: want one group", alertsFile)
	}
	return groups.Groups[0]
}

// none are two hours of NaN.
var none = strings.Repeat("NaN ", 121)

// Each alert with series on which it fires, and with some on which it does not. Series begin at 0, a value a
// minute; what is fires at is judged at two hours.
var alertCases = map[string]struct{ fires, silent map[string]string }{
	"PratiqueDown": {
		fires: map[string]string{
			"nobody measures": `pratique_work_seconds{pool="default",lane="push"} 5x100 stale`,
			"nothing at all":  ``,
			"one process is not reached": `pratique_work_seconds{pool="default",lane="push"} 0x120
				up{job="pratique",pod="scanner-1"} 1x110 0x10`,
		},
		silent: map[string]string{
			"no work": `pratique_work_seconds{pool="default",lane="push"} 0x120
				up{job="pratique",pod="scanner-1"} 1x120`,
			"a restart": `pratique_work_seconds{pool="default",lane="push"} 1x117 _x2 1
				up{job="pratique",pod="scanner-1"} 1x116 0x2 1x2`,
			"somebody else's process": `pratique_work_seconds{pool="default",lane="push"} 0x120
				up{job="other"} 0x120`,
		},
	},
	"PratiqueEventsRefused": {
		fires: map[string]string{
			"all of them": `pratique_ingest_requests_total{namespace="p",route="/v1/scans",status="503"} 0x100 1+60x20`,
			"some":        `pratique_ingest_requests_total{namespace="p",route="/v1/scans",status="503"} 0+1x120`,
		},
		silent: map[string]string{
			"long ago":    `pratique_ingest_requests_total{namespace="p",route="/v1/scans",status="503"} 0+1x60 60x60`,
			"stored":      `pratique_ingest_requests_total{namespace="p",route="/v1/scans",status="202"} 0+9x120`,
			"bad request": `pratique_ingest_requests_total{namespace="p",route="/v1/scans",status="400"} 0+9x120`,
		},
	},
	"PratiqueWorkWaits": {
		fires: map[string]string{
			"a push": `pratique_work_oldest_seconds{pool="default",lane="push"} 0+60x120`,
		},
		silent: map[string]string{
			"backfill may wait": `pratique_work_oldest_seconds{pool="default",lane="backfill"} 0+60x120`,
			"it moves":          `pratique_work_oldest_seconds{pool="default",lane="push"} 600x120`,
			"a peak":            `pratique_work_oldest_seconds{pool="default",lane="push"} 0x112 1000x8`,
		},
	},
	"PratiqueDeadLetters": {
		fires: map[string]string{
			"refused": `pratique_bus_handled_total{stream="WORK.layer",outcome="refuse"} 0x100 0+1x20`,
			"of many workers": `pratique_bus_handled_total{stream="WORK.layer",outcome="poison",pod="a"} 0x100 4x20
				pratique_bus_handled_total{stream="WORK.layer",outcome="panic",pod="b"} 0x100 4x20`,
		},
		silent: map[string]string{
			"a few":             `pratique_bus_handled_total{stream="WORK.layer",outcome="refuse"} 0x110 3x10`,
			"handled":           `pratique_bus_handled_total{stream="WORK.layer",outcome="ok"} 0+100x120`,
			"a restarted count": `pratique_bus_handled_total{stream="WORK.layer",outcome="refuse"} 50x110 0x10`,
		},
	},
	"PratiqueDatabaseStale": {
		fires: map[string]string{
			"four days": `pratique_scanner_database_age_seconds{kind="vulndb",pod="a"} 345600+60x120`,
			"none":      `pratique_scanner_database_age_seconds{kind="vulndb",pod="a"} ` + none,
			"one of two has none": `pratique_scanner_database_age_seconds{kind="vulndb",pod="a"} ` + none + `
				pratique_scanner_database_age_seconds{kind="vulndb",pod="b"} 0+60x120`,
		},
		silent: map[string]string{
			"fresh":         `pratique_scanner_database_age_seconds{kind="vulndb",pod="a"} 0+60x120`,
			"just begun":    `pratique_scanner_database_age_seconds{kind="vulndb",pod="a"} _x110 NaN NaN NaN`,
			"no Java index": `pratique_scanner_database_age_seconds{kind="javadb",pod="a"} ` + none,
			"one takes it over": `pratique_scanner_database_age_seconds{kind="vulndb",pod="a"} 345600x120
				pratique_scanner_database_age_seconds{kind="vulndb",pod="b"} 60x120`,
		},
	},
	"PratiqueAlertsNotDelivered": {
		fires: map[string]string{
			"given up":  `pratique_alertrouter_notifications_total{integration="slack",outcome="dead"} 0x100 1x20`,
			"it grows":  `pratique_alertrouter_outbox{pod="a"} 0+1x120`,
			"it stands": `pratique_alertrouter_outbox{pod="a"} 0x80 3x40`,
		},
		silent: map[string]string{
			"sent":          `pratique_alertrouter_notifications_total{integration="slack",outcome="sent"} 0+1x120`,
			"they go out":   `pratique_alertrouter_outbox{pod="a"} 0 3 0 2 0 3 0x114`,
			"a short while": `pratique_alertrouter_outbox{pod="a"} 0x110 3x10`,
		},
	},
}

func TestAlerts(t *testing.T) {
	group := rules(t)
	if len(group.Rules) != len(alertCases) {
		t.Errorf("%d alerts, %d are tried", len(group.Rules), len(alertCases))
	}
	for _, r := range group.Rules {
		t.Run(r.Alert, func(t *testing.T) {
			cases, ok := alertCases[r.Alert]
			if !ok {
				t.Fatal("is not tried")
			}
			for name, series := range cases.fires {
				if !firing(t, r, series) {
					t.Errorf("%s: does not fire", name)
				}
			}
			for name, series := range cases.silent {
				if firing(t, r, series) {
					t.Errorf("%s: fires", name)
				}
			}
		})
	}
}

// firing tells whether an alert fires at two hours: whether its expression had one and the same element at
// each evaluation for as long as it must.
func firing(t *testing.T, r rulefmt.Rule, series string) bool {
	t.Helper()
	const every, at = time.Minute, 2 * time.Hour
	load := "load 1m\n"
	for line := range strings.Lines(series) {
		load += "  " + strings.TrimSpace(line) + "\n"
	}
	storage := promqltest.LoadedStorage(t, load)
	defer func() { _ = storage.Close() }() // nothing is read of it any more
	engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	end := time.Unix(0, 0).Add(at)
	q, err := engine.NewRangeQuery(t.Context(), storage, nil, r.Expr, end.Add(-time.Duration(r.For)), end, every)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	result := q.Exec(t.Context())
	matrix, err := result.Matrix()
	if err != nil {
		t.Fatal(err)
	}
	steps := int(time.Duration(r.For)/every) + 1
	for _, s := range matrix {
		if len(s.Floats) == steps {
			return true
		}
	}
	return false
}

// Whoever is woken by an alert finds what to do: a section of the runbook for each, and none for others.
func TestRunbook(t *testing.T) {
	page := read(t, "../docs/runbook.md")
	sections := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (Pratique\w+)$`).FindAllStringSubmatch(page, -1) {
		sections[m[1]] = true
	}
	for _, r := range rules(t).Rules {
		if !sections[r.Alert] {
			t.Errorf("docs/runbook.md has no section ## %s", r.Alert)
		}
		delete(sections, r.Alert)
		if _, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "docs/runbook.md#"); anchor != strings.ToLower(r.Alert) {
			t.Errorf("%s: runbook_url %s", r.Alert, r.Annotations["runbook_url"])
		}
		if r.Annotations["summary"] == "" || r.Labels["severity"] == "" {
			t.Errorf("%s: has no summary or no severity", r.Alert)
		}
	}
	for name := range sections {
		t.Errorf("docs/runbook.md has a section about %s, which is no alert", name)
	}
}
