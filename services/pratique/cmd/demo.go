package cmd

import (
	"context"
	"errors"
	"os"

	"github.com/pratique-sec/pratique/services/pratique/demo"
)

type demoCmd struct {
	Keep bool `help:"Leave it running when all is shown, to look around with the other commands."`
}

func (c *demoCmd) Run(ctx context.Context, r *runner) (err error) {
	dir, err := os.MkdirTemp("", "pratique-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return demo.Run(ctx, demo.Config{
		State: dir, Keep: c.Keep, Out: r.out(), Progress: r.err(),
		Logger: r.log, Now: r.Now, Version: r.Version, Program: r.program(),
	})
}
