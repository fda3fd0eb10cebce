package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/compact"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// Headers of REPORTS and STATE.
const (
	headerEncoding = "Content-Encoding"           // "zstd"
	headerObject   = "Pratique-Object"            // the body is this object of `reports`
	headerOutcome  = "Pratique-Outcome"           // so that who replaces a report need not read it
	headerDatabase = "Pratique-Database-Sequence" // likewise
)

const encodingZstd = "zstd"

// maxReportObject bounds the packed report that is read back, in bytes.
const maxReportObject = 64 << 20

// PutReport makes r the current report of its image digest and platform, unless there is a better one:
// a FAILED report never replaces one that was made, and one of an older database never one of a newer.
// Then nothing is written, which is no error.
func (b *Bus) PutReport(ctx context.Context, r *report.Report) error {
	if _, err := image.ParseDigest(string(r.Image.Digest)); err != nil {
		return reason.Refusef(reason.Malformed, "bus: put report: image digest: %w", err)
	}
	body, err := wire.EncodeReport(r)
	if err != nil {
		return fmt.Errorf("bus: put report: %w", err)
	}
	body = compact.Pack(body)
	subject := b.subjectOf("report.v1", platformToken(r.Image.Platform), r.Image.Digest.Hex())
	for range maxConflicts {
		there, err := b.last(ctx, b.name(streamReports), subject)
		if errors.Is(err, ErrNotFound) {
			there, err = &jetstream.RawStreamMsg{}, nil
		}
		if err != nil {
			return err
		}
		if there.Sequence != 0 && !replaces(r, there) {
			return nil
		}
		switch err := b.writeReport(ctx, r, subject, body, there.Sequence); {
		case isConflict(err):
			continue
		case err != nil:
			return err
		}
		b.dropReplaced(ctx, there, body)
		return nil
	}
	return reason.Retryf(reason.BusUnavailable, "bus: put report %s: %w", subject, ErrConflict)
}

func (b *Bus) writeReport(ctx context.Context, r *report.Report, subject string, body []byte, sequence uint64) error {
	m := message(ctx, subject, wire.TypeReport, body)
	m.Header.Set(headerEncoding, encodingZstd)
	m.Header.Set(headerOutcome, string(r.Outcome))
	m.Header.Set(headerDatabase, strconv.FormatUint(r.Database.Sequence, 10))
	if len(body) > MaxInline {
		name := image.DigestOf(body).Hex()
		if err := b.PutObject(ctx, objectsReports, name, bytes.NewReader(body)); err != nil {
			return err
		}
		m.Header.Set(headerObject, name)
		m.Data = nil
	}
	_, err := b.publish(ctx, streamReports, m, expect(sequence))
	if isConflict(err) {
		return err
	}
	return storeError("publish "+streamReports, err)
}

// dropReplaced removes the object of a report that was just replaced. No later report can need it: its
// content holds the time at which it was made. A failure costs space only.
func (b *Bus) dropReplaced(ctx context.Context, old *jetstream.RawStreamMsg, body []byte) {
	name := old.Header.Get(headerObject)
	if name == "" || name == image.DigestOf(body).Hex() {
		return
	}
	if err := b.DropObject(ctx, objectsReports, name); err != nil {
		b.log.WarnContext(ctx, "drop replaced report failed", "object", name, "error", err)
	}
}

// replaces tells whether r is at least as good as the report that is there.
func replaces(r *report.Report, there *jetstream.RawStreamMsg) bool {
	failed := report.Outcome(there.Header.Get(headerOutcome)) == report.Failed
	if r.Outcome == report.Failed && !failed {
		return false
	}
	if r.Outcome != report.Failed && failed {
		return true
	}
	sequence, err := strconv.ParseUint(there.Header.Get(headerDatabase), 10, 64)
	return err != nil || r.Database.Sequence >= sequence
}

// Report reads the current report of an image digest on a platform; ErrNotFound when there is none, or
// none that can be read.
func (b *Bus) Report(ctx context.Context, d image.Digest, p image.Platform) (*report.Report, error) {
	return b.readReport(ctx, b.subjectOf("report.v1", platformToken(p), d.Hex()))
}

// Reports reads the reports of an image digest on all platforms, ordered by platform; none is no error.
func (b *Bus) Reports(ctx context.Context, d image.Digest) ([]*report.Report, error) {
	s, err := b.stream(ctx, b.name(streamReports))
	if err != nil {
		return nil, storeError("open "+streamReports, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(b.subject("report", "v1", "*", Token(d.Hex()))))
	if err != nil {
		return nil, storeError("ask "+streamReports, err)
	}
	var all []*report.Report
	for _, subject := range slices.Sorted(maps.Keys(info.State.Subjects)) {
		r, err := b.readReport(ctx, subject)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func (b *Bus) readReport(ctx context.Context, subject string) (*report.Report, error) {
	var seen uint64
	for {
		m, err := b.last(ctx, b.name(streamReports), subject)
		if err != nil {
			return nil, fmt.Errorf("bus: report %s: %w", subject, err)
		}
		r, err := b.decodeReport(ctx, m)
		switch {
		case err == nil:
			return r, nil
		case errors.Is(err, ErrNotFound) && m.Sequence != seen:
			seen = m.Sequence // replaced between reading the message and its object, maybe
		case errors.Is(err, ErrNotFound), reason.Of(err).Code == reason.Malformed:
			b.log.ErrorContext(ctx, "read report failed", "subject", subject, "sequence", m.Sequence, "error", err)
			return nil, fmt.Errorf("bus: report %s: %w", subject, ErrNotFound)
		default:
			return nil, err
		}
	}
}

// decodeReport answers ErrNotFound for a message whose object is gone, reason.Malformed for one that is
// no report.
func (b *Bus) decodeReport(ctx context.Context, m *jetstream.RawStreamMsg) (*report.Report, error) {
	packed := m.Data
	if name := m.Header.Get(headerObject); name != "" {
		var err error
		if packed, err = b.objectBytes(ctx, objectsReports, name, maxReportObject); err != nil {
			return nil, err
		}
	}
	body, err := compact.Unpack(packed)
	if err != nil {
		return nil, reason.Refusef(reason.Malformed, "%w", err)
	}
	return wire.DecodeReport(body)
}
