// The program pratique-loadtest pushes images at a rate, to a Pratique that it starts in this process or to
// one that runs already, and holds it to its word: every push judged or overtaken by a later one of its
// tag, nothing told twice. It prints how long each took, by lane.
//
// Exit codes: 0 is fine, 1 that something was lost, failed or told twice, or that the run failed, 2 a
// mistake in the flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/loadtest/internal/drive"
	"github.com/pratique-sec/pratique/loadtest/internal/figures"
	"github.com/pratique-sec/pratique/loadtest/internal/load"
	"github.com/pratique-sec/pratique/loadtest/internal/machine"
	"github.com/pratique-sec/pratique/loadtest/internal/real"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/service"
	"github.com/pratique-sec/pratique/services/scanner/layer"
)

// Stamped by the linker.
var version, commit = "dev", "unknown"

func main() {
	// Before anything else: a library that is linked here keeps every record that the default logger gets
	// in memory until somebody replaces it.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	ctx, stop := service.SignalContext(context.Background())
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err := layer.CleanUp(); err != nil {
		fmt.Fprintf(os.Stderr, "pratique-loadtest: remove temporary files: %v\n", err)
	}
	os.Exit(code)
}

// Exit codes.
const (
	exitSound   = 0
	exitUnsound = 1
	exitUsage   = 2
)

// errUnsound: the figures are printed, and they say what was wrong.
var errUnsound = errors.New("lost, failed or told twice: see above")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitSound
	}
	if err != nil {
		fmt.Fprintf(stderr, "pratique-loadtest: %v\n", err)
		return exitUsage
	}
	if err := c.run(ctx, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "pratique-loadtest: %v\n", err)
		return exitUnsound
	}
	return exitSound
}

// command is what the flags say.
type command struct {
	load.Options
	patience time.Duration
	own      bool

	server, tokenFile string
	nats, creds       string
	root              string
	registry          string
	silent            bool

	output, html string
}

func parse(args []string, stderr io.Writer) (command, error) {
	c := command{Options: load.Defaults()}
	f := flag.NewFlagSet("pratique-loadtest", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Uint64Var(&c.Seed, "seed", c.Seed, "the same seed and options push the same images at the same times")
	f.DurationVar(&c.Duration, "duration", c.Duration, "from the first push to the last")
	f.Float64Var(&c.Rate, "rate", c.Rate, "pushes and requests a second, on average")
	f.IntVar(&c.Burst, "burst", c.Burst, "pushes in a burst")
	f.Float64Var(&c.BurstOf, "burst-of", c.BurstOf, "fraction of the pushes that come in bursts")
	f.IntVar(&c.Tags, "tags", c.Tags, "tags that move")
	f.IntVar(&c.Layers, "layers", c.Layers, "distinct layers")
	f.IntVar(&c.ImageLayers, "image-layers", c.ImageLayers, "layers of an image, at most")
	f.Float64Var(&c.Zipf, "zipf", c.Zipf, "exponent of the layers' popularity")
	f.Float64Var(&c.Interactive, "interactive", c.Interactive, "fraction that asks for a scan (POST /v1/scans) instead of pushing")
	f.Float64Var(&c.Backfill, "backfill", c.Backfill, "fraction that is told as a crawl's, by an event published on NATS")
	f.DurationVar(&c.patience, "patience", 2*time.Minute, "how long after the last push everything must be judged")
	f.BoolVar(&c.own, "own-images", false, "make layers of the repository's own small images although a corpus is there")
	f.StringVar(&c.server, "server", "", "URL of a running Pratique's API; empty: one is started in this process")
	f.StringVar(&c.tokenFile, "token-file", "", "file with the token for -server")
	f.StringVar(&c.nats, "nats", "", "URL of the NATS of -server")
	f.StringVar(&c.creds, "creds", "", "credentials file for -nats: they must be allowed to follow SCANS and FINDINGS (and, with -backfill, to publish events)")
	f.StringVar(&c.root, "root", "pratique", "first token of the subjects of -nats")
	f.StringVar(&c.registry, "registry", "", "registry of -server to push to, HOST[:PORT]; credentials are the Docker configuration's")
	f.BoolVar(&c.silent, "registry-notifies", false, "the registry tells -server of pushes itself")
	f.StringVar(&c.output, "o", "table", "table or json")
	f.StringVar(&c.html, "html", "", "file for a page with charts")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	return c, errors.Join(c.check(f), c.Validate())
}

func (c command) check(f *flag.FlagSet) error {
	var errs []error
	if f.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q", f.Arg(0)))
	}
	if c.output != "table" && c.output != "json" {
		errs = append(errs, fmt.Errorf("-o %q: want table or json", c.output))
	}
	remote := map[string]string{"-server": c.server, "-nats": c.nats, "-registry": c.registry}
	for _, name := range []string{"-server", "-nats", "-registry"} {
		if c.remote() && remote[name] == "" {
			errs = append(errs, fmt.Errorf("%s: missing; -server, -nats and -registry go together", name))
		}
	}
	if c.server == "" && (c.tokenFile != "" || c.creds != "" || c.silent) {
		errs = append(errs, errors.New("-token-file, -creds, -registry-notifies: go with -server"))
	}
	return errors.Join(errs...)
}

// remote tells whether a running Pratique is named.
func (c command) remote() bool { return c.server != "" || c.nats != "" || c.registry != "" }

func (c command) run(ctx context.Context, stdout, stderr io.Writer) error {
	dir, err := os.MkdirTemp("", "pratique-loadtest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	say := func(what string) { fmt.Fprintln(stderr, what) }
	// What layers are made of, and, when everything runs here, the registry that they are pushed to.
	host, stop, err := real.NewRegistry().Serve(ctx, nil)
	if err != nil {
		return err
	}
	defer stop()
	fill := real.Load
	if c.own {
		fill = func(ctx context.Context, host, dir string, _ func(string)) (real.Set, error) {
			return real.Own(ctx, host, dir)
		}
	}
	set, err := fill(ctx, host, dir, say)
	if err != nil {
		return err
	}
	pool, err := real.NewPool(set, 0, 0)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	steps := load.Plan(c.Options)
	var result *load.Result
	drivenBy := func(host string) func(context.Context, *drive.System) error {
		return func(ctx context.Context, s *drive.System) (err error) {
			say(fmt.Sprintf("%d steps in %s", len(steps), c.Duration))
			result, err = load.Run(ctx, load.Target{System: s, Host: host, Pool: pool, Silent: c.silent}, steps, c.patience)
			return err
		}
	}
	if c.remote() {
		err = c.attach(ctx, log, drivenBy(c.registry))
	} else {
		err = drive.Embedded{Dir: dir, Hosts: []string{host}, Database: set.Database, Logger: log}.Run(ctx, drivenBy(host))
	}
	if err != nil {
		return err
	}
	return c.print(stdout, c.figures(result, set))
}

// attach drives the Pratique that the flags name.
func (c command) attach(ctx context.Context, log *slog.Logger, body func(context.Context, *drive.System) error) error {
	token := ""
	if c.tokenFile != "" {
		b, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return fmt.Errorf("-token-file: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	options := []nats.Option{nats.Name("pratique-loadtest"), nats.MaxReconnects(-1)}
	if c.creds != "" {
		options = append(options, nats.UserCredentials(c.creds))
	}
	nc, err := nats.Connect(c.nats, options...)
	if err != nil {
		return fmt.Errorf("-nats %s: %w; is the server there, and do -creds let you in?", c.nats, err)
	}
	defer nc.Close()
	b, err := bus.New(nc, bus.Config{Root: c.root}, bus.Options{Logger: log})
	if err != nil {
		return err
	}
	return drive.Attach(ctx, b, drive.NewDoor(strings.TrimSuffix(c.server, "/"), token), body)
}

func (c command) figures(r *load.Result, set real.Set) figures.Load {
	f := r.Figures()
	f.At, f.Machine, f.Version, f.Images = time.Now(), machine.Shape(), version+" ("+commit[:min(len(commit), 12)]+")", "of "+set.Origin
	f.Target = "in one process with its load"
	if c.remote() {
		f.Target = "at " + c.server
	}
	f.Options = fmt.Sprintf("seed %d: %s at %g/s, bursts of %d for %g, %d tags, %d layers (zipf %g), up to %d an image, interactive %g, backfill %g",
		c.Seed, c.Duration, c.Rate, c.Burst, c.BurstOf, c.Tags, c.Layers, c.Zipf, c.ImageLayers, c.Interactive, c.Backfill)
	return f
}

func (c command) print(stdout io.Writer, f figures.Load) error {
	write := f.WriteTable
	if c.output == "json" {
		write = f.WriteJSON
	}
	if err := write(stdout); err != nil {
		return err
	}
	if c.html != "" {
		file, err := os.Create(c.html)
		if err != nil {
			return fmt.Errorf("-html: %w", err)
		}
		if err := errors.Join(f.WriteHTML(file), file.Close()); err != nil {
			return fmt.Errorf("-html: %w", err)
		}
	}
	if !f.Sound {
		return errUnsound
	}
	return nil
}
