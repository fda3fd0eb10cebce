package wire

import (
	"bytes"
	"encoding/json"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/pratique-sec/pratique/pkg/reason"
)

// A codec joins the two directions of one value's conversion to the forms that travel.
type codec[V any, M proto.Message] struct {
	to   func(*encoder, V) M
	from func(*decoder, M) V
}

// empty makes a new message; M's own zero is a nil pointer.
func (codec[V, M]) empty() M {
	var m M
	return m.ProtoReflect().New().Interface().(M)
}

func name(m proto.Message) string { return string(m.ProtoReflect().Descriptor().Name()) }

func (c codec[V, M]) message(v V) (M, error) {
	var e encoder
	m := c.to(&e, v)
	if e.err != nil {
		return m, reason.Refusef(reason.Malformed, "encode %s: %w", name(m), e.err)
	}
	return m, nil
}

func (c codec[V, M]) value(m M) (V, error) {
	var d decoder
	v := c.from(&d, m)
	if d.err != nil {
		var none V
		return none, reason.Refusef(reason.Malformed, "decode %s: %w", name(m), d.err)
	}
	return v, nil
}

func (c codec[V, M]) encode(v V) ([]byte, error) {
	m, err := c.message(v)
	if err != nil {
		return nil, err
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, reason.Refusef(reason.Malformed, "encode %s: %w", name(m), err)
	}
	return b, nil
}

func (c codec[V, M]) decode(b []byte) (V, error) {
	m := c.empty()
	if err := proto.Unmarshal(b, m); err != nil {
		var none V
		return none, reason.Refusef(reason.Malformed, "decode %s: %s", name(m), plain(err))
	}
	return c.value(m)
}

// json writes protobuf JSON on one line, without a newline. Fields that are empty are there, so that
// a script finds every list and number; only messages can be missing.
func (c codec[V, M]) json(v V) ([]byte, error) {
	m, err := c.message(v)
	if err != nil {
		return nil, err
	}
	b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, reason.Refusef(reason.Malformed, "encode %s: %w", name(m), err)
	}
	// protojson varies its spaces from build to build, lest somebody compares its bytes.
	var line bytes.Buffer
	if err := json.Compact(&line, b); err != nil {
		return nil, reason.Refusef(reason.Malformed, "encode %s: %w", name(m), err)
	}
	return line.Bytes(), nil
}

// fromJSON reads protobuf JSON of this schema or a newer one.
func (c codec[V, M]) fromJSON(b []byte) (V, error) {
	m := c.empty()
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		var none V
		return none, reason.Refusef(reason.Malformed, "decode %s: %s", name(m), plain(err))
	}
	return c.value(m)
}

// plain takes protobuf's own prefix off an error. It varies its space from build to build, and says
// nothing that the sentence around it does not.
func plain(err error) string {
	return strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
}
