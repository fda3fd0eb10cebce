// Pratique scans container images as they are pushed. This program is its command line, and all of its
// services in one process.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/pratique-sec/pratique/pkg/service"
	"github.com/pratique-sec/pratique/services/pratique/cmd"
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
			fmt.Fprintf(os.Stderr, "pratique: remove temporary files: %v\n", err)
		}
	}()
	ctx, stop := service.SignalContext(context.Background())
	defer stop()
	return cmd.Run(ctx, os.Args[1:], cmd.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Now: time.Now, Version: version, Commit: commit, Program: os.Args[0],
		Getenv: os.Getenv, //nolint:forbidigo // main is where the environment comes in
	})
}
