package program_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/config"
	"github.com/pratique-sec/pratique/pkg/program"
)

// fake is a main's configuration with a service that does nothing but tell.
type fake struct {
	program.Common
	Fake section

	events chan<- string
}

type section struct{ Word, Fixed string }

func (s section) Validate() error {
	if s.Word == "" {
		return errors.New("word: say one")
	}
	return nil
}

func (f *fake) Start(_ context.Context, kit program.Kit) (program.Service, error) {
	if kit.Bus == nil || kit.Registerer == nil || kit.Tracer == nil {
		return program.Service{}, errors.New("the kit is not complete")
	}
	return program.Service{
		Run: func(ctx context.Context) error {
			_, span := kit.Tracer.Tracer("fake").Start(ctx, "work "+f.Fake.Word)
			span.End()
			f.events <- "running " + f.Fake.Word
			<-ctx.Done()
			if err := kit.Health.Ready(); err == nil || !strings.Contains(err.Error(), "draining") {
				f.events <- fmt.Sprintf("told to stop while health is %v", err)
			}
			f.events <- "drained"
			return nil
		},
		Close: func() error { f.events <- "closed"; return nil },
		Reload: func(next program.Configuration) error {
			c := next.(*fake)
			if c.Fake.Word == "bad" {
				return errors.New("fake.word: not this one")
			}
			f.events <- "reloaded " + c.Fake.Word
			return nil
		},
		Reloadable: []string{"fake.word"},
	}, nil
}

// log is what a process wrote to standard error, safe to look at while it writes.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *log) until(t *testing.T, text string) {
	t.Helper()
	for late := time.After(20 * time.Second); !strings.Contains(l.String(), text); {
		select {
		case <-late:
			t.Fatalf("%q never stood in the log:\n%s", text, l)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, events <-chan string, want string) {
	t.Helper()
	select {
	case got := <-events:
		if got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%q never came", want)
	}
}

var identity = program.Identity{Name: "pratique-fake", Version: "v1", Commit: "abc", Provisions: true}

func TestLife(t *testing.T) {
	file, events := filepath.Join(t.TempDir(), "fake.yaml"), make(chan string, 8)
	base := fmt.Sprintf("nats: {url: %s}\nadmin: {listen: '127.0.0.1:0'}\n", bustest.Listen(t))
	write(t, file, base+"fake: {word: one}")
	hangups, out := make(chan os.Signal), &log{}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- program.Run(ctx, identity, program.World{Args: []string{"--config", file}, Stdout: io.Discard, Stderr: out, Hangups: hangups},
			func() program.Configuration { return &fake{Common: program.Defaults(), events: events} })
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(out)
		}
	})
	next(t, events, "running one")
	admin := regexp.MustCompile(`health and metrics are served" address=(\S+)`).FindStringSubmatch(out.String())
	if admin == nil {
		t.Fatalf("no address in the log:\n%s", out)
	}
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + admin[1] + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	if code, body := get("/readyz"); code != 200 {
		t.Errorf("/readyz = %d %s", code, body)
	}

	hang := func(text string) { write(t, file, text); hangups <- syscall.SIGHUP }
	hang(base + "fake: {word: two}\nlog: {level: debug}")
	next(t, events, "reloaded two")
	hang(base + "fake: {word: two, fixed: x}")
	out.until(t, "fake.fixed: changed, which needs a restart")
	hang(base + "fake: {word: bad}")
	out.until(t, "fake.word: not this one")
	hang(base + "fake: {wrod: two}")
	out.until(t, "fake.wrod")
	hang(base + "fake: {word: three}")
	next(t, events, "reloaded three")
	out.until(t, "configuration reloaded")
	if _, body := get("/metrics"); !strings.Contains(body, `pratique_config_reloads_total{outcome="refused"} 3`) {
		t.Errorf("refusals are not counted:\n%s", body)
	}

	stop()
	next(t, events, "drained")
	next(t, events, "closed")
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// A process that starts before NATS waits for it, unready and alive, and stops when it is told to.
func TestWaitsForNATS(t *testing.T) {
	out := &log{}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- program.Run(ctx, identity, program.World{
			Environ: []string{"PRATIQUE_NATS_URL=nats://127.0.0.1:1", "PRATIQUE_ADMIN_LISTEN=127.0.0.1:0", "PRATIQUE_FAKE_WORD=one"},
			Stdout:  io.Discard, Stderr: out,
		}, func() program.Configuration { return &fake{Common: program.Defaults()} })
	}()
	out.until(t, "streams are not there yet")
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// Spans go to the collector by OTLP; what it does not take is a line of the log.
func TestTraces(t *testing.T) {
	received := make(chan string, 8)
	var take atomic.Int32
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		received <- r.URL.Path + " " + string(body)
		w.WriteHeader(int(take.Load()))
	}))
	defer collector.Close()
	url := bustest.Listen(t)
	for _, status := range []int32{http.StatusOK, http.StatusBadRequest} {
		take.Store(status)
		events, out := make(chan string, 8), &log{}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan int, 1)
		go func() {
			ended <- program.Run(ctx, identity, program.World{
				Environ: []string{"PRATIQUE_NATS_URL=" + url, "PRATIQUE_ADMIN_LISTEN=127.0.0.1:0", "PRATIQUE_FAKE_WORD=traced", "PRATIQUE_TRACE_ENDPOINT=" + collector.URL, "PRATIQUE_LOG_FORMAT=json"},
				Stdout:  io.Discard, Stderr: out,
			}, func() program.Configuration { return &fake{Common: program.Defaults(), events: events} })
		}()
		next(t, events, "running traced")
		stop()
		if code := <-ended; code != 0 {
			t.Errorf("exit code %d:\n%s", code, out)
		}
		select {
		case got := <-received:
			for _, want := range []string{"/v1/traces", "pratique-fake", "work traced"} {
				if !strings.Contains(got, want) {
					t.Errorf("the collector got %q, without %s", got, want)
				}
			}
		default:
			t.Errorf("the collector got nothing:\n%s", out)
		}
		if complained := strings.Contains(out.String(), `"level":"WARN","msg":"send traces failed"`); complained != (status != http.StatusOK) {
			t.Errorf("answered %d:\n%s", status, out)
		}
	}
}

func TestFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fake.yaml")
	run := func(args ...string) (code int, stdout, stderr string) {
		var out, err bytes.Buffer
		code = program.Run(t.Context(), identity, program.World{Args: args, Environ: []string{"PRATIQUE_CONFIG=" + file}, Stdout: &out, Stderr: &err},
			func() program.Configuration { return &fake{Common: program.Defaults()} })
		return code, out.String(), err.String()
	}
	setEnv := func() { t.Setenv("PRATIQUE_CONFIG", file) } // kong reads the variable itself
	setEnv()

	write(t, file, "fake: {word: one}")
	if code, _, stderr := run("--check-config"); code != 0 || !strings.Contains(stderr, "sound") {
		t.Errorf("--check-config = %d %s", code, stderr)
	}
	code, stdout, _ := run("--print-config")
	if code != 0 || !strings.Contains(stdout, "word: one") || !strings.Contains(stdout, "drain: 25s") {
		t.Errorf("--print-config = %d %s", code, stdout)
	}
	write(t, file, stdout)
	if code, _, stderr := run("--check-config"); code != 0 {
		t.Errorf("what was printed is refused: %s", stderr)
	}
	if code, stdout, _ := run("--version"); code != 0 || stdout != "pratique-fake v1 (abc)\n" {
		t.Errorf("--version = %d %q", code, stdout)
	}
	write(t, file, "drain: 0s\nreplicas: 9\nnats: {url: 'nats://user:hunter2@host:4222', cert: a}\nadmin: {listen: here}\nlog: {format: xml}\ntrace: {endpoint: 'http://u:hunter2@c', ratio: 2}\n")
	code, _, stderr := run("--check-config")
	if code != 2 {
		t.Errorf("exit code %d", code)
	}
	for _, path := range []string{"drain", "replicas", "nats.url", "nats.cert", "admin.listen", "log.format", "trace.endpoint", "trace.ratio", "fake.word"} {
		if !strings.Contains(stderr, path+": ") {
			t.Errorf("%s is not named:\n%s", path, stderr)
		}
	}
	if strings.Contains(stderr, "hunter2") {
		t.Errorf("a password is shown:\n%s", stderr)
	}
	if code, _, _ := run("--nonsense"); code != 2 {
		t.Errorf("an unknown flag: exit code %d", code)
	}
	for _, path := range config.Variables(&fake{}) {
		if strings.Contains(path, "EVENTS") {
			t.Errorf("%s: an unexported field can be set", path)
		}
	}
}
