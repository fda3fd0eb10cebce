package door

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/key"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
)

const (
	sourceAPI         = "api"
	maxScanBody       = 64 << 10 // bytes
	maxPlatforms      = 32
	maxIdempotencyKey = 255 // bytes
)

// parseScan reads a scan request's body.
func parseScan(body []byte) (image.Reference, []image.Platform, error) {
	req, err := wire.ScanRequestFromJSON(body)
	if err != nil {
		return image.Reference{}, nil, err
	}
	ref, err := image.ParseReference(req.Reference)
	if err != nil {
		return image.Reference{}, nil, reason.Refusef(reason.BadRequest, "reference: %w", err)
	}
	if len(req.Platforms) > maxPlatforms {
		return image.Reference{}, nil, reason.Refusef(reason.OverBound, "platforms: %d of them, at most %d are taken", len(req.Platforms), maxPlatforms)
	}
	var platforms []image.Platform
	for i, s := range req.Platforms {
		p, err := image.ParsePlatform(s)
		if err != nil {
			return image.Reference{}, nil, reason.Refusef(reason.BadRequest, "platforms[%d]: %w", i, err)
		}
		platforms = append(platforms, p)
	}
	return ref, platforms, nil
}

// requestEventID names a request's event: at random, since asking twice is asking for two scans; by the
// caller and his Idempotency-Key, when there is one, together with what is asked for.
func requestEventID(caller, idempotencyKey string, ref image.Reference, platforms []image.Platform) string {
	if idempotencyKey == "" {
		var b [32]byte
		_, _ = rand.Read(b[:]) // never fails
		return hex.EncodeToString(b[:])
	}
	fields := []string{caller, idempotencyKey, ref.String()}
	for _, p := range platforms {
		fields = append(fields, p.String())
	}
	return key.Of("event.api.v2", fields...)
}

func (d *Door) postScan(w http.ResponseWriter, r *http.Request) {
	body, ok := d.body(w, r, maxScanBody)
	if !ok {
		return
	}
	ref, platforms, err := parseScan(body)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	caller := callerOf(r)
	note(r, "reference", ref.String())
	if !caller.MaySubmitScans(ref.Host, ref.Repository) {
		d.fail(w, r, forbidden(caller, "reference", "have images of "+ref.Name()+" scanned"))
		return
	}
	idempotency := r.Header.Get("Idempotency-Key")
	if len(idempotency) > maxIdempotencyKey {
		d.fail(w, r, reason.Refusef(reason.BadRequest, "idempotency-key: longer than %d bytes", maxIdempotencyKey))
		return
	}
	e := event.Event{
		ID:   requestEventID(caller.Name, idempotency, ref, platforms),
		Kind: event.KindImage, Source: sourceAPI, Action: event.Request, Cause: event.CauseRequest,
		Reference: ref, Platforms: platforms, Actor: caller.Name, Received: d.now().UTC(),
	}
	ctx, cancel := context.WithTimeout(r.Context(), publishTimeout)
	defer cancel()
	seq, err := d.bus.PublishEvent(ctx, e)
	if err != nil {
		d.fail(w, r, fmt.Errorf("store scan request: %w", err))
		return
	}
	d.metrics.events.WithLabelValues(sourceAPI, resultStored).Inc()
	id := fate.RequestID(seq, e.ID)
	status := "/v1/scans/" + id
	line, err := wire.ScanAcceptedJSON(wire.ScanAccepted{ID: id, StatusURL: status})
	if err != nil {
		d.fail(w, r, fmt.Errorf("answer: %w", err))
		return
	}
	w.Header().Set("Location", status)
	d.send(w, r, http.StatusAccepted, "application/json", line)
}

func (d *Door) getScan(w http.ResponseWriter, r *http.Request) {
	note(r, "id", r.PathValue("id"))
	f, err := d.fate(r.Context(), callerOf(r), r.PathValue("id"))
	if err != nil {
		d.fail(w, r, err)
		return
	}
	line, err := wire.FateJSON(f)
	if err != nil {
		d.fail(w, r, fmt.Errorf("fate: %w", err))
		return
	}
	d.send(w, r, http.StatusOK, "application/json", line)
}

// fate finds what became of a request, for who sent it and for who may read its repository; to others it
// does not exist. Between its event and the first word about it, the event itself says that it was
// accepted.
func (d *Door) fate(ctx context.Context, caller *Caller, id string) (fate.Fate, error) {
	unknown := reason.Refusef(reason.NotFound, "no such scan request, or it is older than is remembered")
	seq, _, err := fate.ParseRequestID(id)
	if err != nil {
		return fate.Fate{}, unknown
	}
	f, err := d.bus.Fate(ctx, fate.RequestKey(id))
	told := err == nil
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return fate.Fate{}, err
	}
	if told && caller.MayRead(f.Reference.Host, f.Reference.Repository) {
		return f, nil
	}
	e, err := d.bus.Event(ctx, seq)
	if errors.Is(err, bus.ErrNotFound) {
		return fate.Fate{}, unknown
	}
	if err != nil {
		return fate.Fate{}, err
	}
	if e.Kind != event.KindImage || e.Action != event.Request || fate.RequestID(seq, e.ID) != id {
		return fate.Fate{}, unknown
	}
	if sent := e.Source == sourceAPI && e.Actor != "" && e.Actor == caller.Name; !sent && !caller.MayRead(e.Reference.Host, e.Reference.Repository) {
		return fate.Fate{}, unknown
	}
	if told {
		return f, nil
	}
	return fate.Fate{Request: id, Reference: e.Reference, Stage: fate.Accepted, Received: e.Received, Updated: e.Received}, nil
}
