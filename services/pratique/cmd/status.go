package cmd

import (
	"context"
	"encoding/json/v2"
	"errors"
	"fmt"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/services/pratique/render"
)

type statusCmd struct {
	busFlags
	Output output `short:"o" help:"table or json." enum:"table,json" default:"table"`
}

func (c *statusCmd) Run(ctx context.Context, r *runner) error {
	b, leave, err := c.open(r)
	if err != nil {
		return err
	}
	defer leave()
	s, err := readStatus(ctx, b)
	if err != nil {
		return err
	}
	if c.Output == asJSON {
		return r.printLine(json.Marshal(s))
	}
	return r.out().Status(s, r.Now())
}

func readStatus(ctx context.Context, b *bus.Bus) (render.Status, error) {
	s := render.Status{Queues: []render.Queue{}}
	for _, kind := range []vulndb.Kind{vulndb.Vulnerabilities, vulndb.Java} {
		d := render.Database{Kind: string(kind)}
		p, err := b.Pointer(ctx, kind)
		switch {
		case err == nil:
			d.Loaded, d.Digest, d.UpdatedAt = true, image.Digest(p.Digest), p.UpdatedAt
		case !errors.Is(err, bus.ErrNotFound):
			return s, fmt.Errorf("read pointer of %s: %w", kind, err)
		}
		s.Databases = append(s.Databases, d)
	}
	queues, err := b.Backlog(ctx)
	if err != nil {
		return s, err
	}
	s.Queues = append(s.Queues, busy(queues)...)
	if err := b.States(ctx, func(st finding.State) error {
		s.Assets++
		s.Open += len(st.Open)
		return nil
	}); err != nil {
		return s, err
	}
	err = b.DeadLetters(ctx, func(uint64, system.DeadLetter) error {
		s.Letters++
		return nil
	})
	return s, err
}

// busy adds up queues over pools and cost classes, and leaves out what is empty.
func busy(queues []bus.Queue) []render.Queue {
	var sums []render.Queue
	for _, q := range queues {
		if q.Pending == 0 && q.InFlight == 0 {
			continue
		}
		found := false
		for i := range sums {
			if sums[i].Name == q.Kind && sums[i].Lane == q.Lane {
				sums[i].Pending += q.Pending
				sums[i].InFlight += q.InFlight
				found = true
			}
		}
		if !found {
			sums = append(sums, render.Queue{Name: q.Kind, Lane: q.Lane, Pending: q.Pending, InFlight: q.InFlight})
		}
	}
	return sums
}
