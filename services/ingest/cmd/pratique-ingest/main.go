// The program pratique-ingest takes in what happens in registries and what people ask for; see package
// ingest. Any number of them stand behind one address.
package main

import (
	"context"

	"github.com/pratique-sec/pratique/pkg/program"
	"github.com/pratique-sec/pratique/services/ingest"
)

// Stamped by the linker.
var version, commit = "dev", "unknown"

type configuration struct {
	program.Common
	Ingest ingest.Config
}

func main() {
	program.Main(program.Identity{
		Name: "pratique-ingest", Help: "Takes in what happens in registries and what people ask for, and stores it.",
		Version: version, Commit: commit,
	}, defaults)
}

func defaults() program.Configuration {
	return &configuration{Common: program.Defaults(), Ingest: ingest.Config{Listen: ":8420"}}
}

func (c *configuration) Start(_ context.Context, kit program.Kit) (program.Service, error) {
	s, err := ingest.New(c.Ingest, //nolint:contextcheck // listening ends at once: nothing to cancel
		ingest.Deps{Bus: kit.Bus, Logger: kit.Logger, Registerer: kit.Registerer, Tracer: kit.Tracer})
	if err != nil {
		return program.Service{}, err
	}
	return program.Service{
		Run:        s.Run,
		Reload:     func(next program.Configuration) error { return s.Reload(next.(*configuration).Ingest) },
		Reloadable: []string{"ingest.tokens", "ingest.tokenFiles"},
	}, nil
}
