package wire

import (
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/system"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// Message types of Pratique's own troubles.
const (
	TypeNotice     = "pratique.v1.Notice"
	TypeDeadLetter = "pratique.v1.DeadLetter"
)

var (
	noticeCodec     = codec[system.Notice, *pb.Notice]{(*encoder).notice, (*decoder).notice}
	deadLetterCodec = codec[system.DeadLetter, *pb.DeadLetter]{(*encoder).deadLetter, (*decoder).deadLetter}
)

// EncodeNotice writes a system notice as a pratique.v1.Notice.
func EncodeNotice(n system.Notice) ([]byte, error) { return noticeCodec.encode(n) }

// DecodeNotice reads what EncodeNotice wrote.
func DecodeNotice(b []byte) (system.Notice, error) { return noticeCodec.decode(b) }

// NoticeJSON writes a system notice as protobuf JSON on one line, without a newline.
func NoticeJSON(n system.Notice) ([]byte, error) { return noticeCodec.json(n) }

// EncodeDeadLetter writes a dead letter as a pratique.v1.DeadLetter.
func EncodeDeadLetter(l system.DeadLetter) ([]byte, error) { return deadLetterCodec.encode(l) }

// DecodeDeadLetter reads what EncodeDeadLetter wrote.
func DecodeDeadLetter(b []byte) (system.DeadLetter, error) { return deadLetterCodec.decode(b) }

// DeadLetterJSON writes a dead letter as protobuf JSON on one line, without a newline; the payload is
// base64.
func DeadLetterJSON(l system.DeadLetter) ([]byte, error) { return deadLetterCodec.json(l) }

func (e *encoder) notice(n system.Notice) *pb.Notice {
	e.required("id", n.ID)
	e.required("kind", string(n.Kind))
	return &pb.Notice{
		Id:      text(n.ID),
		Kind:    text(n.Kind),
		Subject: text(n.Subject),
		Message: text(n.Message),
		At:      stamp(n.At),
	}
}

func (d *decoder) notice(m *pb.Notice) system.Notice {
	d.required("id", m.GetId())
	d.required("kind", m.GetKind())
	return system.Notice{
		ID:      m.GetId(),
		Kind:    system.Kind(m.GetKind()),
		Subject: m.GetSubject(),
		Message: m.GetMessage(),
		At:      d.time("at", m.GetAt()),
	}
}

func (e *encoder) deadLetter(l system.DeadLetter) *pb.DeadLetter {
	e.required("id", l.ID)
	e.required("reason", string(l.Reason))
	return &pb.DeadLetter{
		Id:      text(l.ID),
		Service: text(l.Service),
		Reason:  text(l.Reason),
		Detail:  text(l.Detail),
		Subject: text(l.Subject),
		Headers: entries(l.Headers, func(values []string) *pb.HeaderValues {
			return &pb.HeaderValues{Values: texts(values)}
		}),
		Data:     l.Data,
		Verdicts: texts(l.Verdicts),
		Attempts: count(l.Attempts),
		TraceId:  text(l.TraceID),
		At:       stamp(l.At),
	}
}

func (d *decoder) deadLetter(m *pb.DeadLetter) system.DeadLetter {
	d.required("id", m.GetId())
	d.required("reason", m.GetReason())
	return system.DeadLetter{
		ID:       m.GetId(),
		Service:  m.GetService(),
		Reason:   reason.Code(m.GetReason()),
		Detail:   m.GetDetail(),
		Subject:  m.GetSubject(),
		Headers:  entries(m.GetHeaders(), (*pb.HeaderValues).GetValues),
		Data:     m.GetData(),
		Verdicts: m.GetVerdicts(),
		Attempts: int(m.GetAttempts()),
		TraceID:  m.GetTraceId(),
		At:       d.time("at", m.GetAt()),
	}
}
