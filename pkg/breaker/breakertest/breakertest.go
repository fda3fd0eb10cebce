// Package breakertest holds what every breaker.Store must do, and the simplest one that does.
package breakertest

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/system"
)

// patience is how long a test waits for what must happen, on a busy machine.
const patience = 30 * time.Second

// Contract is what a store must do.
func Contract(t *testing.T, s breaker.Store) {
	t.Helper()
	ctx := t.Context()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	const host = "registry.example:5000"
	update := func(host string, change func(*breaker.State)) (breaker.State, uint64) {
		t.Helper()
		got, revision, err := s.UpdateBreaker(ctx, host, change)
		if err != nil {
			t.Fatalf("update %s: %v", host, err)
		}
		return got, revision
	}

	got, revision := update(host, func(s *breaker.State) {
		if want := (breaker.State{Host: host}); !reflect.DeepEqual(*s, want) {
			t.Errorf("begins with %+v, want %+v", *s, want)
		}
	})
	if got.Host != host || revision > 1 {
		t.Errorf("nothing changed: %+v at %d", got, revision)
	}
	all := breaker.State{
		Host: host, Failing: []string{"a", "b"}, Failed: at, Error: "503", Since: at, Until: at.Add(time.Second),
		Pauses: 3, Closed: at.Add(time.Minute), Told: true, Probe: "p", ProbeUntil: at.Add(time.Hour),
	}
	got, first := update(host, func(s *breaker.State) { *s = all })
	if !reflect.DeepEqual(got, all) {
		t.Errorf("answered %+v, want %+v", got, all)
	}
	got, second := update(host, func(s *breaker.State) { s.Pauses++ })
	if got.Pauses != all.Pauses+1 || second <= first {
		t.Errorf("changed: %+v at %d, after %d", got, second, first)
	}
	if _, third := update(host, func(*breaker.State) {}); third != second {
		t.Errorf("nothing changed, and yet it was written at %d, after %d", third, second)
	}
	update("other.example", func(s *breaker.State) { s.Error = "away" })

	// Whoever was slower reads again.
	const writers = 8
	var running sync.WaitGroup
	for range writers {
		running.Go(func() { update(host, func(s *breaker.State) { s.Pauses++ }) })
	}
	running.Wait()

	seen := map[string]int{}
	err := s.Breakers(ctx, func(s breaker.State) error {
		seen[s.Host] = s.Pauses
		return nil
	})
	if want := map[string]int{host: all.Pauses + 1 + writers, "other.example": 0}; err != nil || !maps.Equal(seen, want) {
		t.Errorf("all: %v (%v), want %v", seen, err, want)
	}

	watched, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var pauses []int
	highest := uint64(0)
	err = s.WatchBreakers(watched, func(s breaker.State, revision uint64) {
		if revision <= highest {
			t.Errorf("revision %d after %d", revision, highest)
		}
		highest = revision
		if s.Host != host {
			return
		}
		pauses = append(pauses, s.Pauses)
		switch len(pauses) {
		case 1:
			update(host, func(s *breaker.State) { s.Pauses = 100 })
		case 2:
			cancel()
		}
	})
	if err != nil || !slices.Equal(pauses, []int{all.Pauses + 1 + writers, 100}) {
		t.Errorf("watched %v (%v)", pauses, err)
	}

	n := system.Notice{ID: "1", Kind: system.RegistryPaused, Subject: host, Message: "paused", At: at}
	for range 2 {
		if err := s.PublishSystem(ctx, n); err != nil {
			t.Errorf("tell: %v", err)
		}
	}
}

// Memory is a store in this process. The zero value is empty.
type Memory struct {
	mu       sync.Mutex
	states   map[string]breaker.State
	at       map[string]uint64
	revision uint64
	watchers []chan breaker.State
	notices  []system.Notice
	updates  int
}

// UpdateBreaker implements breaker.Store.
func (m *Memory) UpdateBreaker(_ context.Context, host string, change func(*breaker.State)) (breaker.State, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.updates++
	s, ok := m.states[host]
	if !ok {
		s = breaker.State{Host: host}
	}
	before := s
	before.Failing = slices.Clone(s.Failing)
	change(&s)
	if reflect.DeepEqual(before, s) {
		return s, m.at[host], nil
	}
	if m.states == nil {
		m.states, m.at = map[string]breaker.State{}, map[string]uint64{}
	}
	m.revision++
	m.states[host], m.at[host] = s, m.revision
	for _, w := range m.watchers {
		select {
		case w <- s:
		default: // it has one to look at
		}
	}
	return s, m.revision, nil
}

// Breakers implements breaker.Store.
func (m *Memory) Breakers(_ context.Context, fn func(breaker.State) error) error {
	m.mu.Lock()
	all := maps.Clone(m.states)
	m.mu.Unlock()
	for _, host := range slices.Sorted(maps.Keys(all)) {
		if err := fn(all[host]); err != nil {
			return err
		}
	}
	return nil
}

// WatchBreakers implements breaker.Store.
func (m *Memory) WatchBreakers(ctx context.Context, fn func(breaker.State, uint64)) error {
	wake := make(chan breaker.State, 1)
	m.mu.Lock()
	m.watchers = append(m.watchers, wake)
	m.mu.Unlock()
	for after := uint64(0); ctx.Err() == nil; {
		m.mu.Lock()
		type change struct {
			state    breaker.State
			revision uint64
		}
		var news []change
		for host, revision := range m.at {
			if revision > after {
				news = append(news, change{m.states[host], revision})
			}
		}
		m.mu.Unlock()
		slices.SortFunc(news, func(a, b change) int { return int(a.revision) - int(b.revision) })
		for _, n := range news {
			fn(n.state, n.revision)
			after = n.revision
		}
		if len(news) > 0 {
			continue
		}
		select {
		case <-wake:
		case <-ctx.Done():
		}
	}
	return nil
}

// PublishSystem implements breaker.Store.
func (m *Memory) PublishSystem(_ context.Context, n system.Notice) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.ContainsFunc(m.notices, func(o system.Notice) bool { return o.ID == n.ID }) {
		m.notices = append(m.notices, n)
	}
	return nil
}

// Notices are what was told so far.
func (m *Memory) Notices() []system.Notice {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.notices)
}

// Updates is how often UpdateBreaker was called.
func (m *Memory) Updates() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.updates
}
