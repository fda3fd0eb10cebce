package processes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Programs is a folder of them: one per service, and nats-server.
type Programs string

// natsServer is the package that the nats-server of the module's version is built from.
const natsServer = "github.com/nats-io/nats-server/v2"

// ErrNoPrograms: a source tree has no programs of its services.
var ErrNoPrograms = errors.New("no services/*/cmd/pratique-* there")

// flags are the Makefile's: Trivy takes minutes to compile, and is compiled again for every other set.
var flags = []string{"GOEXPERIMENT=jsonv2", "CGO_ENABLED=0"}

// Present builds the programs of the source tree that the test is in, once for all tests of a binary, into
// its .cache: what did not change is not linked again.
var Present = sync.OnceValues(func() (Programs, error) {
	root, err := sourceTree()
	if err != nil {
		return "", err
	}
	into := Programs(filepath.Join(root, ".cache", "programs"))
	return into, Build(context.Background(), root, into)
})

// sourceTree is the folder of go.work.
func sourceTree() (string, error) {
	out, err := exec.Command("go", "env", "GOWORK").Output() //nolint:noctx // answers at once
	file := strings.TrimSpace(string(out))
	if err != nil || filepath.Base(file) != "go.work" {
		return "", fmt.Errorf("processes: run within the workspace: go env GOWORK answers %q: %w", file, err)
	}
	return filepath.Dir(file), nil
}

// Build compiles every program of a source tree into a folder.
func Build(ctx context.Context, root string, into Programs) error {
	mains, err := filepath.Glob(filepath.Join(root, "services/*/cmd/pratique-*"))
	if err != nil {
		return err
	}
	if len(mains) == 0 {
		return fmt.Errorf("%s: %w", root, ErrNoPrograms)
	}
	args := []string{"build", "-o", string(into) + "/", natsServer}
	for _, m := range mains {
		rel, err := filepath.Rel(root, m)
		if err != nil {
			return err
		}
		args = append(args, "./"+rel)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), append(flags, "GOWORK="+filepath.Join(root, "go.work"))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("processes: build %s: %w\n%s", root, err, out)
	}
	return nil
}

// Before builds the programs of an earlier commit ("HEAD~1", a tag) into .cache, where they stay for the
// next time. It answers the commit's full name.
func Before(ctx context.Context, commit string) (Programs, string, error) {
	root, err := sourceTree()
	if err != nil {
		return "", "", err
	}
	git := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = root
		return cmd
	}
	out, err := git("rev-parse", "--verify", "--quiet", commit+"^{commit}").Output()
	if err != nil {
		return "", "", fmt.Errorf("processes: no commit %q here: %w", commit, err)
	}
	hash := strings.TrimSpace(string(out))
	tree := filepath.Join(root, ".cache", "before", hash)
	into := Programs(filepath.Join(tree, "bin"))
	if _, err := os.Stat(tree); errors.Is(err, os.ErrNotExist) {
		if err := extract(ctx, git("archive", "--format=tar", hash), tree); err != nil {
			return "", "", fmt.Errorf("processes: write commit %s: %w", hash, err)
		}
	}
	return into, hash, Build(ctx, tree, into)
}

// extract unpacks a command's output into a folder, which is there whole or not at all.
func extract(ctx context.Context, archive *exec.Cmd, into string) error {
	partial := into + ".partial"
	if err := errors.Join(os.RemoveAll(partial), os.MkdirAll(partial, 0o755)); err != nil {
		return err
	}
	tar, err := archive.Output()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "tar", "-x", "-C", partial)
	cmd.Stdin = bytes.NewReader(tar)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return os.Rename(partial, into)
}

// Path of a program.
func (p Programs) Path(name string) string { return filepath.Join(string(p), name) }

// Has tells whether there is such a program.
func (p Programs) Has(name string) bool {
	_, err := os.Stat(p.Path(name))
	return err == nil
}
