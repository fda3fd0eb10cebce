// The program pratique-layercache plans images and owns keys, facts, streams and buckets; see package
// layercache. Any number of them share the work.
package main

import (
	"context"

	"github.com/pratique-sec/pratique/pkg/facts/factstore"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
	"github.com/pratique-sec/pratique/pkg/program"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/services/layercache"
)

// Stamped by the linker.
var version, commit = "dev", "unknown"

type configuration struct {
	program.Common
	Redis      redisfacts.Config // in front of the layer facts; none when empty
	Registries registry.Config   // that may be asked
	Layercache layercache.Config
}

func main() {
	program.Main(program.Identity{
		Name: "pratique-layercache", Help: "Plans images: which layers nobody has seen yet, and when an image can be judged.",
		Version: version, Commit: commit, Provisions: true,
	}, defaults)
}

func defaults() program.Configuration { return &configuration{Common: program.Defaults()} }

func (c *configuration) Start(_ context.Context, kit program.Kit) (program.Service, error) {
	registries, err := registry.New(c.Registries, registry.Options{Registerer: kit.Registerer})
	if err != nil {
		return program.Service{}, err
	}
	store, leave, err := factstore.Open(kit.Bus, c.Redis, kit.Logger, kit.Registerer)
	if err != nil {
		return program.Service{}, err
	}
	s, err := layercache.New(c.Layercache, layercache.Deps{
		Bus: kit.Bus, Registry: registries, Facts: store,
		Logger: kit.Logger, Registerer: kit.Registerer, Tracer: kit.Tracer, Version: kit.Version,
	})
	if err != nil {
		return program.Service{}, err
	}
	return program.Service{Run: s.Run, Close: leave}, nil
}
