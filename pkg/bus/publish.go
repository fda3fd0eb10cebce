package bus

import (
	"context"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	headerContentType = "Content-Type"
	contentTypePrefix = "application/protobuf; messageType="
)

// message makes a message whose headers say what the body is and which trace it belongs to.
func message(ctx context.Context, subject, messageType string, body []byte) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Header.Set(headerContentType, contentTypePrefix+messageType)
	inject(ctx, m.Header)
	m.Data = body
	return m
}

// publish stores one message; op names the stream to people, metrics and faults ("FINDINGS",
// "WORK.layer"). The error is the server's, undecided: see storeError.
func (b *Bus) publish(ctx context.Context, op string, m *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	var ack *jetstream.PubAck
	err := b.do(ctx, "publish "+op, func(ctx context.Context) error {
		var err error
		ack, err = b.js.PublishMsg(ctx, m, opts...)
		return err
	})
	return ack, err
}
