package wire

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"
)

// A form is one message with its codec, its type taken away so that a test can range over all.
type form struct {
	name     string // of the message, without package
	typeName string // the Type… constant; "" for bodies of the HTTP API, which travel as JSON only
	value    reflect.Type
	encode   func(any) ([]byte, error)
	decode   func([]byte) (any, error)
	json     func(any) ([]byte, error)
	fromJSON func([]byte) (any, error)
	message  func(any) (proto.Message, error)
}

func formOf[V any, M proto.Message](
	typeName string, encode func(V) ([]byte, error), decode func([]byte) (V, error), c codec[V, M],
) form {
	return form{
		name:     name(c.empty()),
		typeName: typeName,
		value:    reflect.TypeFor[V](),
		encode:   func(v any) ([]byte, error) { return encode(v.(V)) },
		decode:   func(b []byte) (any, error) { return decode(b) },
		json:     func(v any) ([]byte, error) { return c.json(v.(V)) },
		fromJSON: func(b []byte) (any, error) { return c.fromJSON(b) },
		message:  func(v any) (proto.Message, error) { return c.message(v.(V)) },
	}
}

var forms = []form{
	formOf(TypeEvent, EncodeEvent, DecodeEvent, eventCodec),
	formOf(TypeImageJob, EncodeImageJob, DecodeImageJob, imageJobCodec),
	formOf(TypeLayerJob, EncodeLayerJob, DecodeLayerJob, layerJobCodec),
	formOf(TypeMatchJob, EncodeMatchJob, DecodeMatchJob, matchJobCodec),
	formOf(TypeLayerNotice, EncodeLayerNotice, DecodeLayerNotice, layerNoticeCodec),
	formOf(TypeFacts, EncodeFacts, DecodeFacts, factsCodec),
	formOf(TypeRecord, EncodeRecord, DecodeRecord, recordCodec),
	formOf(TypeVerdict, EncodeVerdict, DecodeVerdict, verdictCodec),
	formOf(TypeReport, EncodeReport, DecodeReport, reportCodec),
	formOf(TypeState, EncodeState, DecodeState, stateCodec),
	formOf(TypeDelta, EncodeDelta, DecodeDelta, deltaCodec),
	formOf(TypeScan, EncodeScan, DecodeScan, scanCodec),
	formOf(TypeFate, EncodeFate, DecodeFate, fateCodec),
	formOf(TypeTrack, EncodeTrack, DecodeTrack, trackCodec),
	formOf(TypeBreaker, EncodeBreaker, DecodeBreaker, breakerCodec),
	formOf(TypePointer, EncodePointer, DecodePointer, pointerCodec),
	formOf(TypeNotice, EncodeNotice, DecodeNotice, noticeCodec),
	formOf(TypeDeadLetter, EncodeDeadLetter, DecodeDeadLetter, deadLetterCodec),
	formOf(TypeAlertPlace, EncodeAlertPlace, DecodeAlertPlace, alertPlaceCodec),
	formOf(TypeAlertGroup, EncodeAlertGroup, DecodeAlertGroup, alertGroupCodec),
	formOf(TypeAlertMember, EncodeAlertMember, DecodeAlertMember, alertMemberCodec),
	formOf(TypeAlertDue, EncodeAlertDue, DecodeAlertDue, alertDueCodec),
	formOf(TypeAlertNotification, EncodeAlertNotification, DecodeAlertNotification, alertNotificationCodec),
	formOf(TypeAlertAttempt, EncodeAlertAttempt, DecodeAlertAttempt, alertAttemptCodec),
	formOf("", scanRequestCodec.encode, scanRequestCodec.decode, scanRequestCodec),
	formOf("", scanAcceptedCodec.encode, scanAcceptedCodec.decode, scanAcceptedCodec),
	formOf("", eventsAcceptedCodec.encode, eventsAcceptedCodec.decode, eventsAcceptedCodec),
	formOf("", manifestsAcceptedCodec.encode, manifestsAcceptedCodec.decode, manifestsAcceptedCodec),
	formOf("", problemCodec.encode, problemCodec.decode, problemCodec),
}

func formNamed(t testing.TB, name string) form {
	t.Helper()
	for _, f := range forms {
		if f.name == name {
			return f
		}
	}
	t.Fatalf("no form is named %s", name)
	return form{}
}
