package layercache

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/finding"
)

// metrics of a planner. No label comes from outside.
type metrics struct {
	layers    *prometheus.CounterVec // by how
	images    *prometheus.CounterVec // by outcome
	held      prometheus.Gauge
	rematched prometheus.Counter
}

// Outcomes of an image job, as the metrics count them.
const (
	imageExpanded = "expanded" // an index became a job per platform
	imageQueued   = "queued"   // its match is queued
	imageSkipped  = "skipped"
	imageGone     = "gone"
	imageRefused  = "refused"
)

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		layers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_layercache_layers_total",
			Help: "Layers of planned images: seen, and of these known, waited for (another image's job), analysed (a job was queued).",
		}, []string{"how"}),
		images: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_layercache_images_total",
			Help: "Image jobs that were finished, by outcome.",
		}, []string{"outcome"}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pratique_layercache_held_images",
			Help: "Images that are waiting for layers.",
		}),
		rematched: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pratique_layercache_rematched_images_total",
			Help: "Matches that were queued because of a new database.",
		}),
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.layers, m.images, m.held, m.rematched} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) count(c finding.LayerCounts) {
	m.layers.WithLabelValues("seen").Add(float64(c.Seen))
	m.layers.WithLabelValues("known").Add(float64(c.Known))
	m.layers.WithLabelValues("waited").Add(float64(c.Waited))
	m.layers.WithLabelValues("analysed").Add(float64(c.Analysed))
}
