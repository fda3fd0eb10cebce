package bus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/nats-io/nats.go/jetstream"
)

// MaxInline is how large, in bytes, a value may be that is kept in a message; what is larger goes to an
// object store under its content digest. JetStream serves messages faster, and its payload limit is
// 1 MB by default.
const MaxInline = 900 << 10

// PutObject stores what r holds under a name, normally its content digest: an object that is there and
// whole is left alone, since readers fail while one is replaced.
func (b *Bus) PutObject(ctx context.Context, bucket, name string, r io.Reader) error {
	store, err := b.objectStore(ctx, bucket)
	if err != nil {
		return err
	}
	info, err := store.GetInfo(ctx, name)
	switch {
	case isNoObject(err):
	case err != nil:
		return storeError("put object "+bucket, err)
	default:
		if whole, err := b.objectIsWhole(ctx, bucket, info); err != nil || whole {
			return err
		}
	}
	source := &sourceReader{r: r}
	err = b.do(ctx, "put object "+bucket, func(ctx context.Context) error {
		_, err := store.Put(ctx, jetstream.ObjectMeta{Name: name}, source)
		return err
	})
	if source.err != nil {
		return fmt.Errorf("bus: put object %s %s: read its content: %w", bucket, name, source.err)
	}
	return storeError("put object "+bucket, err)
}

// Object opens an object. A Read error other than io.EOF means that what was read so far must not be
// used: the reader checks size and digest at the end. One that lost chunks reads as ErrNotFound.
func (b *Bus) Object(ctx context.Context, bucket, name string) (io.ReadCloser, error) {
	store, err := b.objectStore(ctx, bucket)
	if err != nil {
		return nil, err
	}
	info, err := store.GetInfo(ctx, name)
	if isNoObject(err) {
		return nil, fmt.Errorf("bus: object %s %s: %w: %w", bucket, name, err, ErrNotFound)
	}
	if err != nil {
		return nil, storeError("get object "+bucket, err)
	}
	s, err := b.stream(ctx, "OBJ_"+b.name(bucket))
	if err != nil {
		return nil, storeError("get object "+bucket, err)
	}
	return &objectReader{ctx: ctx, stream: s, info: info, next: 1, sum: sha256.New()}, nil
}

// DropObject removes an object; one that is absent is no error.
func (b *Bus) DropObject(ctx context.Context, bucket, name string) error {
	store, err := b.objectStore(ctx, bucket)
	if err != nil {
		return err
	}
	err = b.do(ctx, "delete object "+bucket, func(ctx context.Context) error { return store.Delete(ctx, name) })
	if isNoObject(err) {
		return nil
	}
	return storeError("delete object "+bucket, err)
}

// objectBytes reads an object whole; one of more than limit bytes is none of ours, so ErrNotFound.
func (b *Bus) objectBytes(ctx context.Context, bucket, name string, limit int64) ([]byte, error) {
	r, err := b.Object(ctx, bucket, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var buf bytes.Buffer
	n, err := buf.ReadFrom(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("bus: object %s %s: larger than %d bytes: %w", bucket, name, limit, ErrNotFound)
	}
	return buf.Bytes(), nil
}

func (b *Bus) objectStore(ctx context.Context, bucket string) (jetstream.ObjectStore, error) {
	store, err := remembered(&b.handles.objects, bucket, func() (jetstream.ObjectStore, error) {
		return b.js.ObjectStore(ctx, b.name(bucket))
	})
	if err != nil {
		return nil, storeError("open object store "+bucket, err)
	}
	return store, nil
}

// objectIsWhole tells that all chunks are there: a store that drops its oldest drops chunks before it
// drops the record that lists them.
func (b *Bus) objectIsWhole(ctx context.Context, bucket string, info *jetstream.ObjectInfo) (bool, error) {
	s, err := b.stream(ctx, "OBJ_"+b.name(bucket))
	if err != nil {
		return false, storeError("put object "+bucket, err)
	}
	chunks := chunkSubject(info)
	i, err := s.Info(ctx, jetstream.WithSubjectFilter(chunks))
	if err != nil {
		return false, storeError("put object "+bucket, err)
	}
	return i.State.Subjects[chunks] == uint64(info.Chunks), nil
}

// isNoObject: absent, or a record or name that no object can have.
func isNoObject(err error) bool {
	return errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrBadObjectMeta) || errors.Is(err, jetstream.ErrNameRequired)
}

func chunkSubject(info *jetstream.ObjectInfo) string {
	return "$O." + info.Bucket + ".C." + info.NUID
}

// objectReader asks for one chunk after the other. The client library's own reader is pushed to, and
// waits until its deadline (5 s when there is none) for a chunk that is gone or a slow consumer.
type objectReader struct {
	ctx    context.Context // of Object: Read has none of its own
	stream jetstream.Stream
	info   *jetstream.ObjectInfo
	next   uint64 // stream sequence to look for the next chunk from
	chunks uint32 // read
	size   uint64 // read
	chunk  []byte // what is left of the last one
	sum    hash.Hash
	err    error
}

func (r *objectReader) Read(p []byte) (int, error) {
	for len(r.chunk) == 0 && r.err == nil && len(p) > 0 {
		r.err = r.fetch()
	}
	if len(r.chunk) == 0 {
		return 0, r.err
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

// fetch loads the next chunk, or decides how the object ends.
func (r *objectReader) fetch() error {
	if r.chunks == r.info.Chunks {
		if r.size != r.info.Size || jetstream.GetObjectDigestValue(r.sum) != r.info.Digest {
			return fmt.Errorf("bus: object %s %s is damaged: %w", r.info.Bucket, r.info.Name, ErrNotFound)
		}
		return io.EOF
	}
	m, err := r.stream.GetMsg(r.ctx, r.next, jetstream.WithGetMsgSubject(chunkSubject(r.info)))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("bus: object %s %s lost chunks: %w", r.info.Bucket, r.info.Name, ErrNotFound)
	}
	if err != nil {
		return storeError("read object "+r.info.Bucket, err)
	}
	r.next, r.chunk = m.Sequence+1, m.Data
	r.chunks++
	r.size += uint64(len(m.Data))
	r.sum.Write(m.Data)
	return nil
}

func (r *objectReader) Close() error {
	r.chunk, r.err = nil, errors.New("bus: object reader is closed")
	return nil
}

// sourceReader remembers that the content's own reader failed: the server is not to blame for that.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}
