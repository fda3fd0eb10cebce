// Package cmd is the command line: one file per verb. A verb parses, asks, and prints; the work is done
// by the services behind it.
//
// Results go to stdout, progress and logs to stderr. Exit codes are API: 0 is fine, 1 that a threshold
// was met (scan --fail-on) or something is not allowed (psa audit), 2 a mistake in usage or configuration, 3 that something could not be done,
// or only in part. An error names the flag or field and the way out.
package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/alecthomas/kong"

	"github.com/pratique-sec/pratique/pkg/service"
	"github.com/pratique-sec/pratique/services/pratique/render"
)

// Exit codes.
const (
	ExitOK        = 0
	ExitThreshold = 1
	ExitUsage     = 2
	ExitFailed    = 3
)

// Env is the world that a command runs in.
type Env struct {
	Stdin           io.Reader
	Stdout, Stderr  io.Writer
	Getenv          func(string) string
	Now             func() time.Time
	Version, Commit string
	Program         string // how the user called it; commands to copy begin so
}

func (e Env) program() string { return cmp.Or(e.Program, "pratique") }

func (e Env) out() render.Printer { return render.New(e.Stdout, e.Getenv) }
func (e Env) err() render.Printer { return render.New(e.Stderr, e.Getenv) }

// cli lists the verbs. Those that say "read-only" change nothing anywhere.
type cli struct {
	Log logFlags `embed:""`

	Scan        scanCmd        `cmd:"" help:"Scan images now, through an embedded pipeline or a running server."`
	Up          upCmd          `cmd:"" help:"Run everything in this process, with its state in a folder."`
	Findings    findingsCmd    `cmd:"" help:"Show what is known against images and workloads (read-only)."`
	PSA         psaCmd         `cmd:"" name:"psa" help:"Judge Kubernetes manifests by the Pod Security Standards."`
	Explain     explainCmd     `cmd:"" help:"Tell what became of an image (read-only)."`
	Status      statusCmd      `cmd:"" help:"Show databases, queues and counts (read-only)."`
	Deadletter  deadletterCmd  `cmd:"" help:"Look at what was refused, and drive it again or drop it."`
	DB          dbCmd          `cmd:"" name:"db" help:"Load a vulnerability database."`
	Subscriber  subscriberCmd  `cmd:"" help:"Let somebody subscribe to the findings of a scope."`
	Credentials credentialsCmd `cmd:"" help:"Make credentials for NATS."`
	Demo        demoCmd        `cmd:"" help:"Push small real images to a registry in this process and watch their findings arrive."`
	Version     versionCmd     `cmd:"" help:"Print version and commit (read-only)."`
}

type logFlags struct {
	LogLevel  *slog.Level `help:"Least severe log line to write to stderr: debug, info, warn or error (default: info for up, else error)." placeholder:"LEVEL"`
	LogFormat string      `help:"How log lines are written: text or json." enum:"text,json" default:"text"`
}

// runner is what each verb is given beside its flags.
type runner struct {
	Env
	log *slog.Logger
}

// codeError ends a command with an exit code; without err there is nothing more to say.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

// usagef is a mistake of whoever typed the command. The text begins with the flag or argument.
func usagef(format string, args ...any) error {
	return &codeError{ExitUsage, fmt.Errorf(format, args...)}
}

// exited is how kong leaves after --help.
type exited int

// Run runs one command line (without the program's name) and returns the exit code. It is the only place
// that prints errors.
func Run(ctx context.Context, args []string, env Env) (code int) {
	defer func() {
		if p := recover(); p != nil {
			e, ok := p.(exited)
			if !ok {
				panic(p)
			}
			code = int(e)
		}
	}()
	fail := func(err error) int {
		code := ExitFailed
		if coded, ok := errors.AsType[*codeError](err); ok {
			code, err = coded.code, coded.err
		}
		if err != nil {
			fmt.Fprintf(env.Stderr, "pratique: %v\n", err)
		}
		return code
	}

	var c cli
	parser, err := kong.New(&c,
		kong.Name("pratique"),
		kong.Description("Pratique scans container images as they are pushed: each layer once, each finding told once."),
		kong.Writers(env.Stdout, env.Stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Vars{"state": defaultState},
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return fail(fmt.Errorf("command line: %w", err))
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return fail(usagef("%w%s", err, hint(err)))
	}
	log, err := service.NewLogger(env.Stderr, service.LogConfig{Format: c.Log.LogFormat, Level: c.level(parsed)})
	if err != nil {
		return fail(usagef("--log-format: %w", err))
	}
	if err := parsed.Run(&runner{Env: env, log: log}); err != nil {
		return fail(err)
	}
	return ExitOK
}

// level is what is logged: a server tells what it does, a command only what went wrong.
func (c *cli) level(parsed *kong.Context) slog.Level {
	switch {
	case c.Log.LogLevel != nil:
		return *c.Log.LogLevel
	case parsed.Command() == "up":
		return slog.LevelInfo
	default:
		return slog.LevelError
	}
}

// hint says where to read on after a parse error.
func hint(err error) string {
	command := "pratique"
	if parse, ok := errors.AsType[*kong.ParseError](err); ok && parse.Context != nil {
		if path := parse.Context.Command(); path != "" {
			command = "pratique " + commandWords(parse.Context)
		}
	}
	return "; see " + command + " --help"
}

// commandWords are the words of the verb, without its arguments.
func commandWords(c *kong.Context) string {
	words := ""
	for _, p := range c.Path {
		if p.Command == nil {
			continue
		}
		if words != "" {
			words += " "
		}
		words += p.Command.Name
	}
	return words
}
