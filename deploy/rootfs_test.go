package deploy_test

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rootfs is a folder that stands for the file system of a container: what is mounted at a path there is at
// the same path below the folder.
type rootfs struct {
	dir     string
	targets []string // paths of the container
}

func newRootfs(dir string) *rootfs { return &rootfs{dir: dir} }

// path of this machine for one of the container.
func (r *rootfs) path(target string) string { return filepath.Join(r.dir, target) }

// add mounts at a path; what is there is up to the caller.
func (r *rootfs) add(t *testing.T, target string) string {
	t.Helper()
	r.targets = append(r.targets, target)
	// The longest first: "/etc/nats" is a part of "/etc/nats/server.conf".
	slices.SortFunc(r.targets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	if err := os.MkdirAll(filepath.Dir(r.path(target)), 0o700); err != nil {
		t.Fatal(err)
	}
	return r.path(target)
}

// file mounts one with a content.
func (r *rootfs) file(t *testing.T, target, content string) {
	t.Helper()
	if err := os.WriteFile(r.add(t, target), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// rewrite has the container's paths in a mounted file replaced by this machine's.
func (r *rootfs) rewrite(t *testing.T, target string) {
	t.Helper()
	if err := os.WriteFile(r.path(target), []byte(r.local(read(t, r.path(target)))), 0o600); err != nil {
		t.Fatal(err)
	}
}

// local has the container's paths in a text replaced by this machine's.
func (r *rootfs) local(text string) string {
	var pairs []string
	for _, target := range r.targets {
		pairs = append(pairs, target, r.path(target))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// localAll does so for each of some texts.
func (r *rootfs) localAll(texts []string) []string {
	var all []string
	for _, s := range texts {
		all = append(all, r.local(s))
	}
	return all
}

// container is a path of this machine as the container has it.
func (r *rootfs) container(path string) string { return strings.TrimPrefix(path, r.dir) }

// mount puts everything that a service of the compose file has in its place but what is on volumes. Files
// are copied, with edit made of their texts.
func (r *rootfs) mount(t *testing.T, m map[string]mounted, edit func(string) string) {
	t.Helper()
	for target := range m {
		r.add(t, target)
	}
	for target, from := range m {
		if !from.volume {
			if err := os.WriteFile(r.path(target), []byte(edit(r.local(read(t, from.source)))), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
