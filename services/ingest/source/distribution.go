package source

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/key"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// distribution is the notification of CNCF Distribution 2 and 3, and of registries made from it. Both
// versions send the same envelope under different media types.
var distribution = Source{Name: distributionName, MaxBody: 1 << 20, Parse: parseDistribution}

const (
	distributionName = "distribution"

	maxEnvelope  = 1000 // elements
	maxActor     = 256  // bytes
	maxMediaType = 255
)

// distributionEvent is what is read of one element; all of it is optional and hostile.
type distributionEvent struct {
	ID        string `json:"id"`
	Timestamp string `json:"timestamp"`
	Action    string `json:"action"`
	Target    struct {
		MediaType  string `json:"mediaType"`
		Digest     string `json:"digest"`
		Repository string `json:"repository"`
		URL        string `json:"url"`
		Tag        string `json:"tag"`
	} `json:"target"`
	Request struct {
		Host string `json:"host"`
	} `json:"request"`
	Actor struct {
		Name string `json:"name"`
	} `json:"actor"`
}

func parseDistribution(body []byte, received time.Time) (Batch, error) {
	var envelope struct {
		// Raw, so that one element of a wrong shape does not cost the others.
		Events []json.RawMessage `json:"events"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return Batch{}, reason.Refusef(reason.BadRequest, "body: want a distribution notification, {\"events\": […]}: %w", err)
	}
	if envelope.Events == nil {
		return Batch{}, reason.Refusef(reason.BadRequest, "events: missing; want a distribution notification, {\"events\": […]}")
	}
	if len(envelope.Events) > maxEnvelope {
		return Batch{}, reason.Refusef(reason.OverBound, "events: %d elements, at most %d are read", len(envelope.Events), maxEnvelope)
	}
	var b Batch
	for i, raw := range envelope.Events {
		var d distributionEvent
		if err := json.Unmarshal(raw, &d); err != nil {
			b.unusable(fmt.Sprintf("events[%d]: %s", i, clip(err.Error(), 200)))
			continue
		}
		if why := d.drop(); why != "" {
			b.drop(why)
			continue
		}
		e, problem := d.event(received)
		if problem != "" {
			b.unusable(fmt.Sprintf("events[%d].%s", i, problem))
			continue
		}
		b.Events = append(b.Events, e)
	}
	return b, nil
}

// drop tells why an element says nothing new; "" when it may.
func (d *distributionEvent) drop() Drop {
	switch d.Action {
	case "push":
		if !d.manifest() {
			return DropBlob
		}
		return ""
	case "delete":
		return "" // thin: a manifest's and a blob's look the same
	case "pull":
		return DropPull
	case "mount":
		return DropMount
	}
	return DropAction
}

// manifest tells whether a pushed thing is a manifest or index. The media type decides; without one,
// what only manifests have does.
func (d *distributionEvent) manifest() bool {
	mt := strings.ToLower(d.Target.MediaType)
	if mt == "" {
		return d.Target.Tag != "" || strings.Contains(d.Target.URL, "/manifests/")
	}
	return strings.Contains(mt, ".manifest.") || strings.Contains(mt, ".image.index.")
}

// event makes the event, or says which field leaves nothing to name.
func (d *distributionEvent) event(received time.Time) (e event.Event, problem string) {
	e = event.Event{
		Kind: event.KindImage, Source: distributionName, Action: event.Push, Cause: event.CausePush,
		MediaType: clip(d.Target.MediaType, maxMediaType), Actor: clip(d.Actor.Name, maxActor), Received: received,
	}
	if d.Action == "delete" {
		e.Action, e.Cause = event.Delete, event.CauseDelete
	}
	skip := func(field string, why any) { e.Unusable = append(e.Unusable, fmt.Sprintf("%s: %v", field, why)) }

	u, _ := url.Parse(d.Target.URL) // nil when it is none: then it is no help
	r := &e.Reference
	r.Host = strings.ToLower(d.Request.Host)
	if err := image.CheckHost(r.Host); err != nil {
		skip("request.host", err)
		if u == nil || image.CheckHost(strings.ToLower(u.Host)) != nil {
			return e, "request.host: " + err.Error()
		}
		r.Host = strings.ToLower(u.Host)
	}
	r.Repository = d.Target.Repository
	if err := image.CheckRepository(r.Repository); err != nil {
		return e, "target.repository: " + err.Error()
	}
	if d.Target.Tag != "" {
		if err := image.CheckTag(d.Target.Tag); err != nil {
			skip("target.tag", err)
		} else {
			r.Tag = d.Target.Tag
		}
	}
	if d.Target.Digest != "" {
		if digest, err := image.ParseDigest(d.Target.Digest); err != nil {
			skip("target.digest", err)
		} else {
			r.Digest = digest
		}
	}
	if r.Tag == "" && r.Digest == "" && !d.repositoryDelete() {
		if e.Action == event.Delete || u == nil || !nameFromURL(r, u.Path) {
			return e, "target: neither a usable tag nor a usable digest: " + strings.Join(e.Unusable, "; ")
		}
	}
	t, why := claimed(d.Timestamp, received)
	if why != "" {
		skip("timestamp", why)
	}
	e.Claimed = t
	// The envelope's id is the event's, but some senders' ids are the same everywhere or missing: what it
	// is about goes in, too. A notification that is sent again is the same in all of it.
	e.ID = key.Of("event.distribution.v1", d.ID, d.Timestamp, d.Action, r.Host, r.Repository, d.Target.Tag, d.Target.Digest)
	return e, ""
}

// repositoryDelete tells that a whole repository is gone: that, and never a deletion whose tag or digest
// could not be read.
func (d *distributionEvent) repositoryDelete() bool {
	return d.Action == "delete" && d.Target.Tag == "" && d.Target.Digest == ""
}

// nameFromURL takes the tag or digest of a push from the manifest's URL, as a last resort.
func nameFromURL(r *image.Reference, path string) bool {
	_, name, found := strings.Cut(path, "/manifests/")
	if !found {
		return false
	}
	if digest, err := image.ParseDigest(name); err == nil {
		r.Digest = digest
		return true
	}
	if image.CheckTag(name) != nil {
		return false
	}
	r.Tag = name
	return true
}
