package processes

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// soon bounds every wait for something that must happen, on a busy machine.
const soon = time.Minute

// Process is one that the test runs, many lives long. Its methods are safe for concurrent use.
type Process struct {
	Name   string // "scanner-2"
	Admin  string // address of /livez, /readyz and /metrics; "" of NATS and Redis
	Log    string // path of what all its lives wrote
	args   []string
	answer func() error // nil: it serves

	mu      sync.Mutex
	program string
	life    *life // nil while it is dead
}

// life is one run of the program.
type life struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone
}

// Start begins a life. A process that lives is left alone.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.alive() {
		return nil
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.program, p.args...) //nolint:noctx // it lives until it is killed
	cmd.Stdout, cmd.Stderr = log, log         // the process's own descriptor: what it wrote before kill -9 is there
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PRATIQUE_") })
	cmd.SysProcAttr = attributes()
	l := &life{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel kills a child when the thread that started it ends: this one ends after the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is read from its ProcessState
			close(l.ended)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("processes: start %s: %w", p.Name, err)
	}
	p.life = l
	return nil
}

// Alive tells whether it runs, or is frozen.
func (p *Process) Alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alive()
}

func (p *Process) alive() bool {
	if p.life == nil {
		return false
	}
	select {
	case <-p.life.ended:
		return false
	default:
		return true
	}
}

// Replace makes another build's program the one of the next life.
func (p *Process) Replace(with Programs) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.program = with.Path(filepath.Base(p.program))
}

// signal reaches the process and what it started.
func (p *Process) signal(s syscall.Signal) *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.alive() {
		return nil
	}
	// An error says that it died in between.
	_ = syscall.Kill(-p.life.cmd.Process.Pid, s)
	return p.life
}

// Kill is kill -9; it returns when the process is gone.
func (p *Process) Kill() {
	if l := p.signal(syscall.SIGKILL); l != nil {
		<-l.ended
	}
}

// Freeze stops it where it is, as a paused virtual machine does, until Thaw.
func (p *Process) Freeze() { p.signal(syscall.SIGSTOP) }

// Thaw lets it go on.
func (p *Process) Thaw() { p.signal(syscall.SIGCONT) }

// Stop asks it to end, as Kubernetes does, and answers its exit code when it has.
func (p *Process) Stop(grace time.Duration) (int, error) {
	l := p.signal(syscall.SIGTERM)
	if l == nil {
		return 0, fmt.Errorf("processes: %s does not run", p.Name)
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-l.ended:
		return l.cmd.ProcessState.ExitCode(), nil
	case <-late.C:
		p.Kill()
		return 0, fmt.Errorf("processes: %s still ran %v after SIGTERM", p.Name, grace)
	}
}

// Ready is nil when it says that it can work; of NATS and Redis, when it serves.
func (p *Process) Ready() error {
	if p.answer != nil {
		return p.answer()
	}
	answer, err := client.Get("http://" + p.Admin + "/readyz") //nolint:noctx // the client has a timeout
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1000)) // decoration of an error
		return fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(text)))
	}
	return nil
}

// client of what answers at once or not at all. No connection is kept: the process behind it dies.
var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// AwaitReady waits for Ready.
func (p *Process) AwaitReady(t testing.TB) {
	t.Helper()
	if err := p.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// WaitReady waits for Ready, too, for those who may not end the test.
func (p *Process) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := p.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("processes: %s is not ready: %w\n%s", p.Name, err, p.Tail(20))
		}
		if !p.Alive() {
			return fmt.Errorf("processes: %s ended:\n%s", p.Name, p.Tail(20))
		}
	}
}

// Tail is the end of its log.
func (p *Process) Tail(lines int) string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	all := slices.Collect(strings.Lines(string(b)))
	return strings.Join(all[max(0, len(all)-lines):], "")
}
