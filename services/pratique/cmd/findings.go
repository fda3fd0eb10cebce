package cmd

import (
	"context"
	"strings"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/pratique/render"
)

type findingsCmd struct {
	Watch findingsWatchCmd `cmd:"" help:"Print each transition as it happens, until interrupted (read-only)."`
	List  findingsListCmd  `cmd:"" help:"Print what is open now (read-only)."`
}

type findingsWatchCmd struct {
	busFlags
	scopeArg
	All    bool   `help:"Begin with the oldest transition that is kept (30 days) instead of the next one."`
	Output output `short:"o" help:"table (a line each) or json (an object a line)." enum:"table,json" default:"table"`
}

func (c *findingsWatchCmd) Run(ctx context.Context, r *runner) error {
	b, leave, err := c.open(r)
	if err != nil {
		return err
	}
	defer leave()
	from := uint64(0)
	if c.All {
		from = 1
	}
	out := r.out()
	return b.WatchDeltas(ctx, from, func(_ uint64, d finding.Delta) error {
		if !c.covers(d.Asset) {
			return nil
		}
		if c.Output == asJSON {
			return r.printLine(wire.DeltaJSON(d))
		}
		return out.Delta(d)
	})
}

type findingsListCmd struct {
	busFlags
	scopeArg
	Output output `short:"o" help:"table or json (an asset's state a line)." enum:"table,json" default:"table"`
}

func (c *findingsListCmd) Run(ctx context.Context, r *runner) error {
	b, leave, err := c.open(r)
	if err != nil {
		return err
	}
	defer leave()
	out, assets := r.out(), 0
	err = b.States(ctx, func(s finding.State) error {
		if !c.covers(s.Asset) {
			return nil
		}
		assets++
		if c.Output == asJSON {
			return r.printLine(wire.StateJSON(s))
		}
		return out.Findings(s)
	})
	if err == nil && assets == 0 {
		err = r.err().Linef("no asset known%s", c.suffix())
	}
	return err
}

// scopeArg narrows a command to assets whose name begins with the argument.
type scopeArg struct {
	Scope string `arg:"" optional:"" help:"Only of these: a registry, a repository, a cluster or a namespace in it, or the beginning of one, as in registry.example/team-a/ or prod/team-a/."`
}

func (s scopeArg) covers(a finding.Asset) bool { return strings.HasPrefix(render.Asset(a), s.Scope) }

func (s scopeArg) suffix() string {
	if s.Scope == "" {
		return ""
	}
	return " under " + s.Scope
}
