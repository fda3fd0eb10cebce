// The program pratique-psaauditor judges posted manifests by the Pod Security Standards; see package
// psaauditor. Any number of them share the work.
package main

import (
	"context"

	"github.com/pratique-sec/pratique/pkg/program"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/psaauditor"
)

// Stamped by the linker.
var version, commit = "dev", "unknown"

type configuration struct {
	program.Common
	Psaauditor psaauditor.Config
}

func main() {
	program.Main(program.Identity{
		Name: "pratique-psaauditor", Help: "Judges manifests that are posted to ingest by the Pod Security Standards.",
		Version: version, Commit: commit,
	}, func() program.Configuration { return &configuration{Common: program.Defaults()} })
}

func (c *configuration) Start(_ context.Context, kit program.Kit) (program.Service, error) {
	s, err := psaauditor.New(c.Psaauditor, psaauditor.Deps{
		Bus: kit.Bus, Engine: report.Engine{Version: kit.Version}, Logger: kit.Logger, Registerer: kit.Registerer,
	})
	if err != nil {
		return program.Service{}, err
	}
	return program.Service{Run: s.Run}, nil
}
