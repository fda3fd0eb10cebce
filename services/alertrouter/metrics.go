package alertrouter

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/services/alertrouter/outbox"
)

// metrics of a router. No label comes from outside, not even the names of receivers.
type metrics struct {
	alerts        *prometheus.CounterVec
	notifications *prometheus.CounterVec
	repeats       prometheus.Counter
	depth         prometheus.Gauge
	age           prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_alertrouter_alerts_total",
			Help: "Events that were taken, by class (vuln, psa, system) and outcome: routed, unrouted, duplicate, ignored.",
		}, []string{"class", "outcome"}),
		notifications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_alertrouter_notifications_total",
			Help: "Notifications by integration (webhook, slack) and outcome: sent, retry, dead.",
		}, []string{"integration", "outcome"}),
		repeats: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pratique_alertrouter_repeats_total",
			Help: "Attempts that may have repeated a notification, under the same Idempotency-Key, because nobody saw the last one end.",
		}),
		depth: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pratique_alertrouter_outbox",
			Help: "Notifications that are to be sent, of all replicas.",
		}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "pratique_alertrouter_send_seconds",
			Help:    "Time from the decision to send a notification to its being taken.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 10), // 10 ms to 44 min
		}),
	}
	// Seen from the start, as 0: alerts tell by how much a counter grew.
	for _, integration := range []string{"webhook", "slack"} {
		for _, outcome := range []outbox.Outcome{outbox.Sent, outbox.Retry, outbox.Dead} {
			m.notifications.WithLabelValues(integration, string(outcome))
		}
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.alerts, m.notifications, m.repeats, m.depth, m.age} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}
