package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/compact"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// Kinds of records on ALERTS, as tokens of its subjects. All are one to a subject.
const (
	alertPlace   = "place"   // .<alert>
	alertGroup   = "group"   // .<group>
	alertMember  = "member"  // .<group>.<alert>
	alertTimer   = "timer"   // .<group>, a schedule whose target is the next
	alertDue     = "due"     // .<group>
	alertOut     = "out"     // .<receiver>.<notification>
	alertAttempt = "attempt" // .<notification>
)

// Lifetimes of what is of no use any more.
const (
	// A record that is removed is replaced by an empty message. Were it deleted, a nats-server that is killed
	// would come back with the record that it had replaced, since those leave no trace on disk
	// (nats-server#8505): an alert would fire again, a group wait for a notification that is long gone. By
	// the end of this time the server has rewritten the block that the old record is in.
	goneAfter = 7 * day
	// No message of FINDINGS or SYSTEM comes again that long after a later one of the same alert.
	placeKept   = 7 * day
	attemptKept = 7 * day
)

func (b *Bus) alertSubject(tokens ...string) string {
	return b.subjectOf("alert", tokens...)
}

// AlertPlace reads where an alert is, and the revision to write it with; ErrNotFound, with one too, when
// it is nowhere. So do AlertGroup and AlertMember.
func (b *Bus) AlertPlace(ctx context.Context, id string) (alert.Place, uint64, error) {
	return readAlert(ctx, b, wire.DecodeAlertPlace, alertPlace, id)
}

// AlertGroup reads a group.
func (b *Bus) AlertGroup(ctx context.Context, id string) (alert.Group, uint64, error) {
	return readAlert(ctx, b, wire.DecodeAlertGroup, alertGroup, id)
}

// AlertMember reads an alert of a group.
func (b *Bus) AlertMember(ctx context.Context, group, id string) (alert.Held, error) {
	m, seq, err := readAlert(ctx, b, wire.DecodeAlertMember, alertMember, group, id)
	return alert.Held{Member: m, Sequence: seq}, err
}

// AlertAttempt reads what was tried with a notification; ErrNotFound when nothing was.
func (b *Bus) AlertAttempt(ctx context.Context, notification string) (alert.Attempt, error) {
	a, _, err := readAlert(ctx, b, wire.DecodeAlertAttempt, alertAttempt, notification)
	return a, err
}

func readAlert[T any](ctx context.Context, b *Bus, decode func([]byte) (T, error), tokens ...string) (T, uint64, error) {
	var none T
	subject := b.alertSubject(tokens...)
	m, err := b.last(ctx, b.name(streamAlerts), subject)
	if err != nil {
		return none, 0, fmt.Errorf("bus: %s: %w", subject, err)
	}
	if len(m.Data) == 0 {
		return none, m.Sequence, fmt.Errorf("bus: %s: %w", subject, ErrNotFound)
	}
	v, err := decode(m.Data)
	if err != nil {
		return none, 0, fmt.Errorf("bus: %s: %w", subject, err)
	}
	return v, m.Sequence, nil
}

// AlertMembers reads all alerts of a group, in the order in which they were put there.
func (b *Bus) AlertMembers(ctx context.Context, group string) ([]alert.Held, error) {
	var all []alert.Held
	err := b.snapshot(ctx, b.name(streamAlerts), b.alertSubject(alertMember, group)+".*", false, func(m jetstream.Msg, seq uint64) error {
		if len(m.Data()) == 0 {
			return nil
		}
		v, err := wire.DecodeAlertMember(m.Data())
		if err != nil {
			b.log.ErrorContext(ctx, "read alert failed", "subject", m.Subject(), "sequence", seq, "error", err)
			return nil
		}
		all = append(all, alert.Held{Member: v, Sequence: seq})
		return nil
	})
	return all, err
}

// AlertGroups calls fn with every group.
func (b *Bus) AlertGroups(ctx context.Context, fn func(alert.Group) error) error {
	return b.snapshot(ctx, b.name(streamAlerts), b.alertSubject(alertGroup)+".*", false, func(m jetstream.Msg, seq uint64) error {
		if len(m.Data()) == 0 {
			return nil
		}
		g, err := wire.DecodeAlertGroup(m.Data())
		if err != nil {
			b.log.ErrorContext(ctx, "read group failed", "subject", m.Subject(), "sequence", seq, "error", err)
			return nil
		}
		return fn(g)
	})
}

// CommitAlerts stores a batch as a whole. ErrConflict: something in it was changed since it was read, and
// nothing was stored.
func (b *Bus) CommitAlerts(ctx context.Context, batch alert.Batch) error {
	msgs, err := b.alertMessages(ctx, batch)
	if err != nil {
		return fmt.Errorf("bus: commit alerts: %w", err)
	}
	if len(msgs) == 0 {
		return nil
	}
	err = b.do(ctx, "commit "+streamAlerts, func(ctx context.Context) error { return b.publishBatch(ctx, msgs) })
	if isConflict(err) {
		return fmt.Errorf("bus: commit alerts: %w", ErrConflict)
	}
	return storeError("commit "+streamAlerts, err)
}

func (b *Bus) publishBatch(ctx context.Context, msgs []*nats.Msg) error {
	p, err := jetstreamext.NewBatchPublisher(b.js)
	if err != nil {
		return err
	}
	last := len(msgs) - 1
	for _, m := range msgs[:last] {
		if err := p.AddMsg(m); err != nil {
			return err
		}
	}
	_, err = p.CommitMsg(ctx, msgs[last])
	return err
}

// alertMessages are a batch's messages.
func (b *Bus) alertMessages(ctx context.Context, batch alert.Batch) (msgs []*nats.Msg, err error) {
	add := func(m *nats.Msg, revision uint64, guarded bool) {
		if guarded {
			m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(revision, 10))
		}
		msgs = append(msgs, m)
	}
	if p := batch.Place; p != nil {
		body, err := wire.EncodeAlertPlace(*p)
		if err != nil {
			return nil, err
		}
		m := message(ctx, b.alertSubject(alertPlace, p.ID), wire.TypeAlertPlace, body)
		if len(p.Groups) == 0 {
			m.Header.Set(jetstream.MsgTTLHeader, placeKept.String())
		}
		add(m, batch.PlaceRevision, true)
	}
	for _, w := range batch.Groups {
		subject := b.alertSubject(alertGroup, w.Group.ID)
		if w.Remove {
			add(gone(subject), w.Revision, true)
			continue
		}
		body, err := wire.EncodeAlertGroup(w.Group)
		if err != nil {
			return nil, err
		}
		add(message(ctx, subject, wire.TypeAlertGroup, body), w.Revision, true)
		if w.Timer {
			m, err := b.timer(ctx, w.Group)
			if err != nil {
				return nil, err
			}
			add(m, 0, false)
		}
	}
	for _, w := range batch.Members {
		subject := b.alertSubject(alertMember, w.Group, w.ID)
		if w.Member == nil {
			add(gone(subject), 0, false)
			continue
		}
		body, err := wire.EncodeAlertMember(*w.Member)
		if err != nil {
			return nil, err
		}
		add(message(ctx, subject, wire.TypeAlertMember, body), 0, false)
	}
	if n := batch.Out; n != nil {
		body, err := wire.EncodeAlertNotification(*n)
		if err != nil {
			return nil, err
		}
		m := message(ctx, b.notificationSubject(*n), wire.TypeAlertNotification, compact.Pack(body))
		m.Header.Set(headerEncoding, encodingZstd)
		add(m, 0, false)
	}
	return msgs, nil
}

func (b *Bus) notificationSubject(n alert.Notification) string {
	return b.alertSubject(alertOut, n.Receiver, n.ID)
}

// gone is what replaces a message that a batch removes.
func gone(subject string) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Header.Set(jetstream.MsgTTLHeader, goneAfter.String())
	return m
}

// timer makes the server store a message on the group's due subject when it is time. The time is written
// here because the client library cuts it to seconds.
func (b *Bus) timer(ctx context.Context, g alert.Group) (*nats.Msg, error) {
	body, err := wire.EncodeAlertDue(alert.Due{Group: g.ID})
	if err != nil {
		return nil, err
	}
	m := message(ctx, b.alertSubject(alertTimer, g.ID), wire.TypeAlertDue, body)
	m.Header.Set("Nats-Schedule", "@at "+g.Due.UTC().Format(time.RFC3339Nano))
	m.Header.Set("Nats-Schedule-Target", b.alertSubject(alertDue, g.ID))
	return m, nil
}

// PutAlertAttempt notes what is tried with a notification.
func (b *Bus) PutAlertAttempt(ctx context.Context, a alert.Attempt) error {
	body, err := wire.EncodeAlertAttempt(a)
	if err != nil {
		return fmt.Errorf("bus: attempt: %w", err)
	}
	m := message(ctx, b.alertSubject(alertAttempt, a.ID), wire.TypeAlertAttempt, body)
	m.Header.Set(jetstream.MsgTTLHeader, attemptKept.String())
	_, err = b.publish(ctx, streamAlerts+".attempt", m)
	return storeError("publish attempt", err)
}

// DropAlerts removes records by their sequences. One that is gone, or was replaced meanwhile, is no error.
func (b *Bus) DropAlerts(ctx context.Context, sequences ...uint64) error {
	for _, seq := range sequences {
		m, err := b.rawMessage(ctx, streamAlerts, seq)
		if errors.Is(err, ErrNotFound) || err == nil && len(m.Data) == 0 {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := b.publish(ctx, streamAlerts+".gone", gone(m.Subject), expect(seq)); err != nil && !isConflict(err) {
			return storeError("remove alert", err)
		}
	}
	return nil
}

// deleteDone deletes a message that was handled. Nothing was ever on its subject that could come back, or
// (alertDue) nothing that would do harm.
func (b *Bus) deleteDone(ctx context.Context, seq uint64) error {
	s, err := b.stream(ctx, b.name(streamAlerts))
	if err != nil {
		return storeError("open "+streamAlerts, err)
	}
	err = b.do(ctx, "delete "+streamAlerts, func(ctx context.Context) error { return s.DeleteMsg(ctx, seq) })
	if err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) { // which says that there is none
		return storeError("delete alert", err)
	}
	return nil
}

// BuryNotification makes a dead letter of a notification that nobody took, and tells SYSTEM; but not of one
// that told troubles alone: that would become an alert to the same receiver, and so on for ever. Doing it
// again changes nothing.
func (b *Bus) BuryNotification(ctx context.Context, n alert.Notification, attempts int, why *reason.Error) error {
	body, err := wire.EncodeAlertNotification(n)
	if err != nil {
		return fmt.Errorf("bus: bury notification: %w", err)
	}
	m := message(ctx, b.notificationSubject(n), wire.TypeAlertNotification, compact.Pack(body))
	m.Header.Set(headerEncoding, encodingZstd)
	q := queue{service: serviceAlertRouter}
	if slices.ContainsFunc(n.Alerts, func(t alert.Told) bool { return !t.Alert.Once }) {
		err = b.bury(ctx, q, m, Delivery{Attempt: attempts}, why)
	} else {
		_, _, err = b.storeDeadLetter(ctx, q, m, Delivery{Attempt: attempts}, why)
	}
	if err != nil {
		return fmt.Errorf("bus: bury notification: %w", err)
	}
	return nil
}
