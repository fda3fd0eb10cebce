package cmd

import "fmt"

type versionCmd struct{}

func (versionCmd) Run(r *runner) error {
	_, err := fmt.Fprintf(r.Stdout, "pratique %s (commit %s)\n", r.Version, r.Commit)
	return err
}
