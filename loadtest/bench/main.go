// Bench measures Pratique against the Trivy command of the same version, in the same run: machines differ,
// ratios less so. It prints one table; docs/performance.md says what each row means and how to repeat it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/pratique-sec/pratique/loadtest/internal/figures"
	"github.com/pratique-sec/pratique/loadtest/internal/machine"
	"github.com/pratique-sec/pratique/pkg/service"
	"github.com/pratique-sec/pratique/services/scanner/layer"
)

// Stamped by the linker.
var version, commit = "dev", "unknown"

func main() {
	// Before anything else: a library that is linked here keeps every record that the default logger gets
	// in memory until somebody replaces it.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(run())
}

func run() int {
	defer func() {
		if err := layer.CleanUp(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: remove temporary files: %v\n", err)
		}
	}()
	ctx, stop := service.SignalContext(context.Background())
	defer stop()
	err := bench(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}

// options are the command line.
type options struct {
	only    []string
	json    string
	html    string
	own     bool
	profile string
}

// parts of the benchmark, in the order of their rows.
var parts = []struct {
	name string
	run  func(context.Context, *runner) error
}{
	{"cold", cold},
	{"known", known},
	{"events", events},
	{"memory", memory},
	{"scale", scale},
}

func parse(args []string, stderr io.Writer) (options, error) {
	var (
		o    options
		only string
	)
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = p.name
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&only, "only", strings.Join(names, ","), "parts to run, separated by commas")
	flags.StringVar(&o.json, "json", "", "file for the results as JSON")
	flags.StringVar(&o.html, "html", "", "file for the results as a page with charts")
	flags.BoolVar(&o.own, "own-images", false, "scan the repository's own small images although a corpus is there")
	flags.StringVar(&o.profile, "cpuprofile", "", "file for a CPU profile of this process, which is Pratique's too")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	o.only = strings.Split(only, ",")
	for _, n := range o.only {
		if !slices.Contains(names, n) {
			return o, fmt.Errorf("-only: %q is no part; there are %s", n, strings.Join(names, ", "))
		}
	}
	return o, nil
}

func bench(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "pratique-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return fmt.Errorf("-cpuprofile: %w", err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("-cpuprofile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	r := &runner{options: o, dir: dir, progress: stderr, begin: time.Now()}
	r.result = figures.Bench{At: time.Now(), Machine: machine.Shape(), Version: version + " (" + commit[:min(len(commit), 12)] + ")"}
	if err := r.all(ctx); err != nil {
		return err
	}
	if err := r.result.WriteTable(stdout); err != nil {
		return err
	}
	for path, write := range map[string]func(io.Writer) error{o.json: r.result.WriteJSON, o.html: r.result.WriteHTML} {
		if path == "" {
			continue
		}
		if err := writeFile(path, write); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
