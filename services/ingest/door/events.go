package door

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/ingest/source"
)

// resultStored is the result label of what became an event; the others are source.Drop.
const resultStored = "stored"

// dropForbidden is why an element was dropped that the sender's token does not cover. The others of its
// notification are none the worse for it: a registry would send a refused one again for ever, and nothing
// after it.
const dropForbidden source.Drop = "forbidden"

// postEvents stores a sender's events in their order, one after the other: the order in EVENTS is the
// order of what happened. When the bus fails halfway the sender sends all again, and what is stored
// already is recognised.
func (d *Door) postEvents(s source.Source) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		caller := callerOf(r)
		if !caller.all && len(caller.t.Submit.Events) == 0 {
			d.fail(w, r, forbidden(caller, "authorization", "send notifications"))
			return
		}
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
		events := d.permitted(r, &batch)
		note(r, "accepted", strconv.Itoa(len(events)))
		ctx, cancel := context.WithTimeout(r.Context(), publishTimeout)
		defer cancel()
		for _, e := range events {
			if _, err := d.bus.PublishEvent(ctx, e); err != nil {
				d.fail(w, r, fmt.Errorf("store event: %w", err))
				return
			}
			d.metrics.events.WithLabelValues(s.Name, resultStored).Inc()
			d.metrics.unusable.WithLabelValues(s.Name).Add(float64(len(e.Unusable)))
		}
		answer := wire.EventsAccepted{Accepted: len(events), Dropped: map[string]int{}}
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

// permitted are the events that the caller may tell of; the others are counted as dropped.
func (d *Door) permitted(r *http.Request, b *source.Batch) []event.Event {
	caller := callerOf(r)
	var events []event.Event
	for _, e := range b.Events {
		if caller.MaySubmitEvents(e.Reference.Host, e.Reference.Repository) {
			events = append(events, e)
			continue
		}
		if b.Dropped == nil {
			b.Dropped = map[source.Drop]int{}
		}
		if b.Dropped[dropForbidden]++; b.Dropped[dropForbidden] == 1 { // one line for all of a notification
			d.log.WarnContext(r.Context(), "event dropped: its repository is not covered by the token",
				slog.String("token", caller.Name), slog.String("repository", e.Reference.Name()))
		}
	}
	return events
}
