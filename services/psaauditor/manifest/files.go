package manifest

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Stdin is the path that stands for standard input.
const Stdin = "-"

// extensions of the files of a folder that are read.
var extensions = map[string]bool{".yaml": true, ".yml": true, ".json": true}

// Read calls each with every input that paths name, in order: a file whatever it is called, the *.yaml,
// *.yml and *.json files of a folder and what is in it (but of folders that begin with a dot), and stdin
// for "-". err is why an input could not be read as a whole, and set then empty. It stops at the first
// error of each, or when ctx ends, and returns that.
func Read(ctx context.Context, paths []string, stdin io.Reader, each func(file string, set Set, err error) error) error {
	for _, path := range paths {
		if path == Stdin {
			set, err := parse(stdin)
			if err := each(Stdin, set, err); err != nil {
				return err
			}
			continue
		}
		err := walk(path, func(file string, err error) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				return each(file, Set{}, err)
			}
			set, err := open(file)
			return each(file, set, err)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// walk calls fn with a path that is a file, or with those of a folder that may hold manifests.
func walk(root string, fn func(file string, err error) error) error {
	info, err := os.Stat(root)
	if err != nil || !info.IsDir() {
		return fn(root, plain(err))
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fn(path, plain(err))
		case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case d.IsDir() || !extensions[strings.ToLower(filepath.Ext(path))]:
			return nil
		}
		// A link is followed to a file, as a mounted ConfigMap has them, but not to a folder.
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			if err == nil {
				return nil
			}
			return fn(path, plain(err))
		}
		return fn(path, nil)
	})
}

// plain takes the path off an error: whoever reads it has that already.
func plain(err error) error {
	if e, ok := err.(*fs.PathError); ok { //nolint:errorlint // os returns it as it is
		return e.Err
	}
	return err
}

func open(file string) (Set, error) {
	f, err := os.Open(file)
	if err != nil {
		return Set{}, plain(err)
	}
	defer f.Close()
	return parse(f)
}

func parse(r io.Reader) (Set, error) {
	body, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return Set{}, plain(err)
	}
	if len(body) > MaxSize {
		return Set{}, fmt.Errorf("more than %d bytes; hand it in by parts", MaxSize)
	}
	return Parse(body)
}
