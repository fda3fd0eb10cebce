package breaker

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/pratique-sec/pratique/pkg/key"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/system"
)

// Store keeps the states of registries for all workers; *bus.Bus is one.
type Store interface {
	// UpdateBreaker changes a registry's state, beginning with the zero one of its host, and answers what
	// there is afterwards, with its revision. change is called again when somebody else was faster, and
	// must do nothing but change. Nothing is written when it changed nothing.
	UpdateBreaker(ctx context.Context, host string, change func(*State)) (s State, revision uint64, err error)
	// Breakers calls fn with each.
	Breakers(ctx context.Context, fn func(State) error) error
	// WatchBreakers calls fn with each, and then with each that changes, until ctx ends.
	WatchBreakers(ctx context.Context, fn func(s State, revision uint64)) error
	// PublishSystem tells SYSTEM, once for each notice id.
	PublishSystem(ctx context.Context, n system.Notice) error
}

// noteTimeout bounds what is told to the store after a question has been answered.
const noteTimeout = 5 * time.Second

// Gate is one process's way to registries. A well registry costs it nothing: the store is asked about
// those alone that this process, or another, has seen failing. Safe for concurrent use.
type Gate struct {
	cfg   Config
	store Store
	now   func() time.Time
	log   *slog.Logger

	mu    sync.Mutex
	hosts map[string]*view
}

// view is what this process knows of a registry.
type view struct {
	state    State
	revision uint64
	paused   chan struct{} // closed while the registry is paused
}

// NewGate makes a gate. It sees what other processes see while Run runs.
func NewGate(cfg Config, store Store, now func() time.Time, log *slog.Logger) *Gate {
	return &Gate{cfg: cfg.WithDefaults(), store: store, now: now, log: log, hosts: map[string]*view{}}
}

// Run follows the store until ctx ends.
func (g *Gate) Run(ctx context.Context) error {
	return g.store.WatchBreakers(ctx, func(s State, revision uint64) {
		g.mu.Lock()
		defer g.mu.Unlock()
		// What this process has changed itself is known already, and what it hears of comes later.
		if v := g.view(s.Host); revision >= v.revision {
			v.take(s, revision)
		}
	})
}

// take replaces the state.
func (v *view) take(s State, revision uint64) {
	switch was := v.state.Paused(); {
	case s.Paused() && !was:
		close(v.paused)
	case !s.Paused() && was:
		v.paused = make(chan struct{})
	}
	v.state, v.revision = s, revision
}

func (g *Gate) view(host string) *view {
	v := g.hosts[host]
	if v == nil {
		v = &view{state: State{Host: host}, paused: make(chan struct{})}
		g.hosts[host] = v
	}
	return v
}

func (g *Gate) state(host string) State {
	g.mu.Lock()
	defer g.mu.Unlock()
	if v := g.hosts[host]; v != nil {
		return v.state
	}
	return State{Host: host}
}

// Paused answers a channel that is closed when a registry is paused.
func (g *Gate) Paused(host string) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.view(host).paused
}

// change changes a registry's state for everybody.
func (g *Gate) change(ctx context.Context, host string, change func(*State)) (State, error) {
	s, revision, err := g.store.UpdateBreaker(ctx, host, change)
	if err != nil {
		return s, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.view(host).take(s, revision)
	return s, nil
}

// Enter is called before a registry is asked. Its error is reason.RegistryPaused, to be retried after
// RetryAfter, or the store's. Otherwise done must be called with what came of it; of names what is asked
// for, so that the same thing failing again and again counts once.
func (g *Gate) Enter(ctx context.Context, host, of string) (done func(error), err error) {
	probe := ""
	if s := g.state(host); s.Paused() {
		// First by what is known here: thousands may wait, and none of them should ask the store.
		if _, wait := g.cfg.Ask(s, g.now(), ""); wait > 0 {
			return nil, g.paused(s, wait)
		}
		name := rand.Text()
		var wait time.Duration
		s, err := g.change(ctx, host, func(s *State) { *s, wait = g.cfg.Ask(*s, g.now(), name) })
		switch {
		case err != nil:
			return nil, fmt.Errorf("ask whether registry %s is paused: %w", host, err)
		case wait > 0:
			return nil, g.paused(s, wait)
		case s.Probe == name:
			probe = name
		}
	}
	return func(err error) { g.left(ctx, host, of, probe, err) }, nil
}

// PausedError is what Enter would answer now; nil when the registry is not paused.
func (g *Gate) PausedError(host string) error {
	s := g.state(host)
	if !s.Paused() {
		return nil
	}
	_, wait := g.cfg.Ask(s, g.now(), "")
	return g.paused(s, wait)
}

// paused tells to come back later, not all at once.
func (g *Gate) paused(s State, wait time.Duration) error {
	err := reason.Retryf(reason.RegistryPaused, "registry %s is paused since %s, and is asked again after %s: %s",
		s.Host, s.Since.UTC().Format(time.RFC3339), s.Until.UTC().Format(time.RFC3339), s.Error)
	err.RetryAfter = wait + mathrand.N(wait/4+g.cfg.Pause/4+1)
	return err
}

// verdict is what an answer says about the registry.
type verdict int

const (
	nothing verdict = iota
	well
	unwell
)

func judge(ctx context.Context, err error) verdict {
	if err == nil {
		return well
	}
	if ctx.Err() != nil {
		return nothing // we hung up
	}
	switch e := reason.Of(err); e.Code {
	case reason.Unreachable, reason.RateLimited:
		if e.Answered {
			return well
		}
		return unwell
	case reason.NotFound, reason.BlobMissing, reason.DigestMismatch, reason.SizeMismatch:
		return well // an answer, if not the one that was hoped for
	case reason.Denied:
		if e.Kind == reason.Refuse { // else it is our own credentials that could not be read
			return well
		}
	}
	return nothing // it was not asked
}

// left notes what came of a question. It outlives the question's context, and is worth no failure.
func (g *Gate) left(ctx context.Context, host, of, probe string, err error) {
	v := judge(ctx, err)
	s := g.state(host)
	switch {
	case probe != "":
	case v == unwell && !s.Paused():
	case v == well && !s.Paused() && len(s.Failing) > 0:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	s, cerr := g.change(ctx, host, func(s *State) {
		switch v {
		case well:
			*s = g.cfg.Succeed(*s, g.now(), probe)
		case unwell:
			*s = g.cfg.Fail(*s, g.now(), probe, Failure{Of: of, Error: clip(err.Error()), RetryAfter: reason.Of(err).RetryAfter})
		case nothing:
			*s = g.cfg.Withdraw(*s, probe)
		}
	})
	if cerr == nil && s.Paused() && !s.Told {
		cerr = g.tell(ctx, s)
	}
	if cerr != nil {
		g.log.WarnContext(ctx, "note state of registry failed", slog.String("registry", host), slog.Any("error", cerr))
	}
}

// Sweep tells SYSTEM what nobody has told yet, and of registries that have been well again for long
// enough. Somebody must call it now and then; two who do at once say nothing twice.
func (g *Gate) Sweep(ctx context.Context) error {
	return g.store.Breakers(ctx, func(s State) error {
		if !s.Since.IsZero() && !s.Told {
			if err := g.tell(ctx, s); err != nil {
				return err
			}
			s.Told = true
		}
		if next, over := g.cfg.Age(s, g.now()); over {
			// Before it is forgotten: who dies in between tells it again.
			if err := g.store.PublishSystem(ctx, g.resumedNotice(s)); err != nil {
				return fmt.Errorf("tell of registry %s: %w", s.Host, err)
			}
		} else if next.Paused() == s.Paused() {
			return nil
		}
		_, err := g.change(ctx, s.Host, func(s *State) { *s, _ = g.cfg.Age(*s, g.now()) })
		return err
	})
}

// tell tells that a registry is paused, and remembers that.
func (g *Gate) tell(ctx context.Context, s State) error {
	if err := g.store.PublishSystem(ctx, g.pausedNotice(s)); err != nil {
		return fmt.Errorf("tell of registry %s: %w", s.Host, err)
	}
	since := s.Since
	_, err := g.change(ctx, s.Host, func(s *State) { s.Told = s.Told || s.Since.Equal(since) })
	return err
}

func (g *Gate) pausedNotice(s State) system.Notice {
	return notice(system.RegistryPaused, s, g.now(), fmt.Sprintf(
		"registry %s failed, and is left alone until it answers again; its images wait, those of other registries do not: %s", s.Host, s.Error))
}

func (g *Gate) resumedNotice(s State) system.Notice {
	return notice(system.RegistryResumed, s, g.now(), fmt.Sprintf(
		"registry %s is asked again; it had failed at %s", s.Host, s.Since.UTC().Format(time.RFC3339)))
}

// notice has one id for all of an episode.
func notice(k system.Kind, s State, now time.Time, message string) system.Notice {
	return system.Notice{
		ID:   key.Of("notice."+string(k)+".v1", s.Host, s.Since.UTC().Format(time.RFC3339Nano)),
		Kind: k, Subject: s.Host, Message: message, At: now.UTC(),
	}
}

// clip bounds what is kept of an error's text.
func clip(s string) string {
	const most = 500
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
