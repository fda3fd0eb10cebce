package door

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/ingest/source"
)

// resultStored is the result label of what became an event; the others are source.Drop.
const resultStored = "stored"

// postEvents stores a sender's events in their order, one after the other: the order in EVENTS is the
// order of what happened. When the bus fails halfway the sender sends all again, and what is stored
// already is recognised.
func (d *Door) postEvents(s source.Source) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, ok := d.body(w, r, s.MaxBody)
		if !ok {
			return
		}
		batch, err := s.Parse(body, d.now().UTC())
		if err != nil {
			d.fail(w, r, err)
			return
		}
		for _, p := range batch.Problems {
			d.log.WarnContext(r.Context(), "event dropped", slog.String("source", s.Name), slog.String("problem", p))
		}
		ctx, cancel := context.WithTimeout(r.Context(), publishTimeout)
		defer cancel()
		for _, e := range batch.Events {
			if _, err := d.bus.PublishEvent(ctx, e); err != nil {
				d.fail(w, r, fmt.Errorf("store event: %w", err))
				return
			}
			d.metrics.events.WithLabelValues(s.Name, resultStored).Inc()
			d.metrics.unusable.WithLabelValues(s.Name).Add(float64(len(e.Unusable)))
		}
		answer := wire.EventsAccepted{Accepted: len(batch.Events), Dropped: map[string]int{}}
		for why, n := range batch.Dropped {
			d.metrics.events.WithLabelValues(s.Name, string(why)).Add(float64(n))
			answer.Dropped[string(why)] = n
		}
		line, err := wire.EventsAcceptedJSON(answer)
		if err != nil {
			d.fail(w, r, fmt.Errorf("answer: %w", err))
			return
		}
		d.send(w, r, http.StatusAccepted, "application/json", line)
	}
}
