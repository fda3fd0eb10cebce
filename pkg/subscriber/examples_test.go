package subscriber_test

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pratique-sec/pratique/pkg/access/accesstest"
	"github.com/pratique-sec/pratique/pkg/report"
)

// example starts a program that prints findings, and answers its lines.
func example(t *testing.T, s *scene, dir string, env []string, name string, args ...string) <-chan string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	var said strings.Builder
	c.Stderr = &said
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	lines := make(chan string, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for in := bufio.NewScanner(out); in.Scan(); {
			lines <- in.Text()
		}
		_, _ = io.Copy(io.Discard, out)
		_ = c.Wait() // it is killed
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		if t.Failed() {
			t.Logf("%s said: %s", name, said.String())
		}
	})
	return lines
}

func TestGoExample(t *testing.T) {
	s := sceneOn(t, accesstest.Listen(t))
	s.step("a", 1, report.High, true)
	program := filepath.Join(t.TempDir(), "example")
	build := exec.Command("go", "build", "-o", program, "./example")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := example(t, s, ".", nil, program, s.server.ClientURL(), s.creds)
	if got := receive(t, "the snapshot", lines); got != "open      high     CVE-2026-1 openssl registry.example/team/app:1 linux/amd64" {
		t.Error(got)
	}
	s.step("a", 2, report.Low, true)
	if got := receive(t, "the change", lines); !strings.HasPrefix(got, "changed   low      CVE-2026-1") {
		t.Error(got)
	}
}

// The same against the public client for Node.
func TestTypeScriptExample(t *testing.T) {
	const dir = "../../docs/examples/subscriber-ts"
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed: install Node 20 and its packages (npm ci in docs/examples/subscriber-ts) to run this test")
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "tsx")); err != nil {
		t.Skip("no packages: run npm ci in docs/examples/subscriber-ts to run this test")
	}
	s := sceneOn(t, accesstest.Listen(t))
	s.step("a", 1, report.High, true)
	lines := example(t, s, dir, []string{"NATS_URL=" + s.server.ClientURL(), "PRATIQUE_CREDS=" + s.creds}, "node", "--import", "tsx", "subscriber.ts")
	want := func(what string, parts ...string) {
		t.Helper()
		got := receive(t, what, lines)
		for _, p := range parts {
			if !strings.Contains(got, p) {
				t.Errorf("%s lacks %s:\n%s", what, p, got)
			}
		}
	}
	want("the snapshot", `{"state":`, `"repository":"team/app"`, `"id":"a","revision":1`)
	s.step("a", 2, report.Low, true)
	want("the change", `{"delta":`, `"transition":"TRANSITION_CHANGED"`, `"id":"a","revision":2`)
	s.step("a", 3, report.High, false) // as if FINDINGS had dropped it
	s.step("a", 4, report.Low, true)
	want("the snapshot of what was missed", `{"state":`, `"id":"a","revision":4`)
	s.step("a", 5, report.Unknown, true)
	want("the end", `"transition":"TRANSITION_RESOLVED"`, `"id":"a","revision":5`)
}
