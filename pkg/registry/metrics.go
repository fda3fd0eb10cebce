package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of what is asked of registries. The label is what a registry is configured under, a name or a
// pattern: references bring hosts without end, the configuration does not.
type metrics struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_registry_requests_total",
			Help: "Requests to registries, their token servers and their storage, by the configured registry and outcome: " +
				"ok, challenged (401), denied (403), not-found, throttled (429), refused (other 4xx), unavailable (5xx), failed (no answer).",
		}, []string{"registry", "outcome"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_registry_read_bytes_total",
			Help: "Bytes of answers that were read, by the configured registry.",
		}, []string{"registry"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []**prometheus.CounterVec{&m.requests, &m.bytes} {
		err := r.Register(*c)
		var there prometheus.AlreadyRegisteredError
		if errors.As(err, &there) {
			var ok bool
			if *c, ok = there.ExistingCollector.(*prometheus.CounterVec); ok {
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return m, nil
}

// answered counts a request that was sent, and what will be read of its answer.
func (m *metrics) answered(registry string, resp *http.Response, err error) {
	m.requests.WithLabelValues(registry, outcome(resp, err)).Inc()
	if err == nil {
		resp.Body = &counted{resp.Body, m.bytes.WithLabelValues(registry)}
	}
}

func outcome(resp *http.Response, err error) string {
	if err != nil {
		return "failed"
	}
	switch code := resp.StatusCode; {
	case code < http.StatusBadRequest:
		return "ok"
	case code == http.StatusUnauthorized:
		return "challenged"
	case code == http.StatusForbidden:
		return "denied"
	case code == http.StatusNotFound, code == http.StatusGone:
		return "not-found"
	case code == http.StatusTooManyRequests:
		return "throttled"
	case code < http.StatusInternalServerError:
		return "refused"
	}
	return "unavailable"
}

type counted struct {
	io.ReadCloser
	bytes prometheus.Counter
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.bytes.Add(float64(n))
	return n, err
}
