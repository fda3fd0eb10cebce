package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"syscall"
	"time"
)

// SignalContext ends with SIGINT or SIGTERM. Calling stop gives the signals back, so that a second one
// kills a process that drains for too long.
func SignalContext(parent context.Context) (ctx context.Context, stop context.CancelFunc) {
	return signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
}

// Task is something that runs until its context ends, drains, and returns.
type Task struct {
	Name string
	Run  func(context.Context) error
}

// Run runs tasks side by side. When ctx ends, or one of them returns, all are told to stop, and have
// drain to do so; those that have not by then are named in the error and left behind. A task that ends
// because it was told to has no error; one that ends by itself ends everything.
func Run(ctx context.Context, log *slog.Logger, drain time.Duration, tasks ...Task) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	type ended struct {
		task int
		err  error
	}
	done := make(chan ended, len(tasks))
	for i, t := range tasks {
		go func() { done <- ended{i, t.Run(ctx)} }()
	}
	running := make(map[int]bool, len(tasks))
	for i := range tasks {
		running[i] = true
	}
	var errs []error
	note := func(e ended) {
		delete(running, e.task)
		if told := ctx.Err() != nil && errors.Is(e.err, context.Canceled); e.err != nil && !told {
			errs = append(errs, fmt.Errorf("%s: %w", tasks[e.task].Name, e.err))
		}
	}
	if len(tasks) > 0 {
		select {
		case <-ctx.Done():
		case e := <-done:
			note(e)
		}
	}
	log.InfoContext(ctx, "stopping", slog.Duration("drain", drain))
	stop()
	late := time.NewTimer(drain)
	defer late.Stop()
	for len(running) > 0 {
		select {
		case e := <-done:
			note(e)
		case <-late.C:
			for i, t := range tasks {
				if running[i] {
					errs = append(errs, fmt.Errorf("%s: still running %v after it was told to stop", t.Name, drain))
				}
			}
			return errors.Join(errs...)
		}
	}
	return errors.Join(errs...)
}
