// Package corpus serves images that lie beside the repository, built once on a machine from real
// distribution packages.
package corpus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pratique-sec/pratique/services/scanner/oracletest/peer"
)

// ErrNone says that there is no corpus beside the repository.
var ErrNone = errors.New("no folder ../shared/corpus")

// Registry is a running registry.
type Registry struct {
	Address string   // "127.0.0.1:5055"
	Names   []string // of its images, "base/debian:12"

	cancel context.CancelFunc
	cmd    *exec.Cmd
}

// Close ends the registry.
func (r *Registry) Close() {
	r.cancel()
	_ = r.cmd.Wait() // killed
}

// Small serves the small corpus. It is built when it was not before, which takes minutes; begin, which may
// be nil, is called before that. ErrNone where there is nothing to build it from.
func Small(ctx context.Context, begin func()) (*Registry, error) {
	source, err := peer.Find("../shared/corpus")
	if err != nil {
		return nil, ErrNone
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("corpus: %w", err)
	}
	dir := filepath.Join(cache, "pratique", "corpus")
	index := filepath.Join(dir, "small.json")
	if _, err := os.Stat(index); errors.Is(err, os.ErrNotExist) {
		if begin != nil {
			begin()
		}
		address, err := peer.FreeAddress(ctx)
		if err != nil {
			return nil, fmt.Errorf("corpus: %w", err)
		}
		cmd := exec.CommandContext(ctx, filepath.Join(source, "make-corpus.sh"), "small", dir, address)
		if msg, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build the corpus: %w\n%s", err, msg)
		}
	}
	names, err := images(index)
	if err != nil {
		return nil, err
	}
	r, err := Serve(ctx, filepath.Join(dir, "mkcorpus"), filepath.Join(dir, "registry"))
	if err != nil {
		return nil, err
	}
	r.Names = names
	return r, nil
}

func images(index string) ([]string, error) {
	b, err := os.ReadFile(index)
	if err != nil {
		return nil, fmt.Errorf("corpus: %w", err)
	}
	var list struct{ Images []struct{ Ref string } }
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("corpus: %s: %w", index, err)
	}
	var names []string
	for _, i := range list.Images {
		name, _, _ := strings.Cut(i.Ref, " ") // what follows says of which platforms an index is
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("corpus: %s lists no images", index)
	}
	return names, nil
}

// ready bounds the start of a registry, on a busy machine.
const ready = 20 * time.Second

// Serve runs a program of the corpus on a folder of its images. It lives until Close.
func Serve(ctx context.Context, program, dir string) (*Registry, error) {
	address, err := peer.FreeAddress(ctx)
	if err != nil {
		return nil, fmt.Errorf("corpus: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &Registry{Address: address, cancel: cancel, cmd: exec.CommandContext(ctx, program, "registry", "-addr", address, "-dir", dir)}
	if err := r.cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("corpus: %w", err)
	}
	deadline, tick := time.After(ready), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		if peer.Answers(ctx, "http://"+address+"/v2/") {
			return r, nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.Close()
			return nil, errors.New("corpus: the registry did not start")
		}
	}
}
