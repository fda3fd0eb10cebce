// Package oracletest holds our results against those of the unmodified Trivy command (package peer). The
// command is a binary of its own, so that what it registers in Trivy's library does not leak into ours.
package oracletest

import (
	"context"
	"testing"

	"github.com/aquasecurity/trivy/pkg/types"

	"github.com/pratique-sec/pratique/services/scanner/oracletest/peer"
)

// Oracle is the Trivy command.
type Oracle struct{ trivy peer.Trivy }

// Build builds the command, once for each version of it on a machine: minutes when nothing of it was ever
// built, seconds when our own scanner was.
func Build(t testing.TB) Oracle {
	t.Helper()
	trivy, err := peer.Build(t.Context(), func() { t.Log("building Trivy, which may take minutes") })
	if err != nil {
		t.Fatal(err)
	}
	return Oracle{trivy}
}

// Scan runs `trivy image --scanners vuln --list-all-pkgs` on a reference of a registry, over plain HTTP and
// offline. database is a folder in the layout of a Trivy cache, with db/ in it and, unless the Java index is
// to be empty, java-db/.
func (o Oracle) Scan(ctx context.Context, t testing.TB, database, reference string) types.Report {
	t.Helper()
	cache := t.TempDir()
	if err := peer.Cache(cache, database); err != nil {
		t.Fatal("oracle:", err)
	}
	r, err := o.trivy.Image(ctx, cache, reference, "--cache-backend", "memory")
	if err != nil {
		t.Fatal("oracle:", err)
	}
	return r
}
