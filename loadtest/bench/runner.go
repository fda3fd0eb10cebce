package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pratique-sec/pratique/loadtest/internal/drive"
	"github.com/pratique-sec/pratique/loadtest/internal/figures"
	"github.com/pratique-sec/pratique/loadtest/internal/real"
	"github.com/pratique-sec/pratique/services/scanner/oracletest/peer"
)

// runner is one run of the benchmarks.
type runner struct {
	options
	dir      string // temporary
	progress io.Writer
	begin    time.Time

	registry *real.Registry
	host     string // of the registry
	set      real.Set
	trivy    peer.Trivy
	built    *drive.Programs // nil: not yet

	result figures.Bench
}

// all prepares what the parts share and runs them, one after the other: each has the machine to itself.
func (r *runner) all(ctx context.Context) error {
	var stop func()
	var err error
	r.registry = real.NewRegistry()
	if r.host, stop, err = r.registry.Serve(ctx, nil); err != nil {
		return err
	}
	defer stop()
	r.say("filling a registry")
	load := real.Load
	if r.own {
		load = func(ctx context.Context, host, dir string, _ func(string)) (real.Set, error) {
			return real.Own(ctx, host, dir)
		}
	}
	if r.set, err = load(ctx, r.host, r.dir, r.say); err != nil {
		return err
	}
	r.result.Images = r.set.Origin
	if r.trivy, err = peer.Build(ctx, func() { r.say("building Trivy, once on this machine: up to 10 minutes") }); err != nil {
		return err
	}
	for _, p := range parts {
		if !slices.Contains(r.only, p.name) {
			continue
		}
		if err := p.run(ctx, r); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// say tells what is going on.
func (r *runner) say(what string) {
	fmt.Fprintf(r.progress, "%5.1fs  %s\n", time.Since(r.begin).Seconds(), what)
}

func (r *runner) row(rows ...figures.Row) { r.result.Rows = append(r.result.Rows, rows...) }

// note says what was left out.
func (r *runner) note(format string, args ...any) {
	r.result.Notes = append(r.result.Notes, fmt.Sprintf(format, args...))
}

// fresh makes an empty folder.
func (r *runner) fresh(name string) (string, error) {
	dir := filepath.Join(r.dir, name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// logger shows what goes wrong in what is measured, and nothing else: a measurement that logs measures
// logging.
func (r *runner) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r.progress, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func perSecond(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
