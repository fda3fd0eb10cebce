package deploy_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// root is the source tree.
const root = ".."

// services are what is deployed, each a program called pratique-<service>.
var services = []string{"ingest", "layercache", "scanner", "psaauditor", "alertrouter"}

// testVersion is stamped into the programs, as the Dockerfile's argument VERSION is.
const testVersion = "v0-test"

// programs builds every program by the very commands of the Dockerfile, once for all tests, and answers the
// folder that holds them.
var programs = sync.OnceValues(func() (string, error) {
	d, err := readDockerfile()
	if err != nil {
		return "", err
	}
	into, err := filepath.Abs(filepath.Join(root, ".cache", "deploy"))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(into, 0o755); err != nil {
		return "", err
	}
	for _, command := range d.builds() {
		command = strings.ReplaceAll(command, "/out/", into+"/")
		if out, err := goCommand(command, d.environment("source")); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", command, err, out)
		}
	}
	// NATS of the module's version: what the images of the compose and Kubernetes files are.
	if out, err := goCommand("go build -o "+into+"/nats-server github.com/nats-io/nats-server/v2", d.environment("source")); err != nil {
		return "", fmt.Errorf("build nats-server: %w\n%s", err, out)
	}
	return into, nil
})

func goCommand(command string, env []string) ([]byte, error) {
	workspace, err := filepath.Abs(filepath.Join(root, "go.work"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir, cmd.Env = root, append(os.Environ(), append(env, "GOWORK="+workspace, "VERSION="+testVersion, "COMMIT=test")...)
	return cmd.CombinedOutput()
}

// program is the path of one.
func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// run runs a program to its end, in an environment of these variables alone.
func run(t *testing.T, env []string, name string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	path := program(t, name) // builds it, which takes its time
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var out, err bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &err
	if e := cmd.Run(); e != nil && cmd.ProcessState == nil {
		t.Fatalf("%s: %v", name, e)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// settings is a configuration as --print-config shows it.
type settings map[string]any

// accepted has a program check a configuration and environment, and answers what it would run with.
func accepted(t *testing.T, service string, env []string) settings {
	t.Helper()
	if _, said, code := run(t, env, "pratique-"+service, "--check-config"); code != 0 {
		t.Fatalf("pratique-%s refuses the configuration:\n%s", service, said)
	}
	text, said, code := run(t, env, "pratique-"+service, "--print-config")
	if code != 0 {
		t.Fatalf("pratique-%s --print-config: %s", service, said)
	}
	var s settings
	if err := yaml.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// at is the value at a path: "admin.listen".
func (s settings) at(path string) string {
	var v any = map[string]any(s)
	for key := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			if m, ok = v.(settings); !ok {
				return ""
			}
		}
		v = m[key]
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// absolute are all values that are paths of the machine it runs on, with where they stand.
func (s settings) absolute() map[string]string {
	all := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case settings:
			walk(path, map[string]any(v))
		case map[string]any:
			for key, value := range v {
				walk(strings.TrimPrefix(path+"."+key, "."), value)
			}
		case []any:
			for i, value := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), value)
			}
		case string:
			if strings.HasPrefix(v, "/") {
				all[path] = v
			}
		}
	}
	walk("", s)
	return all
}

// ports are those that a service listens on.
func (s settings) ports(service string) map[string]string {
	all := map[string]string{"admin": portOf(s.at("admin.listen"))}
	if service == "ingest" {
		all["http"] = portOf(s.at("ingest.listen"))
	}
	return all
}

func portOf(listen string) string { return listen[strings.LastIndexByte(listen, ':')+1:] }

// duration is the value at a path.
func (s settings) duration(t *testing.T, path string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s.at(path))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return d
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// afterEnd is what a process may take beyond its drain: the last scrape, then the last traces.
const afterEnd = 10 * time.Second

var flagPattern = regexp.MustCompile(`(?m)^\s+--([a-z-]+)`)

// flags are those that a program has, by its help.
func flags(t *testing.T, name string) []string {
	t.Helper()
	help, _, code := run(t, nil, name, "--help")
	if code != 0 {
		t.Fatalf("%s --help: exit code %d", name, code)
	}
	var all []string
	for _, m := range flagPattern.FindAllStringSubmatch(help, -1) {
		all = append(all, "--"+m[1])
	}
	return all
}
