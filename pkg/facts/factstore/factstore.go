// Package factstore opens the store of layer facts as every process uses it: JetStream, which decides, with
// a Redis in front where there is one.
package factstore

import (
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts"
	"github.com/pratique-sec/pratique/pkg/facts/front"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
)

// Open answers the store and how to leave it. Without a URL in c there is no Redis. A Redis that is away
// is no error: it is asked again. registerer may be nil.
func Open(b *bus.Bus, c redisfacts.Config, log *slog.Logger, registerer prometheus.Registerer) (facts.Store, func() error, error) {
	durable := busfacts.New(b)
	if c.URL == "" {
		return durable, func() error { return nil }, nil
	}
	client, err := redisfacts.Connect(c)
	if err != nil {
		return nil, nil, err
	}
	leave := func() error {
		if err := client.Close(); err != nil {
			return fmt.Errorf("close redis: %w", err)
		}
		return nil
	}
	store := front.New(redisfacts.New(client, redisfacts.Options{Logger: log}), durable, log)
	if registerer != nil {
		if err := registerer.Register(store); err != nil {
			return nil, nil, fmt.Errorf("register metrics of the fact store: %w", err)
		}
	}
	return store, leave, nil
}
