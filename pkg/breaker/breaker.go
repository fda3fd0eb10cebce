// Package breaker decides when a registry that fails is left alone, and when it is asked again, for all
// workers together.
//
// A registry is paused when several different things that were asked of it failed one after the other,
// and nothing succeeded in between. While it is, nobody asks; then one probe at a time does, and the
// first that is answered ends the pause. Many different things, because one blob that can not be read
// says little about its registry, and must not hold up what is beside it.
//
// State and its transitions are pure. Gate keeps what the workers share, behind the small interface Store.
package breaker

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Config says when a registry is paused and for how long. The zero value is a sound one.
type Config struct {
	// Threshold is how many different things must have failed in a row (5).
	Threshold int
	// Window is how long a failure counts (2 min): what fails once an hour does not add up.
	Window time.Duration
	// Pause is how long the first pause of an episode lasts (15 s). Each probe that fails doubles it, up
	// to MaxPause (5 min).
	Pause, MaxPause time.Duration
	// MaxRetryAfter bounds the pause that a registry may ask for (1 h).
	MaxRetryAfter time.Duration
	// ProbeTime is how long a probe may take before another one is sent (1 min).
	ProbeTime time.Duration
	// Settle is how long a registry must have been well before that is told (1 min). One that fails again
	// before is in the same episode: it is told of once.
	Settle time.Duration
	// Forget is how long a registry stays paused although nobody wants to ask it any more (1 h).
	Forget time.Duration
}

// WithDefaults fills in what is zero.
func (c Config) WithDefaults() Config {
	if c.Threshold == 0 {
		c.Threshold = 5
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.Window, 2 * time.Minute},
		{&c.Pause, 15 * time.Second},
		{&c.MaxPause, 5 * time.Minute},
		{&c.MaxRetryAfter, time.Hour},
		{&c.ProbeTime, time.Minute},
		{&c.Settle, time.Minute},
		{&c.Forget, time.Hour},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return c
}

// Validate names every field that is wrong, each behind a prefix: "breaker.".
func (c Config) Validate(prefix string) error {
	var errs []error
	if c.Threshold < 0 {
		errs = append(errs, fmt.Errorf("%sthreshold: %d; want a positive number, or 0 for the default", prefix, c.Threshold))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"window", c.Window}, {"pause", c.Pause}, {"maxPause", c.MaxPause}, {"maxRetryAfter", c.MaxRetryAfter},
		{"probeTime", c.ProbeTime}, {"settle", c.Settle}, {"forget", c.Forget},
	} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s%s: %v; want a positive duration, or 0s for the default", prefix, d.name, d.value))
		}
	}
	if full := c.WithDefaults(); len(errs) == 0 && full.MaxPause < full.Pause {
		errs = append(errs, fmt.Errorf("%smaxPause: %v; want at least the first pause, %v", prefix, full.MaxPause, full.Pause))
	}
	return errors.Join(errs...)
}

// State is what all workers know of one registry. Times are by the clocks of different machines: what
// follows from a wrong one is a pause that is as much too long or too short, never longer than
// MaxRetryAfter.
type State struct {
	Host string

	Failing []string  // what failed since the last success, each once, at most Threshold
	Failed  time.Time // when it last did
	Error   string    // and how, for people

	Since  time.Time // begin of the episode; zero when there is none
	Until  time.Time // nobody asks before; zero when it is not paused
	Pauses int       // of the episode
	Closed time.Time // when an answer ended the last pause of the episode
	Told   bool      // SYSTEM knows of the episode

	Probe      string    // who asks while it is paused; "" for nobody
	ProbeUntil time.Time // when another one may
}

// Paused tells whether the registry is.
func (s State) Paused() bool { return !s.Until.IsZero() }

// Ask answers whether a worker may ask the registry now: wait is 0 then, and if the registry is paused,
// the worker named probe is its probe. Otherwise it is how long to wait.
func (c Config) Ask(s State, now time.Time, probe string) (next State, wait time.Duration) {
	switch {
	case !s.Paused():
		return s, 0
	case now.Before(s.Until):
		return s, min(s.Until.Sub(now), c.MaxRetryAfter)
	case s.Probe != "" && now.Before(s.ProbeUntil):
		return s, min(s.ProbeUntil.Sub(now), c.Pause/2)
	}
	s.Probe, s.ProbeUntil = probe, now.Add(c.ProbeTime)
	return s, 0
}

// Failure is a failure that is the registry's: it did not answer, or asked to be left alone.
type Failure struct {
	Of         string        // what was asked for
	Error      string        // for people
	RetryAfter time.Duration // what the registry asked for; 0 when it did not
}

// Fail notes a failure. While the registry is paused only its probe's counts.
func (c Config) Fail(s State, now time.Time, probe string, f Failure) State {
	if s.Paused() {
		if probe == "" || s.Probe != probe {
			return s
		}
		s.Failed, s.Error = now, f.Error
		return c.pause(s, now, f.RetryAfter)
	}
	if now.Sub(s.Failed) > c.Window {
		s.Failing = nil
	}
	s.Failed, s.Error = now, f.Error
	if !slices.Contains(s.Failing, f.Of) {
		s.Failing = append(slices.Clone(s.Failing), f.Of)
	}
	if len(s.Failing) < c.Threshold {
		return s
	}
	if s.Since.IsZero() {
		s.Since = now
	}
	return c.pause(s, now, f.RetryAfter)
}

func (c Config) pause(s State, now time.Time, asked time.Duration) State {
	d := c.Pause
	for range s.Pauses {
		if d *= 2; d >= c.MaxPause {
			d = c.MaxPause
			break
		}
	}
	s.Pauses++
	s.Until = now.Add(max(d, min(asked, c.MaxRetryAfter)))
	s.Closed = time.Time{}
	s.Probe, s.ProbeUntil = "", time.Time{}
	return s
}

// Succeed notes an answer. While the registry is paused only its probe's counts: another one may have
// been asked for long before.
func (c Config) Succeed(s State, now time.Time, probe string) State {
	if !s.Paused() {
		s.Failing = nil
		return s
	}
	if probe == "" || s.Probe != probe {
		return s
	}
	return closed(s, now)
}

// closed ends a pause, not the episode.
func closed(s State, now time.Time) State {
	s.Failing, s.Until, s.Closed = nil, time.Time{}, now
	s.Probe, s.ProbeUntil = "", time.Time{}
	return s
}

// Withdraw gives a probe back that found out nothing.
func (c Config) Withdraw(s State, probe string) State {
	if s.Probe == probe {
		s.Probe, s.ProbeUntil = "", time.Time{}
	}
	return s
}

// Age does what only time does. A registry that has been well for long enough is out of its episode,
// which over tells: s is how it was then. One that nobody asks any more counts as well.
func (c Config) Age(s State, now time.Time) (next State, over bool) {
	if s.Paused() && now.Sub(s.Until) > c.Forget && !now.Before(s.ProbeUntil) {
		s = closed(s, now)
	}
	if s.Since.IsZero() || s.Paused() || now.Sub(s.Closed) < c.Settle {
		return s, false
	}
	return State{Host: s.Host, Failing: s.Failing, Failed: s.Failed, Error: s.Error}, true
}
