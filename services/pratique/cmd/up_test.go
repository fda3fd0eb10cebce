package cmd

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

// lines is a writer that tests can wait on.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

func newLines() *lines { return &lines{news: make(chan struct{}, 1)} }

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.news <- struct{}{}:
	default:
	}
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait returns the first match of a pattern in what was written.
func (l *lines) wait(t *testing.T, pattern string) []string {
	t.Helper()
	re, late := regexp.MustCompile(pattern), time.After(time.Minute)
	for {
		if m := re.FindStringSubmatch(l.String()); m != nil {
			return m
		}
		select {
		case <-l.news:
		case <-late:
			t.Fatalf("%q was never written; only:\n%s", pattern, l)
		}
	}
}

// A running installation is found by its state folder, and every command that looks at it works.
func TestUpAndWhatLooksAtIt(t *testing.T) {
	s := newScene(t)
	state := filepath.Join(t.TempDir(), "state")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	said, exit := newLines(), make(chan int, 1)
	go func() {
		exit <- Run(ctx, []string{
			"up", "--state", state, "--insecure-registry", s.host, "--platform", "linux/amd64", "--platform", "linux/arm64",
			"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-level", "error",
		}, Env{Stdout: io.Discard, Stderr: said, Now: time.Now, Getenv: func(string) string { return "" }, Version: "test"})
	}()
	up := said.wait(t, `API (http://\S+), notifications .* metrics (http://\S+),`)
	waitReady(t, up[2])
	at := func(args ...string) outcome {
		t.Helper()
		return runCommand(t, append(args, "--state", state)...)
	}
	want := func(got outcome, code int, stdout ...string) {
		t.Helper()
		if got.code != code {
			t.Errorf("exit code %d, want %d: %s", got.code, code, got.stderr)
		}
		for _, w := range stdout {
			if !strings.Contains(got.stdout, w) {
				t.Errorf("stdout lacks %q:\n%s", w, got.stdout)
			}
		}
	}

	// Only the owner reads the key.
	for _, name := range []string{filepath.Join("access", "admin.creds"), "endpoint.json"} {
		st, err := os.Stat(filepath.Join(state, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	want(runCommand(t, "up", "--state", state, "--registry", "x", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"), ExitUsage)

	want(at("status"), ExitOK, "none loaded", "0 open in 0 assets", "nothing queued")
	want(at("db", "load", s.db), ExitOK)
	ref := s.host + "/tools/toolbox:3.4"
	want(runCommand(t, "scan", "--server", up[1], ref), ExitOK, "CVE-2016-6301")
	want(runCommand(t, "scan", "--server", up[1], s.host+"/shop/none:1"), ExitFailed, "not-found")

	want(at("status"), ExitOK, "57 open in 1 asset", "dead letters  1")
	want(at("status", "-o", "json"), ExitOK, `"openFindings":57`)
	want(at("findings", "list"), ExitOK, ref, "CVE-2016-6301")
	want(at("findings", "list", "-o", "json", s.host+"/tools/"), ExitOK, `"CVE-2016-6301"`)
	want(at("findings", "list", "elsewhere.example"), ExitOK)
	want(at("explain", "image", ref), ExitOK, "decided", "linux/amd64", "findings")
	want(at("explain", "image", s.host+"/shop/none:1"), ExitOK, "not-found")
	want(at("explain", "image", s.host+"/never/heard:1"), ExitFailed)

	pause(t, state, s.host)
	want(at("status"), ExitOK, "registry "+s.host+", just now; asked again in", "503")
	want(at("status", "-o", "json"), ExitOK, `"pausedRegistries":[{"registry":"`+s.host+`"`)
	want(at("explain", "image", ref), ExitOK, "decided", "registry "+s.host+", just now")

	want(at("deadletter", "list"), ExitOK, "not-found", "layercache")
	want(at("deadletter", "show", "1"), ExitOK, "dead letter 1", "not-found")
	want(at("deadletter", "show", "1", "-o", "json"), ExitOK, `"number":1`)
	want(at("deadletter", "drop", "77"), ExitFailed)
	want(at("deadletter", "drop", "1"), ExitOK)
	if got := at("deadletter", "list"); got.code != ExitOK || got.stdout != "" {
		t.Errorf("after drop: %+v", got)
	}

	watched, enough := newLines(), make(chan int, 1)
	watching, unwatch := context.WithCancel(t.Context())
	defer unwatch()
	go func() {
		enough <- Run(watching, []string{"findings", "watch", "--all", "--state", state}, Env{Stdout: watched, Stderr: io.Discard, Now: time.Now, Getenv: func(string) string { return "" }})
	}()
	watched.wait(t, `OPENED .*CVE-2016-6301`)
	unwatch()
	if code := <-enough; code != ExitOK {
		t.Errorf("watch, interrupted: exit code %d", code)
	}
	for format, line := range map[string]string{"table": `waiting 0, in flight 0, .* a second: 0 events`, "json": `"rates":{"events":0,`} {
		watched := newLines()
		watching, unwatch := context.WithCancel(t.Context())
		defer unwatch()
		go func() {
			enough <- Run(watching, []string{"status", "--watch", "--interval", "100ms", "-o", format, "--state", state}, Env{Stdout: watched, Stderr: io.Discard, Now: time.Now, Getenv: func(string) string { return "" }})
		}()
		watched.wait(t, line)
		unwatch()
		if code := <-enough; code != ExitOK {
			t.Errorf("status --watch, interrupted: exit code %d", code)
		}
	}
	want(at("status", "--watch", "--interval", "1ms"), ExitUsage)

	stop()
	if code := <-exit; code != ExitOK {
		t.Errorf("up, interrupted: exit code %d: %s", code, said)
	}
	want(at("status"), ExitUsage)
}

// pause makes a running installation believe that a registry fails.
func pause(t *testing.T, state, host string) {
	t.Helper()
	b, leave, err := busFlags{State: state}.open(&runner{Env: Env{Stderr: io.Discard, Now: time.Now, Getenv: func(string) string { return "" }}, log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	_, _, err = b.UpdateBreaker(t.Context(), host, func(s *breaker.State) {
		s.Since, s.Until, s.Error, s.Told = time.Now().UTC(), time.Now().Add(time.Hour).UTC(), "registry answered 503", true
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A watch lives through a restart of what it watches, on whatever port that is then.
func TestWatchLivesThroughARestart(t *testing.T) {
	s := newScene(t)
	state := filepath.Join(t.TempDir(), "state")
	start := func() (api string, stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		said, exit := newLines(), make(chan int, 1)
		go func() {
			exit <- Run(ctx, []string{
				"up", "--state", state, "--insecure-registry", s.host, "--db", s.db,
				"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-level", "error",
			}, Env{Stdout: io.Discard, Stderr: said, Now: time.Now, Getenv: func(string) string { return "" }, Version: "test"})
		}()
		up := said.wait(t, `API (http://\S+), notifications .* metrics (http://\S+),`)
		waitReady(t, up[2])
		return up[1], func() {
			cancel()
			if code := <-exit; code != ExitOK {
				t.Errorf("up, interrupted: exit code %d: %s", code, said)
			}
		}
	}
	api, stop := start()
	watched, said, done := newLines(), newLines(), make(chan int, 1)
	ctx, unwatch := context.WithCancel(t.Context())
	defer unwatch()
	go func() {
		done <- Run(ctx, []string{"findings", "watch", "--all", "--state", state}, Env{Stdout: watched, Stderr: said, Now: time.Now, Getenv: func(string) string { return "" }})
	}()
	scan := func(name string) {
		t.Helper()
		if got := runCommand(t, "scan", "--server", api, s.host+name); got.code != ExitOK {
			t.Fatalf("%+v", got)
		}
	}
	scan("/tools/toolbox:3.4")
	watched.wait(t, `OPENED .*CVE-2016-6301`)
	stop()
	said.wait(t, "connection lost")
	api, stop = start()
	defer func() { stop() }()
	scan("/edge/api:1.0")
	watched.wait(t, `OPENED .*golang.org/x/net`)
	if !strings.Contains(said.String(), "connected again") {
		t.Errorf("stderr: %s", said)
	}
	unwatch()
	if code := <-done; code != ExitOK {
		t.Errorf("watch, interrupted: exit code %d", code)
	}
}

// waitReady asks until an installation says that it works.
func waitReady(t *testing.T, admin string) {
	t.Helper()
	tick, late := time.NewTicker(10*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for {
		resp, err := http.Get(admin + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == http.StatusOK {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never ready: %s", body)
		}
	}
}

// The demo runs on the real pipeline, analyses each layer once, and shows what a rebuild resolves.
func TestDemo(t *testing.T) {
	got := runCommand(t, "demo")
	if got.code != ExitOK {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
	images, err := demodata.Images()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range images {
		if !i.Artifact && !strings.Contains(got.stdout, "\n"+i.Name()+"  linux/") && !strings.HasPrefix(got.stdout, i.Name()+"  linux/") {
			t.Errorf("no table for %s", i.Name())
		}
	}
	for _, want := range []string{
		"22 seen", "12 analysed", "12 distinct layers",
		"\n  bin/pratique up --registry", "RESOLVED by the rebuild: 136", "RESOLVED  CRITICAL  CVE-2019-10744  lodash", "Try next",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("stdout lacks %q:\n%s", want, got.stdout)
		}
	}
	if !strings.Contains(got.stderr, "is a signature: noted, never scanned") {
		t.Errorf("stderr does not tell of the signature:\n%s", got.stderr)
	}
	if strings.Contains(got.stdout, "\x1b[") {
		t.Error("colour where there is no terminal")
	}
}
