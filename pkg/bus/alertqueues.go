package bus

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/compact"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/wire"
)

const serviceAlertRouter = "alertrouter"

// Consumers of the alert router. Those of FINDINGS and SYSTEM begin with what comes after they were made:
// a router that joins an old installation does not tell a month of history.
const (
	consumerAlerts = "alertrouter"
	consumerDue    = "alertrouter-due"
	consumerOut    = "alertrouter-out"
)

var alertConsumers = []consumer{
	{stream: streamFindings, name: consumerAlerts, filter: "finding.v1.>", fresh: true},
	{stream: streamSystem, name: consumerAlerts, filter: "system.v1.>", fresh: true},
	{stream: streamAlerts, name: consumerDue, filter: "alert." + alertDue + ".*"},
	{stream: streamAlerts, name: consumerOut, filter: "alert." + alertOut + ".*.*"},
}

// Queues of the alert router, as Health hears of them.
const (
	QueueAlertDeltas   = "FINDINGS.alerts"
	QueueAlertNotices  = "SYSTEM.alerts"
	QueueAlertDue      = "ALERTS.due"
	QueueNotifications = "ALERTS.out"
)

// AlertQueues are all of them.
func AlertQueues() []string {
	return []string{QueueAlertDeltas, QueueAlertNotices, QueueAlertDue, QueueNotifications}
}

// ConsumeDeltas hands every delta of FINDINGS to h, as ConsumeEvents does events. While ALERTS is nearly
// full it takes none: they wait in FINDINGS.
func (b *Bus) ConsumeDeltas(ctx context.Context, slots int, h func(context.Context, finding.Delta, Delivery) error) error {
	q := queue{
		stream: streamFindings, op: QueueAlertDeltas, service: serviceAlertRouter,
		lanes: [][]string{{consumerAlerts}}, wake: b.subject("live", ">"),
	}
	return b.consume(ctx, q, slots, b.whileRoom(decoded(wire.DecodeDelta, h)))
}

// ConsumeNotices hands every notice of SYSTEM to h, likewise.
func (b *Bus) ConsumeNotices(ctx context.Context, slots int, h func(context.Context, system.Notice, Delivery) error) error {
	q := queue{
		stream: streamSystem, op: QueueAlertNotices, service: serviceAlertRouter,
		lanes: [][]string{{consumerAlerts}}, wake: b.subject("wake", "alert", "none"), // the poll finds them
	}
	return b.consume(ctx, q, slots, b.whileRoom(decoded(wire.DecodeNotice, h)))
}

// ConsumeDue hands the id of each group whose timer fired to h.
func (b *Bus) ConsumeDue(ctx context.Context, slots int, h func(ctx context.Context, group string) error) error {
	return b.consumeAlerts(ctx, slots, QueueAlertDue, consumerDue, alertDue, func(ctx context.Context, body []byte, _ Delivery) error {
		due, err := wire.DecodeAlertDue(body)
		if err != nil {
			return reason.Refusef(reason.Malformed, "decode: %w", err)
		}
		return h(ctx, due.Group)
	})
}

// ConsumeNotifications hands what is to be sent to h. An error of kind Retry that carries a RetryAfter has
// it come again then.
func (b *Bus) ConsumeNotifications(ctx context.Context, slots int, h func(context.Context, alert.Notification, Delivery) error) error {
	return b.consumeAlerts(ctx, slots, QueueNotifications, consumerOut, alertOut, func(ctx context.Context, body []byte, d Delivery) error {
		raw, err := compact.Unpack(body)
		if err != nil {
			return reason.Refusef(reason.Malformed, "decode: %w", err)
		}
		n, err := wire.DecodeAlertNotification(raw)
		if err != nil {
			return reason.Refusef(reason.Malformed, "decode: %w", err)
		}
		return h(ctx, n, d)
	})
}

// consumeAlerts takes from ALERTS itself, where what was handled is of no use any more.
func (b *Bus) consumeAlerts(ctx context.Context, slots int, op, consumer, kind string, h handler) error {
	q := queue{
		stream: streamAlerts, op: op, service: serviceAlertRouter,
		lanes: [][]string{{consumer}}, wake: b.subject("wake", "alert", kind, ">"),
	}
	return b.consume(ctx, q, slots, func(ctx context.Context, body []byte, d Delivery) error {
		if err := h(ctx, body, d); err != nil {
			return err
		}
		return b.deleteDone(ctx, d.Sequence)
	})
}

const (
	fullAlerts    = 90 // percent of ALERTS at which no more is taken
	fullCheck     = 5 * time.Second
	fullTakeAgain = 30 * time.Second
)

// whileRoom hands messages back while ALERTS is nearly full, which would drop the oldest groups.
func (b *Bus) whileRoom(h handler) handler {
	var mu sync.Mutex
	var asked time.Time
	var full error
	room := func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(asked) > fullCheck {
			used, limit, err := b.alertsSize(ctx)
			if err != nil {
				return err
			}
			asked, full = now, nil
			if limit > 0 && used >= limit/100*fullAlerts {
				full = &reason.Error{Kind: reason.Retry, Code: reason.BusUnavailable, RetryAfter: fullTakeAgain,
					Err: fmt.Errorf("bus: %s holds %d of %d bytes: raise its size limit", b.name(streamAlerts), used, limit)}
			}
		}
		return full
	}
	return func(ctx context.Context, body []byte, d Delivery) error {
		if err := room(ctx); err != nil {
			return err
		}
		return h(ctx, body, d)
	}
}

func (b *Bus) alertsSize(ctx context.Context) (used, limit int64, err error) {
	s, err := b.stream(ctx, b.name(streamAlerts))
	if err != nil {
		return 0, 0, storeError("open "+streamAlerts, err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		return 0, 0, storeError("ask "+streamAlerts, err)
	}
	return int64(info.State.Bytes), info.Config.MaxBytes, nil
}

// Notifications is how many notifications are to be sent, those on their way included.
func (b *Bus) Notifications(ctx context.Context) (int, error) {
	c, err := b.js.Consumer(ctx, b.name(streamAlerts), consumerOut)
	if err != nil {
		return 0, storeError("ask "+streamAlerts, err)
	}
	info := c.CachedInfo()
	return int(info.NumPending) + info.NumAckPending, nil
}
