package wire

import (
	"time"

	"github.com/pratique-sec/pratique/pkg/alert"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// Message types of the alert router's records.
const (
	TypeAlertPlace        = "pratique.v1.AlertPlace"
	TypeAlertGroup        = "pratique.v1.AlertGroup"
	TypeAlertMember       = "pratique.v1.AlertMember"
	TypeAlertDue          = "pratique.v1.AlertDue"
	TypeAlertNotification = "pratique.v1.AlertNotification"
	TypeAlertAttempt      = "pratique.v1.AlertAttempt"
)

var (
	alertPlaceCodec        = codec[alert.Place, *pb.AlertPlace]{(*encoder).alertPlace, (*decoder).alertPlace}
	alertGroupCodec        = codec[alert.Group, *pb.AlertGroup]{(*encoder).alertGroup, (*decoder).alertGroup}
	alertMemberCodec       = codec[alert.Member, *pb.AlertMember]{(*encoder).alertMember, (*decoder).alertMember}
	alertDueCodec          = codec[alert.Due, *pb.AlertDue]{(*encoder).alertDue, (*decoder).alertDue}
	alertNotificationCodec = codec[alert.Notification, *pb.AlertNotification]{(*encoder).alertNotification, (*decoder).alertNotification}
	alertAttemptCodec      = codec[alert.Attempt, *pb.AlertAttempt]{(*encoder).alertAttempt, (*decoder).alertAttempt}
)

// EncodeAlertPlace writes where an alert is as a pratique.v1.AlertPlace.
func EncodeAlertPlace(p alert.Place) ([]byte, error) { return alertPlaceCodec.encode(p) }

// DecodeAlertPlace reads what EncodeAlertPlace wrote.
func DecodeAlertPlace(b []byte) (alert.Place, error) { return alertPlaceCodec.decode(b) }

// EncodeAlertGroup writes a group of alerts as a pratique.v1.AlertGroup.
func EncodeAlertGroup(g alert.Group) ([]byte, error) { return alertGroupCodec.encode(g) }

// DecodeAlertGroup reads what EncodeAlertGroup wrote.
func DecodeAlertGroup(b []byte) (alert.Group, error) { return alertGroupCodec.decode(b) }

// EncodeAlertMember writes an alert of a group as a pratique.v1.AlertMember.
func EncodeAlertMember(m alert.Member) ([]byte, error) { return alertMemberCodec.encode(m) }

// DecodeAlertMember reads what EncodeAlertMember wrote.
func DecodeAlertMember(b []byte) (alert.Member, error) { return alertMemberCodec.decode(b) }

// EncodeAlertDue writes what a group's timer says as a pratique.v1.AlertDue.
func EncodeAlertDue(v alert.Due) ([]byte, error) { return alertDueCodec.encode(v) }

// DecodeAlertDue reads what EncodeAlertDue wrote.
func DecodeAlertDue(b []byte) (alert.Due, error) { return alertDueCodec.decode(b) }

// EncodeAlertNotification writes what is to be sent as a pratique.v1.AlertNotification, not compressed.
func EncodeAlertNotification(n alert.Notification) ([]byte, error) {
	return alertNotificationCodec.encode(n)
}

// DecodeAlertNotification reads what EncodeAlertNotification wrote.
func DecodeAlertNotification(b []byte) (alert.Notification, error) {
	return alertNotificationCodec.decode(b)
}

// EncodeAlertAttempt writes what was tried as a pratique.v1.AlertAttempt.
func EncodeAlertAttempt(a alert.Attempt) ([]byte, error) { return alertAttemptCodec.encode(a) }

// DecodeAlertAttempt reads what EncodeAlertAttempt wrote.
func DecodeAlertAttempt(b []byte) (alert.Attempt, error) { return alertAttemptCodec.decode(b) }

func (e *encoder) alert(a alert.Alert) *pb.Alert {
	e.required("id", a.ID)
	return &pb.Alert{
		Id:          text(a.ID),
		Revision:    a.Revision,
		Labels:      entries(a.Labels, text[string]),
		Annotations: entries(a.Annotations, text[string]),
		Starts:      stamp(a.Starts),
		Ends:        stamp(a.Ends),
		Once:        a.Once,
		Trace:       text(a.Trace),
	}
}

func (d *decoder) alert(m *pb.Alert) alert.Alert {
	d.required("id", m.GetId())
	return alert.Alert{
		ID:          m.GetId(),
		Revision:    m.GetRevision(),
		Labels:      entries(m.GetLabels(), same[string]),
		Annotations: entries(m.GetAnnotations(), same[string]),
		Starts:      d.time("starts", m.GetStarts()),
		Ends:        d.time("ends", m.GetEnds()),
		Once:        m.GetOnce(),
		Trace:       m.GetTrace(),
	}
}

func (e *encoder) alertPlace(p alert.Place) *pb.AlertPlace {
	e.required("id", p.ID)
	return &pb.AlertPlace{
		Id:       text(p.ID),
		Revision: p.Revision,
		Cause:    text(p.Cause),
		Starts:   stamp(p.Starts),
		Groups:   texts(p.Groups),
	}
}

func (d *decoder) alertPlace(m *pb.AlertPlace) alert.Place {
	d.required("id", m.GetId())
	return alert.Place{
		ID:       m.GetId(),
		Revision: m.GetRevision(),
		Cause:    m.GetCause(),
		Starts:   d.time("starts", m.GetStarts()),
		Groups:   m.GetGroups(),
	}
}

func (e *encoder) alertGroup(g alert.Group) *pb.AlertGroup {
	e.required("id", g.ID)
	e.required("receiver", g.Receiver)
	return &pb.AlertGroup{
		Id:          text(g.ID),
		Receiver:    text(g.Receiver),
		Integration: text(g.Integration),
		Labels:      entries(g.Labels, text[string]),
		RouteLabels: entries(g.RouteLabels, text[string]),
		Wait:        int64(g.Wait),
		Interval:    int64(g.Interval),
		Repeat:      int64(g.Repeat),
		Mute:        texts(g.Mute),
		Active:      texts(g.Active),
		Due:         stamp(g.Due),
		Flushed:     stamp(g.Flushed),
		Mark:        g.Mark,
		Untold:      g.Untold,
		Firing:      count(g.Firing),
		Sending:     text(g.Sending),
	}
}

func (d *decoder) alertGroup(m *pb.AlertGroup) alert.Group {
	d.required("id", m.GetId())
	d.required("receiver", m.GetReceiver())
	return alert.Group{
		ID:          m.GetId(),
		Receiver:    m.GetReceiver(),
		Integration: m.GetIntegration(),
		Labels:      entries(m.GetLabels(), same[string]),
		RouteLabels: entries(m.GetRouteLabels(), same[string]),
		Timing: alert.Timing{
			Wait:     time.Duration(m.GetWait()),
			Interval: time.Duration(m.GetInterval()),
			Repeat:   time.Duration(m.GetRepeat()),
		},
		Mute:    m.GetMute(),
		Active:  m.GetActive(),
		Due:     d.time("due", m.GetDue()),
		Flushed: d.time("flushed", m.GetFlushed()),
		Mark:    m.GetMark(),
		Untold:  m.GetUntold(),
		Firing:  int(m.GetFiring()),
		Sending: m.GetSending(),
	}
}

func (e *encoder) alertMember(m alert.Member) *pb.AlertMember {
	return &pb.AlertMember{Alert: the(&e.cursor, "alert", m.Alert, e.alert), Told: m.Told}
}

func (d *decoder) alertMember(m *pb.AlertMember) alert.Member {
	return alert.Member{Alert: the(&d.cursor, "alert", m.GetAlert(), d.alert), Told: m.GetTold()}
}

func (e *encoder) alertDue(v alert.Due) *pb.AlertDue {
	e.required("group", v.Group)
	return &pb.AlertDue{Group: text(v.Group)}
}

func (d *decoder) alertDue(m *pb.AlertDue) alert.Due {
	d.required("group", m.GetGroup())
	return alert.Due{Group: m.GetGroup()}
}

func (e *encoder) toldAlert(t alert.Told) *pb.ToldAlert {
	return &pb.ToldAlert{Alert: the(&e.cursor, "alert", t.Alert, e.alert), Sequence: t.Sequence}
}

func (d *decoder) toldAlert(m *pb.ToldAlert) alert.Told {
	return alert.Told{Alert: the(&d.cursor, "alert", m.GetAlert(), d.alert), Sequence: m.GetSequence()}
}

func (e *encoder) alertNotification(n alert.Notification) *pb.AlertNotification {
	e.required("id", n.ID)
	e.required("group", n.Group)
	return &pb.AlertNotification{
		Id:          text(n.ID),
		Group:       text(n.Group),
		Receiver:    text(n.Receiver),
		Integration: text(n.Integration),
		Labels:      entries(n.Labels, text[string]),
		RouteLabels: entries(n.RouteLabels, text[string]),
		Reason:      text(n.Reason),
		Alerts:      each(&e.cursor, "alerts", n.Alerts, e.toldAlert),
		Truncated:   count(n.Truncated),
		Created:     stamp(n.Created),
	}
}

func (d *decoder) alertNotification(m *pb.AlertNotification) alert.Notification {
	d.required("id", m.GetId())
	d.required("group", m.GetGroup())
	return alert.Notification{
		ID:          m.GetId(),
		Group:       m.GetGroup(),
		Receiver:    m.GetReceiver(),
		Integration: m.GetIntegration(),
		Labels:      entries(m.GetLabels(), same[string]),
		RouteLabels: entries(m.GetRouteLabels(), same[string]),
		Reason:      m.GetReason(),
		Alerts:      each(&d.cursor, "alerts", m.GetAlerts(), d.toldAlert),
		Truncated:   int(m.GetTruncated()),
		Created:     d.time("created", m.GetCreated()),
	}
}

func (e *encoder) alertAttempt(a alert.Attempt) *pb.AlertAttempt {
	e.required("id", a.ID)
	return &pb.AlertAttempt{Id: text(a.ID), Tries: count(a.Tries), Open: a.Open, Error: text(a.Error), At: stamp(a.At)}
}

func (d *decoder) alertAttempt(m *pb.AlertAttempt) alert.Attempt {
	d.required("id", m.GetId())
	return alert.Attempt{ID: m.GetId(), Tries: int(m.GetTries()), Open: m.GetOpen(), Error: m.GetError(), At: d.time("at", m.GetAt())}
}
