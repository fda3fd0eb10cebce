// Package config reads a process's configuration: one YAML file, overlaid by the environment, into plain
// structs. It is strict: an unknown key or variable, a wrong type and every complaint of the structs' own
// Validate are reported together, each with its path. It knows no service and reads no secret: those stand
// in files that the configuration names, so what Dump prints can be shown to anybody.
//
// Names follow from the structs, which need no tags: the field GiveUp is the key giveUp, and in the section
// layercache the variable PRATIQUE_LAYERCACHE_GIVE_UP. An embedded struct's fields belong to the outer one.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Validator is a configuration, or a section of one, that knows what is wrong with it. It returns a join
// of errors, each of which begins with the path of a field within it: "tokens[2].file: …".
type Validator interface{ Validate() error }

// Problem is one thing that is wrong, and where. Path is as in "ingest.tokens[2].file", the name of an
// environment variable, or "" for the whole.
type Problem struct{ Path, Text string }

func (p Problem) String() string {
	if p.Path == "" {
		return p.Text
	}
	return p.Path + ": " + p.Text
}

// Problems is everything that is wrong.
type Problems []Problem //nolint:errname // a list of what the package calls problems

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Load fills into, a pointer to a struct that holds the defaults, from the file at path ("" for none) and
// then from environ ("NAME=value"), and validates each section. What is wrong is a Problems.
func Load(path string, environ []string, into any) error {
	var root *yaml.Node
	if path != "" {
		f, err := os.Open(path)
		if err != nil {
			return Problems{{Text: fmt.Sprintf("configuration file: %v", err)}}
		}
		defer f.Close()
		if root, err = parse(f); err != nil {
			return Problems{{Text: fmt.Sprintf("configuration file %s: %v", path, err)}}
		}
	}
	d := decoder{}
	d.file(root, into)
	d.environment(environ, into)
	if len(d.problems) > 0 {
		return d.sorted() // what was not understood can not be judged
	}
	d.validate(into)
	if len(d.problems) > 0 {
		return d.sorted()
	}
	return nil
}

// parse reads the one document of a file; nil when it is empty.
func parse(r io.Reader) (*yaml.Node, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("more than %d bytes", maxFile)
	}
	documents := yaml.NewDecoder(strings.NewReader(string(b)))
	var first, second yaml.Node
	if err := documents.Decode(&first); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	if err := documents.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document; keep what stands before the first ---")
	}
	return first.Content[0], nil
}

func (d *decoder) sorted() Problems {
	slices.SortStableFunc(d.problems, func(a, b Problem) int { return cmp.Compare(a.Path, b.Path) })
	return d.problems
}
