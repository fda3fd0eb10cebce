package bus

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one process's bus. The label "stream" is the stream, on WORK with the job's kind
// ("WORK.layer"); no label holds a digest, a name or a key.
type metrics struct {
	handled  *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	refused  *prometheus.CounterVec
	promoted *prometheus.CounterVec
	inFlight *prometheus.GaugeVec
	gaps     prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	m := &metrics{
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_bus_handled_total",
			Help: "Deliveries by outcome: ok, replaced, held, retry, paused, busy, refuse, poison, panic, drained.",
		}, []string{"stream", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "pratique_bus_handle_seconds",
			Help:    "Time from a delivery to its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 10), // 1 ms to 262 s
		}, []string{"stream"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_bus_refused_total",
			Help: "Publishes that the guard refused because a job with the key was there.",
		}, []string{"stream"}),
		promoted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_bus_promoted_total",
			Help: "Queued jobs that were replaced by one in a higher lane.",
		}, []string{"stream"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "pratique_bus_in_flight",
			Help: "Deliveries whose handler is running.",
		}, []string{"stream"}),
		gaps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pratique_bus_notice_gaps_total",
			Help: "Times that notices may have been lost: slow consumer or reconnect.",
		}),
	}
	var err error
	m.handled = register(r, m.handled, &err)
	m.seconds = register(r, m.seconds, &err)
	m.refused = register(r, m.refused, &err)
	m.promoted = register(r, m.promoted, &err)
	m.inFlight = register(r, m.inFlight, &err)
	m.gaps = register(r, m.gaps, &err)
	return m, err
}

// shown has a queue's failures be seen from the start, as 0: alerts tell by how much a counter grew, and one that
// begins with its first failure has not grown.
func (m *metrics) shown(op string) {
	for _, outcome := range []string{outcomeRefuse, outcomePoison, outcomePanic} {
		m.handled.WithLabelValues(op, outcome)
	}
}

// register answers the collector that is in the registry afterwards: in one process several services
// may each have a bus on the same registry.
func register[C prometheus.Collector](r prometheus.Registerer, c C, failed *error) C {
	err := r.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if have, ok := there.ExistingCollector.(C); ok {
			return have
		}
	}
	*failed = errors.Join(*failed, err)
	return c
}
