package bus

import (
	"context"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Setting reads a setting; ErrNotFound when it was never made.
func (b *Bus) Setting(ctx context.Context, name string) (string, error) {
	value, _, err := b.Bucket(bucketSettings).Get(ctx, settingKey(name))
	return string(value), err
}

// PutSetting makes or changes a setting.
func (b *Bus) PutSetting(ctx context.Context, name, value string) error {
	_, err := b.Bucket(bucketSettings).Put(ctx, settingKey(name), []byte(value))
	return err
}

// WatchSetting calls fn with the setting's present value, if there is one, and then with each that it
// is given, until ctx ends. When it changes faster than fn returns, values in between are skipped.
func (b *Bus) WatchSetting(ctx context.Context, name string, fn func(value string)) error {
	return b.watchSetting(ctx, name, func(value []byte) { fn(string(value)) })
}

func (b *Bus) watchSetting(ctx context.Context, name string, fn func([]byte)) error {
	k := b.Bucket(bucketSettings)
	// From 1: the bucket keeps one message a key, so the first is the present value.
	return b.follow(ctx, k.stream(), k.subject(settingKey(name)), 1, func(m jetstream.Msg, _ uint64) error {
		if !isMarker(m) {
			fn(m.Data())
		}
		return nil
	})
}

// settingKey escapes a name token by token: "analysis.<pool>" is two.
func settingKey(name string) string { return Key(strings.Split(name, ".")...) }
