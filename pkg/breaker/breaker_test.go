package breaker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/breaker"
)

const host = "registry.example"

var (
	noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	cfg  = breaker.Config{}.WithDefaults()
)

func failure(of string) breaker.Failure { return breaker.Failure{Of: of, Error: of + " failed"} }

// opened is a registry that has just been paused.
func opened(t *testing.T, asked time.Duration) breaker.State {
	t.Helper()
	s := breaker.State{Host: host}
	for i := range cfg.Threshold {
		if s.Paused() {
			t.Fatalf("paused after %d failures", i)
		}
		s = cfg.Fail(s, noon, "", breaker.Failure{Of: fmt.Sprint(i), Error: "503", RetryAfter: asked})
	}
	if !s.Paused() || !s.Since.Equal(noon) {
		t.Fatalf("after %d failures: %+v", cfg.Threshold, s)
	}
	return s
}

func TestWhatPauses(t *testing.T) {
	t.Parallel()
	fresh := breaker.State{Host: host}
	for name, c := range map[string]struct {
		play func(s breaker.State) breaker.State
		want bool
	}{
		"five things in a row": {func(s breaker.State) breaker.State {
			for i := range 5 {
				s = cfg.Fail(s, noon.Add(time.Duration(i)*time.Second), "", failure(fmt.Sprint(i)))
			}
			return s
		}, true},
		"one thing a hundred times": {func(s breaker.State) breaker.State {
			for i := range 100 {
				s = cfg.Fail(s, noon.Add(time.Duration(i)*time.Second), "", failure("a bad blob"))
			}
			return s
		}, false},
		"a success in between": {func(s breaker.State) breaker.State {
			for i := range 8 {
				if s = cfg.Fail(s, noon, "", failure(fmt.Sprint(i))); i == 3 {
					s = cfg.Succeed(s, noon, "")
				}
			}
			return s
		}, false},
		"one every three minutes": {func(s breaker.State) breaker.State {
			for i := range 100 {
				s = cfg.Fail(s, noon.Add(time.Duration(i)*3*time.Minute), "", failure(fmt.Sprint(i)))
			}
			return s
		}, false},
	} {
		if got := c.play(fresh); got.Paused() != c.want {
			t.Errorf("%s: %+v, want paused %v", name, got, c.want)
		}
	}
}

func TestOneProbeAtATime(t *testing.T) {
	t.Parallel()
	s := opened(t, 0)
	if _, wait := cfg.Ask(s, noon.Add(cfg.Pause/2), "early"); wait != cfg.Pause/2 {
		t.Errorf("half-way through the pause: wait %v", wait)
	}
	now := noon.Add(cfg.Pause)
	s, wait := cfg.Ask(s, now, "first")
	if wait != 0 || s.Probe != "first" {
		t.Fatalf("after the pause: wait %v, %+v", wait, s)
	}
	if next, wait := cfg.Ask(s, now, "second"); wait <= 0 || next.Probe != "first" {
		t.Errorf("beside a probe: wait %v, %+v", wait, next)
	}
	// One that died is replaced; one that found nothing out gives way at once.
	if next, wait := cfg.Ask(s, now.Add(cfg.ProbeTime), "second"); wait != 0 || next.Probe != "second" {
		t.Errorf("after the probe's time: wait %v, %+v", wait, next)
	}
	if next, wait := cfg.Ask(cfg.Withdraw(s, "first"), now, "second"); wait != 0 || next.Probe != "second" {
		t.Errorf("after the probe withdrew: wait %v, %+v", wait, next)
	}
	if next := cfg.Withdraw(s, "second"); next.Probe != "first" {
		t.Errorf("somebody else's probe was withdrawn: %+v", next)
	}

	// Whoever asked before the pause, or lost his turn, changes nothing.
	for _, who := range []string{"", "second"} {
		if next := cfg.Succeed(s, now, who); !next.Paused() || next.Probe != "first" {
			t.Errorf("a late success of %q: %+v", who, next)
		}
		if next := cfg.Fail(s, now, who, failure("late")); !next.Until.Equal(s.Until) || next.Probe != "first" {
			t.Errorf("a late failure of %q: %+v", who, next)
		}
	}
	if next := cfg.Succeed(s, now, "first"); next.Paused() || !next.Closed.Equal(now) || next.Probe != "" || next.Since.IsZero() {
		t.Errorf("the probe was answered: %+v", next)
	}
}

func TestPausesGrow(t *testing.T) {
	t.Parallel()
	s, now := opened(t, 0), noon
	for _, seconds := range []int{15, 30, 60, 120, 240, 300, 300} {
		want := time.Duration(seconds) * time.Second
		if got := s.Until.Sub(now); got != want {
			t.Fatalf("pause %d lasts %v, want %v", s.Pauses, got, want)
		}
		now = s.Until
		var wait time.Duration
		if s, wait = cfg.Ask(s, now, "p"); wait != 0 {
			t.Fatalf("wait %v after the pause", wait)
		}
		s = cfg.Fail(s, now, "p", failure("again"))
	}
}

func TestRetryAfterIsHonouredWithinBounds(t *testing.T) {
	t.Parallel()
	for asked, want := range map[time.Duration]time.Duration{
		0: cfg.Pause, time.Second: cfg.Pause, 10 * time.Minute: 10 * time.Minute, 300 * time.Hour: cfg.MaxRetryAfter,
	} {
		if got := opened(t, asked).Until.Sub(noon); got != want {
			t.Errorf("asked for %v: paused for %v, want %v", asked, got, want)
		}
	}
	// A clock that is days wrong somewhere pauses nobody for days.
	if _, wait := cfg.Ask(opened(t, 0), noon.Add(-72*time.Hour), "p"); wait > cfg.MaxRetryAfter {
		t.Errorf("wait %v", wait)
	}
}

// A registry that comes and goes is one episode until it has been well for a while.
func TestEpisodes(t *testing.T) {
	t.Parallel()
	s := opened(t, 0)
	s.Told = true
	var now time.Time
	for flap := range 5 {
		now = s.Until
		s, _ = cfg.Ask(s, now, "p")
		s = cfg.Succeed(s, now, "p")
		if next, over := cfg.Age(s, now.Add(cfg.Settle-1)); over || next.Since.IsZero() {
			t.Fatalf("flap %d: the episode is over at once", flap)
		}
		for i := range cfg.Threshold {
			s = cfg.Fail(s, now, "", failure(fmt.Sprint(i)))
		}
		if !s.Paused() || !s.Since.Equal(noon) || !s.Told || s.Pauses != flap+2 {
			t.Fatalf("flap %d: %+v", flap, s)
		}
		if _, over := cfg.Age(s, now.Add(cfg.Settle)); over {
			t.Fatalf("flap %d: over although it is paused", flap)
		}
	}
	now = s.Until
	s, _ = cfg.Ask(s, now, "p")
	s = cfg.Fail(cfg.Succeed(s, now, "p"), now, "", failure("one thing")) // which is no reason
	s, over := cfg.Age(s, now.Add(cfg.Settle))
	if !over || s.Told || s.Pauses != 0 || !s.Since.IsZero() || len(s.Failing) != 1 {
		t.Errorf("after a while: over %v, %+v", over, s)
	}
	if _, over := cfg.Age(s, now.Add(cfg.Settle)); over {
		t.Error("over twice")
	}
}

func TestRegistryThatNobodyAsks(t *testing.T) {
	t.Parallel()
	s := opened(t, 0)
	if next, _ := cfg.Age(s, s.Until.Add(cfg.Forget)); !next.Paused() {
		t.Error("forgotten too early")
	}
	now := s.Until.Add(cfg.Forget + 1)
	s, over := cfg.Age(s, now)
	if s.Paused() || over {
		t.Errorf("after an hour: over %v, %+v", over, s)
	}
	if _, over = cfg.Age(s, now.Add(cfg.Settle)); !over {
		t.Error("its episode never ends")
	}
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	if err := (breaker.Config{}).Validate("breaker."); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	err := breaker.Config{Threshold: -1, Window: -1, Forget: -1}.Validate("breaker.")
	for _, path := range []string{"breaker.threshold", "breaker.window", "breaker.forget"} {
		if err == nil || !strings.Contains(err.Error(), path+": ") {
			t.Errorf("%v does not name %s", err, path)
		}
	}
	if err := (breaker.Config{Pause: time.Hour}).Validate(""); err == nil || !strings.HasPrefix(err.Error(), "maxPause: ") {
		t.Errorf("a first pause that is longer than any may be: %v", err)
	}
}
