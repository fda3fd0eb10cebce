package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/pratique-sec/pratique/loadtest/internal/drive"
	"github.com/pratique-sec/pratique/loadtest/internal/figures"
)

// memory scans each image once with one process of each service, and asks the kernel for the most memory
// that each of them held.
func memory(ctx context.Context, r *runner) error {
	programs, err := r.programs(ctx)
	if err != nil {
		return err
	}
	r.say("memory: one process of each service")
	dir, err := r.fresh("memory")
	if err != nil {
		return err
	}
	c := &drive.Cluster{
		Embedded: drive.Embedded{Dir: dir, Hosts: []string{r.host}, Database: r.set.Database, Logger: r.logger()},
		Programs: programs, Scanners: 1,
	}
	return c.Run(ctx, func(ctx context.Context, s *drive.System) error {
		p, err := r.push(ctx, s, r.set.Images)
		if err != nil {
			return err
		}
		if _, err := p.wait(ctx, s); err != nil {
			return err
		}
		peaks, err := c.Peak()
		if err != nil {
			return err
		}
		for n, name := range slices.Sorted(maps.Keys(peaks)) {
			row := figures.Row{
				ID: fmt.Sprintf("4%c", 'a'+n), Name: "peak memory of " + name,
				Ours: figures.Value{Number: float64(peaks[name]) / (1 << 20), Unit: "MiB"},
			}.Free()
			if n == 0 {
				row.Note = fmt.Sprintf("VmHWM after %d images, each once; one process of each service", len(r.set.Images))
			}
			r.row(row)
		}
		return nil
	})
}

// programs builds the services once for a run.
func (r *runner) programs(ctx context.Context) (drive.Programs, error) {
	if r.built != nil {
		return *r.built, nil
	}
	dir, err := r.fresh("programs")
	if err != nil {
		return "", err
	}
	r.say("building the services' programs")
	p, err := drive.Build(ctx, dir)
	r.built = &p
	return p, err
}
