package wire

import (
	"github.com/pratique-sec/pratique/pkg/event"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// TypeEvent is the message type of an event.Event.
const TypeEvent = "pratique.v1.Event"

var eventCodec = codec[event.Event, *pb.Event]{(*encoder).event, (*decoder).event}

// EncodeEvent writes an event as a pratique.v1.Event.
func EncodeEvent(e event.Event) ([]byte, error) { return eventCodec.encode(e) }

// DecodeEvent reads what EncodeEvent wrote.
func DecodeEvent(b []byte) (event.Event, error) { return eventCodec.decode(b) }

var (
	eventKinds = newEnum(map[event.Kind]pb.EventKind{
		event.KindImage:    pb.EventKind_EVENT_KIND_IMAGE,
		event.KindManifest: pb.EventKind_EVENT_KIND_MANIFEST,
	})
	actions = newEnum(map[event.Action]pb.Action{
		event.Push:    pb.Action_ACTION_PUSH,
		event.Delete:  pb.Action_ACTION_DELETE,
		event.Request: pb.Action_ACTION_REQUEST,
	})
	causes = newEnum(map[event.Cause]pb.Cause{
		event.CausePush:    pb.Cause_CAUSE_PUSH,
		event.CauseCrawl:   pb.Cause_CAUSE_CRAWL,
		event.CauseRematch: pb.Cause_CAUSE_REMATCH,
		event.CauseRequest: pb.Cause_CAUSE_REQUEST,
		event.CauseDelete:  pb.Cause_CAUSE_DELETE,
	})
)

func (c *cursor) checkEvent(v event.Event) {
	c.required("id", v.ID)
	if v.Kind == event.KindManifest {
		c.enter("manifests", -1)
		c.required("cluster", v.Manifests.Cluster)
		c.leave()
		return
	}
	c.located(v.Reference)
}

func (e *encoder) event(v event.Event) *pb.Event {
	e.checkEvent(v)
	return &pb.Event{
		Id:        text(v.ID),
		Kind:      eventKinds.encode(e, "kind", v.Kind),
		Source:    text(v.Source),
		Action:    actions.encode(e, "action", v.Action),
		Cause:     causes.encode(e, "cause", v.Cause),
		Reference: the(&e.cursor, "reference", v.Reference, e.reference),
		MediaType: text(v.MediaType),
		Platforms: each(&e.cursor, "platforms", v.Platforms, e.platform),
		Actor:     text(v.Actor),
		Claimed:   stamp(v.Claimed),
		Received:  stamp(v.Received),
		Unusable:  texts(v.Unusable),
		Manifests: the(&e.cursor, "manifests", v.Manifests, e.manifests),
	}
}

func (d *decoder) event(m *pb.Event) event.Event {
	v := event.Event{
		ID:        m.GetId(),
		Kind:      eventKinds.decode(m.GetKind()),
		Source:    m.GetSource(),
		Action:    actions.decode(m.GetAction()),
		Cause:     causes.decode(m.GetCause()),
		Reference: the(&d.cursor, "reference", m.GetReference(), d.reference),
		MediaType: m.GetMediaType(),
		Platforms: each(&d.cursor, "platforms", m.GetPlatforms(), d.platform),
		Actor:     m.GetActor(),
		Claimed:   d.time("claimed", m.GetClaimed()),
		Received:  d.time("received", m.GetReceived()),
		Unusable:  m.GetUnusable(),
		Manifests: the(&d.cursor, "manifests", m.GetManifests(), d.manifests),
	}
	d.checkEvent(v)
	return v
}
