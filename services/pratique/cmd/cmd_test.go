package cmd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// outcome is what a command line did.
type outcome struct {
	code           int
	stdout, stderr string
}

func runCommand(t *testing.T, args ...string) outcome {
	t.Helper()
	return runWith(t.Context(), args...)
}

func runWith(ctx context.Context, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	code := Run(ctx, args, Env{
		Stdout: &stdout, Stderr: &stderr, Now: time.Now,
		Getenv:  func(string) string { return "" },
		Version: "v1.2.3", Commit: "abcdef", Program: "bin/pratique",
	})
	return outcome{code, stdout.String(), stderr.String()}
}

// Every mistake names the flag or argument, and says what to do.
func TestMistakes(t *testing.T) {
	empty := t.TempDir()
	file := filepath.Join(empty, "token")
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want []string // in stderr
	}{
		{nil, []string{`expected one of "scan"`, "pratique --help"}},
		{[]string{"scna"}, []string{"unexpected argument scna"}},
		{[]string{"scan"}, []string{`expected "<ref> ..."`, "pratique scan --help"}},
		{[]string{"scan", "--bogus", "a"}, []string{"unknown flag --bogus", "pratique scan --help"}},
		{[]string{"scan", "https://a/b"}, []string{"REF:", "without a scheme"}},
		{[]string{"scan", "a@sha256:12"}, []string{"REF:"}},
		{[]string{"scan", "a"}, []string{"--db:", "--state", "--server"}},
		{[]string{"scan", "a", "--db", "/no/such/file"}, []string{"--db:", "/no/such/file"}},
		{[]string{"scan", "a", "--db", empty}, []string{"--db:", "trivy.db"}},
		{[]string{"scan", "a", "--state", filepath.Join(empty, "state")}, []string{"--db:", "holds no vulnerability database"}},
		{[]string{"scan", "a", "--platform", "x"}, []string{"--platform:"}},
		{[]string{"scan", "a", "--fail-on", "worse"}, []string{"--fail-on", "worse", "critical"}},
		{[]string{"scan", "a", "-o", "xml"}, []string{"--output", "table", "trivy"}},
		{[]string{"scan", "a", "--timeout", "0s"}, []string{"--timeout"}},
		{[]string{"scan", "a", "--retry-for", "0s"}, []string{"--retry-for"}},
		{[]string{"scan", "a", "--token-file", "x"}, []string{"--token-file:", "--server"}},
		{[]string{"scan", "a", "--server", "http://h", "--db", "x"}, []string{"--db:", "leave it out"}},
		{[]string{"scan", "a", "--server", "h:80"}, []string{"--server:", "http://"}},
		{[]string{"scan", "a", "--server", "http://h", "--token-file", "/no/such/file"}, []string{"--token-file:"}},
		{[]string{"scan", "a", "--server", "http://h", "--token-file", file}, []string{"--token-file", "first line is empty"}},
		{[]string{"up"}, []string{"--registry:"}},
		{[]string{"up", "--registry", "https://x"}, []string{"--registry:", "without a scheme"}},
		{[]string{"up", "--registry", "x", "--platform", "y"}, []string{"--platform:"}},
		{[]string{"up", "--registry", "x", "--java-db", "/no/such/file"}, []string{"--java-db:"}},
		{[]string{"up", "--registry", "x", "--listen", "0.0.0.0:8420"}, []string{"listen", "no tokens"}},
		{[]string{"up", "--registry", "x", "--nats-listen", "0.0.0.0:1"}, []string{"nats address", "only loopback"}},
		{[]string{"up", "--registry", "x", "--redis", "http://x"}, []string{"redis://"}},
		{[]string{"up", "--registry", "x", "--admin", "nowhere"}, []string{"--admin:"}},
		{[]string{"status", "--state", empty}, []string{"--state", "nobody runs there", "pratique up", "--nats"}},
		{[]string{"status", "--creds", "x"}, []string{"--creds:", "--nats URL"}},
		{[]string{"status", "--nats", "nats://127.0.0.1:1", "--creds", "/no/such/file"}, []string{"--creds:"}},
		{[]string{"explain", "image", "a:b:c:d"}, []string{"REF:"}},
		{[]string{"psa", "audit"}, []string{`expected "<path> ..."`, "pratique psa audit --help"}},
		{[]string{"psa", "audit", "/no/such/file"}, []string{"PATH:", "/no/such/file"}},
		{[]string{"psa", "audit", "-", "-"}, []string{"PATH:", "standard input"}},
		{[]string{"psa", "audit", "-", "--level", "privileged"}, []string{"--level", "baseline", "restricted"}},
		{[]string{"psa", "audit", "-", "--version", "1.34"}, []string{"--version:", "v1.NN"}},
		{[]string{"psa", "audit", "-", "-o", "sarif"}, []string{"--output", "table", "json"}},
		{[]string{"deadletter", "show", "x"}, []string{"<number>"}},
		{[]string{"db", "load", "/no/such/file"}, []string{"PATH:"}},
		{[]string{"version", "--log-level", "loud"}, []string{"--log-level"}},
	} {
		got := runCommand(t, c.args...)
		if got.code != ExitUsage {
			t.Errorf("%q: exit code %d, want %d; %s", c.args, got.code, ExitUsage, got.stderr)
		}
		if got.stdout != "" {
			t.Errorf("%q: wrote to stdout: %s", c.args, got.stdout)
		}
		for _, want := range c.want {
			if !strings.Contains(got.stderr, want) {
				t.Errorf("%q: stderr lacks %q:\n%s", c.args, want, got.stderr)
			}
		}
	}
}

func TestFailuresAreNoMistakes(t *testing.T) {
	for _, args := range [][]string{
		{"status", "--nats", "nats://127.0.0.1:1"},
		{"scan", "a", "--server", "http://127.0.0.1:1"},
	} {
		got := runCommand(t, args...)
		if got.code != ExitFailed || !strings.Contains(got.stderr, "127.0.0.1:1") {
			t.Errorf("%q: exit code %d, want %d; %s", args, got.code, ExitFailed, got.stderr)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	if got := runCommand(t, "version"); got.code != ExitOK || got.stdout != "pratique v1.2.3 (commit abcdef)\n" {
		t.Errorf("%+v", got)
	}
	got := runCommand(t, "--help")
	if got.code != ExitOK || got.stderr != "" {
		t.Errorf("help: code %d, stderr %q", got.code, got.stderr)
	}
	for _, verb := range []string{"scan", "up", "findings watch", "findings list", "psa audit", "explain image", "status", "deadletter list", "deadletter show", "deadletter redrive", "deadletter drop", "db load", "subscriber add", "subscriber list", "subscriber rotate", "subscriber remove", "credentials init", "credentials issue", "demo", "version"} {
		if !strings.Contains(got.stdout, "\n  "+verb) {
			t.Errorf("help does not list %q", verb)
		}
	}
}
