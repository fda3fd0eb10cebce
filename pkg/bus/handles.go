package bus

import (
	"context"
	"errors"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// handles remembers what was looked up once: opening a stream or bucket is a request of its own, and
// none of them changes its nature while the process lives.
type handles struct {
	streams, values, objects sync.Map
}

// remembered answers what m holds under name, or opens it. Two who open at once open twice, which
// costs a request and nothing else.
func remembered[T any](m *sync.Map, name string, open func() (T, error)) (T, error) {
	if v, ok := m.Load(name); ok {
		return v.(T), nil
	}
	v, err := open()
	if err != nil {
		return v, err
	}
	m.Store(name, v)
	return v, nil
}

// stream opens a stream by its full name: b.name("FINDINGS"), "KV_" + b.name("facts").
func (b *Bus) stream(ctx context.Context, name string) (jetstream.Stream, error) {
	return remembered(&b.handles.streams, name, func() (jetstream.Stream, error) { return b.js.Stream(ctx, name) })
}

// last reads the newest message of a subject; ErrNotFound when there is none.
func (b *Bus) last(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error) {
	s, err := b.stream(ctx, stream)
	if err != nil {
		return nil, storeError("open "+stream, err)
	}
	m, err := s.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, storeError("read "+stream, err)
	}
	return m, nil
}

// expect makes a publish fail with isConflict unless the subject's last message has this sequence;
// 0: unless there is none.
func expect(sequence uint64) jetstream.PublishOpt {
	return jetstream.WithExpectLastSequencePerSubject(sequence)
}

// isConflict tells that a compare-and-set lost: to a message that is there, or to one in flight.
func isConflict(err error) bool {
	return apiCode(err) == codeWrongLast || apiCode(err) == codeClash
}

// maxConflicts bounds a compare-and-set loop. In each round that is lost somebody else won, so this
// many in a row mean a crowd: the message is handed back and tried later.
const maxConflicts = 50
