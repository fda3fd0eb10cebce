package door

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/key"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/pkg/yamldoc"
)

const (
	// maxManifests bounds a set, in bytes. A hostile one of this size takes some 250 MB to check, and fits a
	// message of 8 MB although it does not compress.
	maxManifests = 4 << 20
	// maxValues bounds a set for who judges it: each can take more than a kilobyte there. Real ones of 4 MB have
	// some 300,000.
	maxValues = 400_000
	// manifestChecks bounds how many sets are checked at once.
	manifestChecks   = 1
	maxNamespace     = 63 // bytes
	defaultNamespace = "default"
)

// postManifests stores a set of manifests. It knows documents, not Kubernetes: what is no YAML or JSON is
// refused here, by number and line; what is no object that the auditor understands becomes a dead letter.
func (d *Door) postManifests(w http.ResponseWriter, r *http.Request) {
	m, err := parseTarget(r.URL.Query())
	if err != nil {
		d.fail(w, r, err)
		return
	}
	caller := callerOf(r)
	note(r, "cluster", m.Cluster)
	if !caller.MaySubmitManifests(m.Cluster) {
		d.fail(w, r, forbidden(caller, "cluster", "post manifests of "+m.Cluster))
		return
	}
	if !manifestType(r.Header.Get("Content-Type")) {
		d.problem(w, r, http.StatusUnsupportedMediaType, reason.BadRequest, "content-type: send Content-Type: application/yaml or application/json")
		return
	}
	var ok bool
	if m.Body, ok = d.read(w, r, maxManifests); !ok {
		return
	}
	documents, err := d.checkManifests(r.Context(), m.Body)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	idempotency := r.Header.Get("Idempotency-Key")
	if len(idempotency) > maxIdempotencyKey {
		d.fail(w, r, reason.Refusef(reason.BadRequest, "idempotency-key: longer than %d bytes", maxIdempotencyKey))
		return
	}
	e := event.Event{
		ID:   manifestsEventID(caller.Name, idempotency, m),
		Kind: event.KindManifest, Source: sourceAPI, Action: event.Request, Cause: event.CauseRequest,
		Actor: caller.Name, Received: d.now().UTC(), Manifests: m,
	}
	ctx, cancel := context.WithTimeout(r.Context(), publishTimeout)
	defer cancel()
	seq, err := d.bus.PublishEvent(ctx, e)
	if err != nil {
		d.fail(w, r, fmt.Errorf("store manifests: %w", err))
		return
	}
	d.metrics.events.WithLabelValues(sourceAPI, resultStored).Inc()
	line, err := wire.ManifestsAcceptedJSON(wire.ManifestsAccepted{ID: fate.RequestID(seq, e.ID), Documents: documents})
	if err != nil {
		d.fail(w, r, fmt.Errorf("answer: %w", err))
		return
	}
	d.send(w, r, http.StatusAccepted, "application/json", line)
}

// parseTarget reads what the manifests are of: the cluster, and the namespace of what names none.
func parseTarget(q url.Values) (event.Manifests, error) {
	m := event.Manifests{Cluster: q.Get("cluster"), Namespace: q.Get("namespace")}
	if m.Namespace == "" {
		m.Namespace = defaultNamespace
	}
	for name := range q {
		if name != "cluster" && name != "namespace" || len(q[name]) > 1 {
			return m, reason.Refusef(reason.BadRequest, "query: %q: want cluster and namespace, once each", clip(name))
		}
	}
	if err := checkCluster(m.Cluster); err != nil {
		return m, reason.Refusef(reason.BadRequest, "cluster: %w", err)
	}
	if err := checkNamespace(m.Namespace); err != nil {
		return m, reason.Refusef(reason.BadRequest, "namespace: %w", err)
	}
	return m, nil
}

func checkCluster(s string) error {
	if s == "" {
		return errors.New("is required: ?cluster=NAME, under which findings will be told")
	}
	if len(s) > maxCluster {
		return fmt.Errorf("longer than %d bytes", maxCluster)
	}
	for i := range len(s) {
		if !nameByte(s[i]) {
			return fmt.Errorf("%q: want letters, digits, dots, dashes and underscores", clip(s))
		}
	}
	return nil
}

// checkNamespace holds a name to what Kubernetes takes: a DNS label.
func checkNamespace(s string) error {
	if len(s) > maxNamespace || strings.Trim(s, "-") != s || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("%q: want up to %d lower-case letters, digits and dashes inside", clip(s), maxNamespace)
	}
	return nil
}

// clip bounds what an answer repeats of a request.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// manifestType tells whether a media type is YAML or JSON. What a browser sends elsewhere without asking
// is neither.
func manifestType(contentType string) bool {
	mt, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	switch mt {
	case "application/json", "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml":
		return true
	default:
		return strings.HasSuffix(mt, "+json") || strings.HasSuffix(mt, "+yaml")
	}
}

// checkManifests answers how many documents a body holds, all of them well-formed.
func (d *Door) checkManifests(ctx context.Context, body []byte) (int, error) {
	select {
	case d.checks <- struct{}{}:
		defer func() { <-d.checks }()
	case <-ctx.Done():
		return 0, reason.Retryf(reason.Internal, "manifests wait to be checked: %w", ctx.Err())
	}
	docs, err := yamldoc.Split(body)
	if err != nil {
		return 0, reason.Refusef(reason.OverBound, "body: %w", err)
	}
	if len(docs) == 0 {
		return 0, reason.Refusef(reason.BadRequest, "body: there is no document in it")
	}
	values := 0
	for _, doc := range docs {
		n, err := doc.Check()
		if err != nil {
			return 0, reason.Refusef(reason.BadRequest, "body: document %d: %w", doc.Number, err)
		}
		if values += n; values > maxValues {
			return 0, reason.Refusef(reason.OverBound, "body: more than %d keys and values; post it by parts", maxValues)
		}
	}
	return len(docs), nil
}

// manifestsEventID names a request's event as requestEventID does: at random, or by the caller's
// Idempotency-Key together with what is posted.
func manifestsEventID(caller, idempotencyKey string, m event.Manifests) string {
	if idempotencyKey == "" {
		var b [32]byte
		_, _ = rand.Read(b[:]) // never fails
		return hex.EncodeToString(b[:])
	}
	return key.Of("event.manifests.v1", caller, idempotencyKey, m.Cluster, m.Namespace, string(m.Body))
}
