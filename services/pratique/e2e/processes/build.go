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

// Checkout writes a commit's source tree into a folder, and answers the commit's full name.
func Checkout(ctx context.Context, commit, into string) (string, error) {
	root, err := sourceTree()
	if err != nil {
		return "", err
	}
	git := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = root
		return cmd
	}
	hash, err := git("rev-parse", "--verify", "--quiet", commit+"^{commit}").Output()
	if err != nil {
		return "", fmt.Errorf("processes: no commit %q here: %w", commit, err)
	}
	archive, err := git("archive", "--format=tar", strings.TrimSpace(string(hash))).Output()
	if err != nil {
		return "", fmt.Errorf("processes: read commit %s: %w", commit, err)
	}
	untar := exec.CommandContext(ctx, "tar", "-x", "-C", into)
	untar.Stdin = bytes.NewReader(archive)
	if out, err := untar.CombinedOutput(); err != nil {
		return "", fmt.Errorf("processes: write commit %s: %w\n%s", commit, err, out)
	}
	return strings.TrimSpace(string(hash)), nil
}

// Path of a program.
func (p Programs) Path(name string) string { return filepath.Join(string(p), name) }

// Has tells whether there is such a program.
func (p Programs) Has(name string) bool {
	_, err := os.Stat(p.Path(name))
	return err == nil
}
