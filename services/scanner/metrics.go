package scanner

import (
	"errors"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/vulndb"
)

// metrics of a scanner. No label comes from outside.
type metrics struct {
	layers       *prometheus.CounterVec   // by outcome
	layerBytes   prometheus.Counter       // uncompressed
	layerSeconds *prometheus.HistogramVec // by cost class
	matches      *prometheus.CounterVec   // by outcome
	matchSeconds prometheus.Histogram
	findings     *prometheus.CounterVec // by transition
}

// Outcomes of a layer job, as the metrics count them.
const (
	layerAnalysed = "analysed"
	layerKnown    = "known"   // facts or a verdict were there already
	layerRefused  = "refused" // poison too
	layerRetried  = "retried"
	layerDropped  = "dropped" // for a day, nobody of its version took it or its registry was away
)

// Outcomes of a match job beside those of reports (report.Outcome).
const (
	matchReplanned  = "replanned" // facts were gone
	matchSuperseded = "superseded"
	matchRetried    = "retried"
)

func newMetrics(r prometheus.Registerer, databases Databases, now func() time.Time) (*metrics, error) {
	m := &metrics{
		layers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_scanner_layers_total",
			Help: "Layer jobs by outcome: analysed, known, refused, retried, dropped.",
		}, []string{"outcome"}),
		layerBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pratique_scanner_layer_bytes_total",
			Help: "Uncompressed bytes of analysed layers.",
		}),
		layerSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "pratique_scanner_layer_seconds",
			Help:    "Time to fetch and analyse a layer, by cost class.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 9),
		}, []string{"class"}),
		matches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_scanner_matches_total",
			Help: "Match jobs by outcome: that of the report, or replanned, superseded, retried.",
		}, []string{"outcome"}),
		matchSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "pratique_scanner_match_seconds",
			Help:    "Time to load an image's facts and to judge them.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}),
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_scanner_findings_total",
			Help: "Transitions of findings that were decided, by transition.",
		}, []string{"transition"}),
	}
	if r == nil {
		return m, nil
	}
	collectors := []prometheus.Collector{m.layers, m.layerBytes, m.layerSeconds, m.matches, m.matchSeconds, m.findings}
	for _, k := range []vulndb.Kind{vulndb.Vulnerabilities, vulndb.Java} {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "pratique_scanner_database_age_seconds",
			Help:        "Age of the database in use by its own word, by kind; NaN when there is none.",
			ConstLabels: prometheus.Labels{"kind": string(k)},
		}, func() float64 {
			p, ok := databases.Current(k)
			if !ok || p.UpdatedAt.IsZero() {
				return math.NaN()
			}
			return now().Sub(p.UpdatedAt).Seconds()
		}))
	}
	var errs []error
	for _, c := range collectors {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}
