package cmd

import (
	"context"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/pratique/render"
)

type deadletterCmd struct {
	List    letterListCmd    `cmd:"" help:"List what was refused (read-only)."`
	Show    letterShowCmd    `cmd:"" help:"Print one dead letter (read-only)."`
	Redrive letterRedriveCmd `cmd:"" help:"Publish the original message again, forgetting the verdicts that would refuse it at once."`
	Drop    letterDropCmd    `cmd:"" help:"Remove dead letters for good."`
}

type letterListCmd struct {
	busFlags
	Output output `short:"o" help:"table or json (an object a line)." enum:"table,json" default:"table"`
}

func (c *letterListCmd) Run(ctx context.Context, r *runner) error {
	b, leave, err := c.open(r)
	if err != nil {
		return err
	}
	defer leave()
	var letters []render.Letter
	err = b.DeadLetters(ctx, func(seq uint64, l system.DeadLetter) error {
		if c.Output == asJSON {
			return r.printLine(letterJSON(seq, l))
		}
		l.Data = nil // a list needs no bodies
		letters = append(letters, render.Letter{Sequence: seq, DeadLetter: l})
		return nil
	})
	if err != nil || c.Output == asJSON {
		return err
	}
	if len(letters) == 0 {
		return r.err().Linef("no dead letters")
	}
	return r.out().Letters(letters, r.Now())
}

type letterShowCmd struct {
	busFlags
	Number uint64 `arg:"" help:"The letter's number, from the list."`
	Output output `short:"o" help:"table or json." enum:"table,json" default:"table"`
}

func (c *letterShowCmd) Run(ctx context.Context, r *runner) error {
	b, leave, err := c.open(r)
	if err != nil {
		return err
	}
	defer leave()
	l, err := b.DeadLetter(ctx, c.Number)
	if err != nil {
		return letterError(c.Number, err)
	}
	if c.Output == asJSON {
		return r.printLine(letterJSON(c.Number, l))
	}
	return r.out().Letter(render.Letter{Sequence: c.Number, DeadLetter: l})
}

type letterRedriveCmd struct {
	busFlags
	Numbers []uint64 `arg:"" help:"The letters' numbers, from the list."`
}

func (c *letterRedriveCmd) Run(ctx context.Context, r *runner) error {
	return c.each(r, c.Numbers, "driven again", func(b *bus.Bus, number uint64) error {
		return b.Redrive(ctx, number, busfacts.New(b).ForgetVerdicts)
	})
}

type letterDropCmd struct {
	busFlags
	Numbers []uint64 `arg:"" help:"The letters' numbers, from the list."`
}

func (c *letterDropCmd) Run(ctx context.Context, r *runner) error {
	return c.each(r, c.Numbers, "dropped", func(b *bus.Bus, number uint64) error {
		return b.DropDeadLetter(ctx, number)
	})
}

// each does one thing to several letters; one that fails does not keep the others from it.
func (f busFlags) each(r *runner, numbers []uint64, done string, do func(*bus.Bus, uint64) error) error {
	b, leave, err := f.open(r)
	if err != nil {
		return err
	}
	defer leave()
	var errs []error
	for _, n := range numbers {
		if err := do(b, n); err != nil {
			errs = append(errs, letterError(n, err))
			continue
		}
		if err := r.err().Linef("dead letter %d: %s", n, done); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// letterJSON adds the number, which is the stream's and not the letter's.
func letterJSON(number uint64, l system.DeadLetter) ([]byte, error) {
	b, err := wire.DeadLetterJSON(l)
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Number uint64         `json:"number"`
		Letter jsontext.Value `json:"letter"`
	}{number, b})
}

func letterError(number uint64, err error) error {
	switch {
	case errors.Is(err, bus.ErrNotFound):
		return fmt.Errorf("dead letter %d: there is none; 'pratique deadletter list' has the numbers", number)
	case errors.Is(err, bus.ErrBusy):
		return fmt.Errorf("dead letter %d: the same work is queued or running already; see what becomes of it first", number)
	default:
		return fmt.Errorf("dead letter %d: %w", number, err)
	}
}
