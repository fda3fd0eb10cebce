// Package peer is the unmodified Trivy command, which our results are held against and our speed is
// compared with: it builds the command from the module services/scanner/oracle, which pins it in the
// scanner's version, and runs it as its users do.
package peer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

// Trivy is the command.
type Trivy struct {
	Path string // of the binary
}

var building sync.Mutex // two builds at once would only be slower

// Build builds the command, once for each version of it on a machine: minutes when nothing of it was ever
// built, seconds when our own scanner was. Before a build it calls begin, which may be nil.
func Build(ctx context.Context, begin func()) (Trivy, error) {
	building.Lock()
	defer building.Unlock()
	module, err := Find("services/scanner/oracle")
	if err != nil {
		return Trivy{}, err
	}
	name, err := nameOf(module)
	if err != nil {
		return Trivy{}, fmt.Errorf("build trivy: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return Trivy{}, fmt.Errorf("build trivy: %w", err)
	}
	dir := filepath.Join(cache, "pratique", "oracle")
	binary := filepath.Join(dir, name)
	if _, err := os.Stat(binary); err == nil {
		return Trivy{binary}, nil
	}
	if begin != nil {
		begin()
	}
	if err := build(ctx, module, dir, binary); err != nil {
		return Trivy{}, fmt.Errorf("build trivy: %w", err)
	}
	return Trivy{binary}, nil
}

// nameOf names the binary by all that it is made of.
func nameOf(module string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum"} {
		f, err := os.Open(filepath.Join(module, name))
		if err != nil {
			return "", err
		}
		_, err = io.Copy(sum, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("trivy-%x", sum.Sum(nil)[:8]), nil
}

// build fills a folder of its own first: a binary that is there is whole.
func build(ctx context.Context, module, dir, binary string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "trivy")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "github.com/aquasecurity/trivy/cmd/trivy")
	cmd.Dir = module
	// The flags of every build of ours, or nothing that was compiled is used again.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOEXPERIMENT=jsonv2", "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, msg)
	}
	return os.Rename(out, binary)
}
