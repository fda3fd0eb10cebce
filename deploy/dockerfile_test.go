package deploy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// dockerfile is deploy/Dockerfile as BuildKit reads it.
type dockerfile struct {
	stages   []instructions.Stage
	warnings []string
}

func readDockerfile() (*dockerfile, error) {
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	d := &dockerfile{}
	for _, w := range parsed.Warnings {
		d.warnings = append(d.warnings, w.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, at []parser.Range) {
		d.warnings = append(d.warnings, fmt.Sprintf("line %d: %s: %s", at[0].Start.Line, rule, message))
	}})
	if d.stages, _, err = instructions.Parse(parsed.AST, lint); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *dockerfile) stage(name string) *instructions.Stage {
	for i := range d.stages {
		if d.stages[i].Name == name {
			return &d.stages[i]
		}
	}
	return nil
}

// line are the commands of a stage and of those that it begins from.
func (d *dockerfile) line(name string) []instructions.Command {
	s := d.stage(name)
	if s == nil {
		return nil
	}
	return append(d.line(s.BaseName), s.Commands...)
}

// environment is what RUN of a stage finds.
func (d *dockerfile) environment(stage string) []string {
	var all []string
	for _, c := range d.line(stage) {
		if env, ok := c.(*instructions.EnvCommand); ok {
			for _, kv := range env.Env {
				all = append(all, kv.Key+"="+kv.Value)
			}
		}
	}
	return all
}

// builds are the commands that compile.
func (d *dockerfile) builds() []string {
	var all []string
	for _, s := range d.stages {
		for _, c := range s.Commands {
			if run, ok := c.(*instructions.RunCommand); ok && strings.HasPrefix(run.CmdLine[0], "go build ") {
				all = append(all, run.CmdLine[0])
			}
		}
	}
	return all
}

// target is what a program's image is.
type target struct {
	user       string
	entrypoint []string
	copied     []string // paths in the image
}

func (d *dockerfile) target(t *testing.T, name string) target {
	t.Helper()
	if d.stage(name) == nil {
		t.Fatalf("Dockerfile: no target %s", name)
	}
	var out target
	for _, c := range d.line(name) {
		switch c := c.(type) {
		case *instructions.UserCommand:
			out.user = c.User
		case *instructions.EntrypointCommand:
			if c.PrependShell {
				t.Errorf("Dockerfile: %s: entrypoint needs a shell, and there is none", name)
			}
			out.entrypoint = c.CmdLine
		case *instructions.RunCommand:
			t.Errorf("Dockerfile: %s: RUN needs a shell, and there is none", name)
		case *instructions.CopyCommand:
			if d.stage(c.From) == nil {
				t.Errorf("Dockerfile: %s copies from %q, which is no stage", name, c.From)
			}
			out.copied = append(out.copied, c.DestPath)
		}
	}
	return out
}

func TestDockerfile(t *testing.T) {
	d, err := readDockerfile()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range d.warnings {
		t.Error("Dockerfile: " + w)
	}
	if base := d.stage("base"); base == nil || base.BaseName != "scratch" {
		t.Error("Dockerfile: programs are not put on an empty image")
	}

	// The compiler and its settings are those of the source tree.
	goVersion := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, filepath.Join(root, "go.work")))[1]
	if got := d.stage("source").BaseName; got != "golang:"+goVersion {
		t.Errorf("Dockerfile compiles with %s, go.work with %s", got, goVersion)
	}
	env := d.environment("source")
	for _, m := range regexp.MustCompile(`(?m)^export (\w+)\s*:= (.+)$`).FindAllStringSubmatch(read(t, filepath.Join(root, "Makefile")), -1) {
		if want := m[1] + "=" + m[2]; !slices.Contains(env, want) {
			t.Errorf("the Makefile compiles with %s, the Dockerfile with %v", want, env)
		}
	}
	for _, c := range d.builds() {
		for _, word := range strings.Fields(c) {
			if strings.HasPrefix(word, "./") {
				if _, err := os.Stat(filepath.Join(root, word)); err != nil {
					t.Errorf("Dockerfile compiles %s: %v", word, err)
				}
			}
		}
	}

	for _, name := range append([]string{""}, services...) {
		program := strings.TrimSuffix("pratique-"+name, "-")
		stage := strings.TrimPrefix(program, "pratique-")
		t.Run(program, func(t *testing.T) {
			target := d.target(t, stage)
			if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(target.user) {
				t.Errorf("user %q: want numbers, which Kubernetes can tell from root", target.user)
			}
			if len(target.entrypoint) != 1 || target.entrypoint[0] != "/"+program {
				t.Errorf("entrypoint %q", target.entrypoint)
			}
			for _, path := range []string{"/" + program, "/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo.zip"} {
				if !slices.Contains(target.copied, path) {
					t.Errorf("there is no %s in the image", path)
				}
			}
		})
	}
}

// What the Dockerfile's commands compile are the programs, stamped, and static: nothing else is in the image.
func TestProgramsAreStampedAndStatic(t *testing.T) {
	for _, name := range services {
		out, _, code := run(t, nil, "pratique-"+name, "--version")
		if code != 0 || out != "pratique-"+name+" "+testVersion+" (test)\n" {
			t.Errorf("pratique-%s --version: %q, exit code %d", name, out, code)
		}
	}
	if out, _, code := run(t, nil, "pratique", "version"); code != 0 || !strings.Contains(out, testVersion) {
		t.Errorf("pratique version: %q, exit code %d", out, code)
	}
	for _, name := range append([]string{"pratique"}, prefixed("pratique-", services)...) {
		out, err := exec.Command("go", "version", "-m", "-json", program(t, name)).Output()
		if err != nil {
			t.Fatal(err)
		}
		var info struct{ Settings []struct{ Key, Value string } }
		if err := json.Unmarshal(out, &info); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(info.Settings, struct{ Key, Value string }{"CGO_ENABLED", "0"}) {
			t.Errorf("%s is linked with C", name)
		}
	}
}

// Nothing that the workspace needs is kept from the build.
func TestDockerignore(t *testing.T) {
	ignored := strings.Fields(read(t, "Dockerfile.dockerignore"))
	for _, m := range regexp.MustCompile(`(?m)^\t\./(\S+)`).FindAllStringSubmatch(read(t, filepath.Join(root, "go.work")), -1) {
		for _, pattern := range ignored {
			if m[1] == pattern || strings.HasPrefix(m[1], pattern+"/") {
				t.Errorf("Dockerfile.dockerignore leaves %s away, which go.work names", m[1])
			}
		}
	}
}

func prefixed(prefix string, names []string) []string {
	var all []string
	for _, n := range names {
		all = append(all, prefix+n)
	}
	return all
}
