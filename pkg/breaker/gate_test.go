package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/breaker/breakertest"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/system"
)

const patience = 30 * time.Second

func TestMemoryKeepsTheContract(t *testing.T) {
	t.Parallel()
	breakertest.Contract(t, &breakertest.Memory{})
}

// clock is moved by the test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// workers are gates of as many processes on one store.
func workers(t *testing.T, n int) ([]*breaker.Gate, *breakertest.Memory, *clock) {
	t.Helper()
	store, c := &breakertest.Memory{}, &clock{now: noon}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	gates := make([]*breaker.Gate, n)
	for i := range gates {
		gates[i] = breaker.NewGate(breaker.Config{}, store, c.Now, slog.New(slog.DiscardHandler))
		running.Go(func() { _ = gates[i].Run(ctx) })
	}
	return gates, store, c
}

// ask asks for something and gets an answer.
func ask(t *testing.T, g *breaker.Gate, of string, answer error) error {
	t.Helper()
	done, err := g.Enter(t.Context(), host, of)
	if err != nil {
		return err
	}
	done(answer)
	return nil
}

func down() error { return reason.Retryf(reason.Unreachable, "503") }

// pause makes a registry fail for everybody, and waits until all know.
func pause(t *testing.T, gates []*breaker.Gate) {
	t.Helper()
	for i := range cfg.Threshold {
		if err := ask(t, gates[i%len(gates)], fmt.Sprint(i), down()); err != nil {
			t.Fatalf("question %d: %v", i, err)
		}
	}
	for _, g := range gates {
		select {
		case <-g.Paused(host):
		case <-time.After(patience):
			t.Fatal("a worker does not hear of the pause")
		}
	}
}

func wantPaused(t *testing.T, err error) time.Duration {
	t.Helper()
	var e *reason.Error
	if !errors.As(err, &e) || e.Kind != reason.Retry || e.Code != reason.RegistryPaused || e.RetryAfter <= 0 {
		t.Fatalf("error %v, want registry-paused with a delay", err)
	}
	return e.RetryAfter
}

func TestWorkersShareOneBreaker(t *testing.T) {
	t.Parallel()
	gates, store, c := workers(t, 3)
	pause(t, gates)
	for _, g := range gates {
		wantPaused(t, ask(t, g, "another", nil))
		wantPaused(t, g.PausedError(host))
	}
	if err := ask(t, gates[0], "x", nil); err == nil {
		t.Error("asked in the pause")
	}
	if done, err := gates[0].Enter(t.Context(), "other.example", "x"); err != nil {
		t.Errorf("another registry: %v", err)
	} else {
		done(nil)
	}

	// After the pause one of them asks, and only one.
	c.pass(cfg.Pause)
	probe, err := gates[0].Enter(t.Context(), host, "probe")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range gates {
		wantPaused(t, ask(t, g, "beside the probe", nil))
	}
	probe(down())
	for _, g := range gates[:2] {
		wantPaused(t, ask(t, g, "after a probe that failed", nil))
	}

	c.pass(2 * cfg.Pause)
	late := time.After(patience)
	for ask(t, gates[1], "second probe", nil) != nil { // it hears of the first one's end in a moment
		select {
		case <-late:
			t.Fatal("nobody may ask again")
		default:
		}
	}
	if err := gates[1].PausedError(host); err != nil {
		t.Errorf("after a probe that was answered: %v", err)
	}
	for i := range 20 {
		if err := ask(t, gates[1], fmt.Sprint(i), nil); err != nil {
			t.Fatal(err)
		}
	}

	// It is told of once, by whomever, and again when it has been well for long.
	for _, wait := range []time.Duration{0, cfg.Settle, cfg.Settle} {
		c.pass(wait)
		for _, g := range gates {
			if err := g.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	var kinds []system.Kind
	for _, n := range store.Notices() {
		kinds = append(kinds, n.Kind)
		if n.Subject != host || n.Message == "" {
			t.Errorf("notice %+v", n)
		}
	}
	if len(kinds) != 2 || kinds[0] != system.RegistryPaused || kinds[1] != system.RegistryResumed {
		t.Errorf("told %v", kinds)
	}
}

func TestWellRegistriesCostNothing(t *testing.T) {
	t.Parallel()
	gates, store, _ := workers(t, 1)
	for i := range 100 {
		if err := ask(t, gates[0], fmt.Sprint(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := store.Updates(); n != 0 {
		t.Errorf("%d updates of the store", n)
	}
}

func TestWhatIsTheRegistrysFault(t *testing.T) {
	t.Parallel()
	answered := reason.Retryf(reason.Unreachable, "registry answered 418")
	answered.Answered = true
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		err  error
		want bool // paused when everything fails so
	}{
		"no answer":                {t.Context(), down(), true},
		"too many requests":        {t.Context(), reason.Retryf(reason.RateLimited, "429"), true},
		"one request is not liked": {t.Context(), answered, false},
		"not there":                {t.Context(), reason.Refusef(reason.NotFound, "404"), false},
		"no access":                {t.Context(), reason.Refusef(reason.Denied, "403"), false},
		"other bytes":              {t.Context(), reason.Refusef(reason.DigestMismatch, "x"), false},
		"a host that is not ours":  {t.Context(), reason.Refusef(reason.HostNotAllowed, "x"), false},
		"our own trouble":          {t.Context(), errors.New("disk full"), false},
		"we hung up":               {gone, down(), false},
	} {
		gates, _, _ := workers(t, 1)
		for i := range 2 * cfg.Threshold {
			done, err := gates[0].Enter(c.ctx, host, fmt.Sprint(i))
			if err != nil {
				break
			}
			done(c.err)
		}
		if got := gates[0].PausedError(host) != nil; got != c.want {
			t.Errorf("%s: paused %v, want %v", name, got, c.want)
		}
	}
}

// A probe whose question was never answered, since its process was told to stop, is nobody's hold-up.
func TestProbeThatFoundNothingOut(t *testing.T) {
	t.Parallel()
	gates, _, c := workers(t, 2)
	pause(t, gates)
	c.pass(cfg.Pause)
	ctx, cancel := context.WithCancel(t.Context())
	done, err := gates[0].Enter(ctx, host, "probe")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	done(down())
	done, err = gates[0].Enter(t.Context(), host, "probe")
	if err != nil {
		t.Fatalf("after a probe that was given up: %v", err)
	}
	done(nil)
	if err := gates[0].PausedError(host); err != nil {
		t.Errorf("after a probe that was answered: %v", err)
	}
}

// What is read is judged by its end.
func TestReadingIsJudgedByItsEnd(t *testing.T) {
	t.Parallel()
	cut := reason.Retryf(reason.Unreachable, "cut off")
	for name, c := range map[string]struct {
		open, end error
		read      bool
		paused    bool
	}{
		"whole":                {end: io.EOF, read: true},
		"cut off":              {end: cut, read: true, paused: true},
		"cut off and not read": {end: cut},
		"refused":              {open: cut, paused: true},
	} {
		gates, _, _ := workers(t, 1)
		for i := range cfg.Threshold {
			r, err := gates[0].Read(t.Context(), host, fmt.Sprint(i), func() (io.ReadCloser, error) {
				return io.NopCloser(iotest.ErrReader(c.end)), c.open
			})
			if err != nil {
				continue
			}
			if c.read {
				_, _ = io.ReadAll(r)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if got := gates[0].PausedError(host) != nil; got != c.paused {
			t.Errorf("%s: paused %v, want %v", name, got, c.paused)
		}
	}
}
