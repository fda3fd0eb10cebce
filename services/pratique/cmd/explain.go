package cmd

import (
	"context"
	"errors"
	"fmt"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/wire"
)

type explainCmd struct {
	Image explainImageCmd `cmd:"" help:"Stage, what it waits for, attempts, last error and trace of an image (read-only)."`
}

type explainImageCmd struct {
	busFlags
	Ref    string `arg:"" help:"A reference, as in registry.example/team-a/api:1.2, or the id of a scan request."`
	Output output `short:"o" help:"table or json." enum:"table,json" default:"table"`
}

func (c *explainImageCmd) Run(ctx context.Context, r *runner) error {
	key, err := fateKey(c.Ref)
	if err != nil {
		return err
	}
	b, leave, err := c.open(r)
	if err != nil {
		return err
	}
	defer leave()
	f, err := b.Fate(ctx, key)
	if errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("%s: nothing is known about it for the last 7 days; has its registry told of a push? 'pratique scan' asks for it", c.Ref)
	}
	if err != nil {
		return err
	}
	if c.Output == asJSON {
		return r.printLine(wire.FateJSON(f))
	}
	if err := r.out().Fate(f, r.Now()); err != nil {
		return err
	}
	return b.Breakers(ctx, func(s breaker.State) error {
		if s.Host != f.Reference.Host || !s.Paused() {
			return nil
		}
		return r.out().Paused(paused(s), r.Now())
	})
}

// fateKey takes a request id or a reference: an id is no reference that anybody would write.
func fateKey(s string) (string, error) {
	if _, _, err := fate.ParseRequestID(s); err == nil {
		return fate.RequestKey(s), nil
	}
	ref, err := image.ParseReference(s)
	if err != nil {
		return "", usagef("REF: %w", err)
	}
	return fate.ReferenceKey(ref), nil
}
