// The program pratique-alertrouter takes findings, and Pratique's own troubles, to whoever must act; see
// package alertrouter. Any number of them share the work.
package main

import (
	"context"

	"github.com/pratique-sec/pratique/pkg/program"
	"github.com/pratique-sec/pratique/services/alertrouter"
)

// Stamped by the linker.
var version, commit = "dev", "unknown"

type configuration struct {
	program.Common
	Alertrouter alertrouter.Config
}

func main() {
	program.Main(program.Identity{
		Name: "pratique-alertrouter", Help: "Takes findings to whoever must act, as an Alertmanager configuration says.",
		Version: version, Commit: commit,
	}, func() program.Configuration { return &configuration{Common: program.Defaults()} })
}

func (c *configuration) Start(_ context.Context, kit program.Kit) (program.Service, error) {
	s, err := alertrouter.New(c.Alertrouter, alertrouter.Deps{
		Bus: kit.Bus, Logger: kit.Logger, Registerer: kit.Registerer, Tracer: kit.Tracer,
	})
	if err != nil {
		return program.Service{}, err
	}
	return program.Service{
		Run:        s.Run,
		Reload:     func(next program.Configuration) error { return s.Reload(next.(*configuration).Alertrouter) },
		Reloadable: []string{"alertrouter.config", "alertrouter.externalURL"},
	}, nil
}
