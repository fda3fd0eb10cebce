// Package programtest runs a service's program in the test's own process, and keeps all that it shows.
package programtest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/program"
)

// late bounds what is waited for, on a busy machine.
const late = time.Minute

// Output is what was written, safe to look at meanwhile.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write keeps p.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Until waits until what was written matches a pattern, and answers the match and its groups.
func (o *Output) Until(t testing.TB, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.After(late); ; {
		if m := re.FindStringSubmatch(o.String()); m != nil {
			return m
		}
		select {
		case <-end:
			t.Fatalf("%q was never written:\n%s", pattern, o)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// File writes a file of the test's own and answers its path.
func File(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Program is one that a test runs. Everything that it shows to anybody goes to Output.
type Program struct {
	Output
	Identity program.Identity
	Defaults func() program.Configuration

	hangups chan os.Signal
	admin   string
}

// Run runs it to its end with some arguments, and answers the exit code.
func (p *Program) Run(t testing.TB, args ...string) int {
	return program.Run(t.Context(), p.Identity, program.World{Args: args, Stdout: p, Stderr: p}, p.Defaults)
}

// Start runs it with a configuration file until the test ends. The file has to have its health served on a
// free port of 127.0.0.1.
func (p *Program) Start(t testing.TB, file string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	p.hangups = make(chan os.Signal, 1)
	ended := make(chan int, 1)
	go func() {
		ended <- program.Run(ctx, p.Identity, program.World{Args: []string{"--config", file}, Stdout: p, Stderr: p, Hangups: p.hangups}, p.Defaults)
	}()
	t.Cleanup(func() {
		stop()
		if code := <-ended; code != 0 {
			t.Errorf("exit code %d:\n%s", code, p)
		}
	})
	p.admin = p.Until(t, `health and metrics are served.*?(127\.0\.0\.1:\d+)`)[1]
}

// Hangup has it read its configuration again.
func (p *Program) Hangup() { p.hangups <- syscall.SIGHUP }

// Show asks for health and metrics, and keeps the answers.
func (p *Program) Show(t testing.TB) {
	t.Helper()
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		resp, err := http.Get("http://" + p.admin + path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(p, resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// ShowsNone fails the test for each secret, by what it is, that was shown.
func (p *Program) ShowsNone(t testing.TB, secrets map[string]string) {
	t.Helper()
	shown := p.String()
	for what, secret := range secrets {
		if i := strings.Index(shown, secret); i >= 0 {
			line := shown[strings.LastIndexByte(shown[:i], '\n')+1:]
			line, _, _ = strings.Cut(line, "\n")
			t.Errorf("shows %s: %s", what, line)
		}
	}
}
