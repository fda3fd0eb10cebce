// The program pratique-scanner reads layers and judges images; see package scanner. Any number of them
// share the work, and Kubernetes may add and remove them at will.
package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/pratique-sec/pratique/pkg/facts/factstore"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
	"github.com/pratique-sec/pratique/pkg/program"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/services/scanner"
	"github.com/pratique-sec/pratique/services/scanner/engine"
	"github.com/pratique-sec/pratique/services/scanner/layer"
)

// Stamped by the linker.
var version, commit = "dev", "unknown"

type configuration struct {
	program.Common
	Redis      redisfacts.Config // in front of the layer facts; none when empty
	Registries registry.Config   // that may be asked
	Scanner    section
}

type section struct {
	scanner.Config
	// Dir is a folder of this process's own, for databases and temporary files. What is there from an
	// earlier life is used again.
	Dir string
}

// Validate names every field that is wrong.
func (s section) Validate() error {
	var dir error
	if s.Dir == "" {
		dir = errors.New("dir: name a folder for databases and temporary files")
	}
	return errors.Join(dir, s.Config.Validate())
}

func main() {
	// Before anything else: a library that is linked here keeps every record that the default logger gets
	// in memory until somebody replaces it.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	program.Main(program.Identity{
		Name: "pratique-scanner", Help: "Reads layers, and judges images by what is in them.",
		Version: version, Commit: commit,
	}, func() program.Configuration {
		return &configuration{Common: program.Defaults(), Scanner: section{Dir: "/var/lib/pratique"}}
	})
}

func (c *configuration) Start(_ context.Context, kit program.Kit) (program.Service, error) {
	registries, err := registry.New(c.Registries, registry.Options{Registerer: kit.Registerer})
	if err != nil {
		return program.Service{}, err
	}
	temporary := filepath.Join(c.Scanner.Dir, "work")
	for _, dir := range []string{c.Scanner.Dir, temporary} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return program.Service{}, err
		}
	}
	eng, err := engine.New(engine.Config{Dir: filepath.Join(c.Scanner.Dir, "db"), TempDir: temporary, Version: kit.Version, Logger: kit.Logger})
	if err != nil {
		return program.Service{}, err
	}
	store, leave, err := factstore.Open(kit.Bus, c.Redis, kit.Logger, kit.Registerer)
	if err != nil {
		return program.Service{}, errors.Join(err, eng.Close())
	}
	end := func() error { return errors.Join(leave(), eng.Close(), layer.CleanUp()) }
	s, err := scanner.New(c.Scanner.Config, scanner.Deps{
		Bus: kit.Bus, Registry: registries, Facts: store, Analyzer: eng, Matcher: eng, Databases: eng,
		Engine: eng.Versions(), Logger: kit.Logger, Registerer: kit.Registerer,
	})
	if err != nil {
		return program.Service{}, errors.Join(err, end())
	}
	return program.Service{Run: s.Run, Close: end}, nil
}
