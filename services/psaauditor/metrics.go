package psaauditor

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of an auditor. No label comes from outside.
type metrics struct {
	sets      *prometheus.CounterVec // by outcome
	seconds   prometheus.Histogram
	workloads *prometheus.CounterVec // by outcome
	findings  *prometheus.CounterVec // by transition
}

// Outcomes of a set.
const (
	setJudged  = "judged"
	setPartial = "partial" // some document could not be read
	setRefused = "refused" // as a whole
	setRetried = "retried"
)

// workloadSuperseded is the outcome of a workload that a later set was judged on, beside those of scans.
const workloadSuperseded = "superseded"

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		sets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_psaauditor_sets_total",
			Help: "Posted sets of manifests by outcome: judged, partial, refused, retried.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "pratique_psaauditor_set_seconds",
			Help:    "Time to judge a set and to tell of it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}),
		workloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_psaauditor_workloads_total",
			Help: "Workloads that were judged, by outcome: clean, findings, superseded.",
		}, []string{"outcome"}),
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_psaauditor_findings_total",
			Help: "Transitions of findings that were decided, by transition.",
		}, []string{"transition"}),
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.sets, m.seconds, m.workloads, m.findings} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}
