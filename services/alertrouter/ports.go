package alertrouter

import (
	"context"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/services/alertrouter/outbox"
)

// Bus is what this service takes from the bus and writes to it; *bus.Bus is one.
type Bus interface {
	outbox.Store
	ConsumeDeltas(ctx context.Context, slots int, h func(context.Context, finding.Delta, bus.Delivery) error) error
	ConsumeNotices(ctx context.Context, slots int, h func(context.Context, system.Notice, bus.Delivery) error) error
	ConsumeDue(ctx context.Context, slots int, h func(ctx context.Context, group string) error) error
	ConsumeNotifications(ctx context.Context, slots int, h func(context.Context, alert.Notification, bus.Delivery) error) error
	Notifications(ctx context.Context) (int, error)
}
