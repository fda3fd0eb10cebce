package layercache

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/work"
)

// staleAfter is how many measurements may be missed before nothing is shown: an autoscaler acts on what it
// sees, and holds still when it sees nothing.
const staleAfter = 3

// load shows what the scanners have before them, in the leader alone. It is absent, not zero, in all
// others, and when it could not be measured for a while.
type load struct {
	lasts           time.Duration
	now             func() time.Time
	seconds, oldest *prometheus.Desc

	mu   sync.Mutex
	at   time.Time // of the measurement; zero when this process does not lead
	last []work.Load
}

func newLoad(r prometheus.Registerer, lasts time.Duration, now func() time.Time) (*load, error) {
	labels := []string{"pool", "lane"}
	l := &load{
		lasts: lasts, now: now,
		seconds: prometheus.NewDesc("pratique_work_seconds",
			"Estimated seconds of one scanner slot to do all layers and matches that are queued or begun. From one planner alone; absent when not known.", labels, nil),
		oldest: prometheus.NewDesc("pratique_work_oldest_seconds",
			"Age of the oldest layer or match that is queued or begun, 0 when there is none. From one planner alone; absent when not known.", labels, nil),
	}
	if r == nil {
		return l, nil
	}
	return l, r.Register(l)
}

// Describe implements prometheus.Collector.
func (l *load) Describe(to chan<- *prometheus.Desc) {
	to <- l.seconds
	to <- l.oldest
}

// Collect implements prometheus.Collector.
func (l *load) Collect(to chan<- prometheus.Metric) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.IsZero() || time.Since(l.at) > l.lasts {
		return
	}
	for _, w := range l.last {
		age := 0.0
		if !w.Oldest.IsZero() {
			age = max(0, l.now().Sub(w.Oldest).Seconds())
		}
		to <- prometheus.MustNewConstMetric(l.seconds, prometheus.GaugeValue, w.Seconds, w.Pool, string(w.Lane))
		to <- prometheus.MustNewConstMetric(l.oldest, prometheus.GaugeValue, age, w.Pool, string(w.Lane))
	}
}

// measured takes over a measurement that was begun at a time.
func (l *load) measured(at time.Time, w []work.Load) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.last = at, w
}

// measureLoad measures until ctx ends, when this process leads no more.
func (s *Service) measureLoad(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.LoadCheck)
	defer ticker.Stop()
	defer s.load.measured(time.Time{}, nil)
	for {
		at := time.Now()
		w, err := s.bus.Load(ctx, s.cfg.Pool)
		switch {
		case err == nil:
			s.load.measured(at, w)
		case !errors.Is(err, context.Canceled):
			s.log.WarnContext(ctx, "measure load failed, will retry", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}
