package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/pratique/e2e/processes"
)

const (
	upgrades    = 20
	upgradeTags = 60
	// upgradeDrain leaves a handler one second to finish in: what takes longer is handed back.
	upgradeDrain = 6 * time.Second
)

// TestRollingUpgrade replaces the programs of an earlier commit by the present ones, one replica of each
// service at a time, and the present ones by the earlier ones, twenty times under load. Nothing is lost,
// nothing refused, nothing fails, and no stream or consumer that the present ones made is undone.
//
// A layer that takes longer than any drain is handed back each time, and its image does not fail of it.
//
// UPGRADE_FROM names the commit; HEAD~1, or the nearest before it that can be built.
func TestRollingUpgrade(t *testing.T) {
	if asked("UPGRADE") == "" && asked("UPGRADE_FROM") == "" {
		t.Skip("takes minutes: make upgrade")
	}
	present, err := processes.Present()
	if err != nil {
		t.Fatal(err)
	}
	earlier, commit := earlierPrograms(t)
	h := fleet(t, upgradeTags).shuffled(rand.New(rand.NewPCG(1, 1)))

	r := newSlowRegistry(t, rand.New(rand.NewPCG(1, 2)))
	endless := step{Action: event.Push, image: h.images()[0]}
	endless.image.Repository, endless.image.Index = "endless/app", nil
	held := layerOf(t, "srv/endless", "takes longer than any drain")
	endless.image.Image = imageOf(t, held)
	d, err := held.Digest()
	if err != nil {
		t.Fatal(err)
	}
	release := r.hold(d.String())

	p, s := r.installOf(t, processes.Config{
		Programs: earlier, Drain: upgradeDrain, Replicas: map[string]int{"ingest": 2, "layercache": 2, "scanner": 2, "psaauditor": 2, "alertrouter": 2},
	})
	r.slowest.Store(int64(500 * time.Millisecond))
	to := &teller{apis: s.APIs, requests: map[string]step{}, ready: ready(s)}
	if err := p.happen(t.Context(), endless, to); err != nil {
		t.Fatal(err)
	}
	var made map[string]string // streams and consumers, as the present programs made them
	first := p.layout()
	say := since(t)
	for n := range upgrades {
		with := present
		if n%2 == 1 {
			with = earlier
		}
		g, ctx := errgroup.WithContext(t.Context())
		g.Go(func() error { return p.unfold(ctx, h[len(h)*n/upgrades:len(h)*(n+1)/upgrades], to, time.Second) })
		g.Go(func() error { return roll(ctx, s, with) })
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		switch now := p.layout(); {
		case made == nil:
			made = now
			say("%s replaced: %d of %d streams and consumers are new or changed", commit[:12], changed(first, made), len(made))
		case gocmp.Diff(made, now) != "":
			t.Errorf("upgrade %d undid what the present programs made (-made +now):\n%s", n+1, gocmp.Diff(made, now))
		}
	}
	say("%d upgrades are done", upgrades)
	release()
	p.calmDown(s)
	h = append(h, endless)
	p.nothingLost(h, to)
	p.consistent()
	if len(to.refused) > 0 {
		t.Errorf("refused: %q", to.refused)
	}
	for _, scan := range p.scans() {
		if scan.Outcome == report.Failed {
			t.Errorf("%s failed: %s", scan.Reference, scan.Detail)
		}
	}
	handed := 0
	for _, a := range attempts(t, s.Of("scanner")) {
		if a.blob == d.String() {
			handed++
		}
	}
	if handed <= upgrades/2 {
		t.Errorf("the endless layer was begun %d times in %d upgrades: it was not handed back by each", handed, upgrades)
	}
}

// earlierPrograms builds those to upgrade from.
func earlierPrograms(t *testing.T) (processes.Programs, string) {
	t.Helper()
	if named := asked("UPGRADE_FROM"); named != "" {
		programs, commit, err := processes.Before(t.Context(), named)
		if err != nil {
			t.Fatal(err)
		}
		return programs, commit
	}
	var last error
	for n := 1; n <= 5; n++ {
		programs, commit, err := processes.Before(t.Context(), fmt.Sprintf("HEAD~%d", n))
		if err == nil {
			return programs, commit
		}
		last = err
	}
	t.Skipf("none of the last commits has programs that can be built; name one in UPGRADE_FROM: %v", last)
	return "", ""
}

// roll replaces one replica of each service at a time, as a Deployment does: told to stop, ended, the next
// one ready.
func roll(ctx context.Context, s *processes.System, with processes.Programs) error {
	for replica := range 2 {
		g, _ := errgroup.WithContext(ctx)
		for _, p := range s.Services {
			if !strings.HasSuffix(p.Name, fmt.Sprintf("-%d", replica)) {
				continue
			}
			g.Go(func() error {
				code, err := p.Stop(upgradeDrain + 10*time.Second)
				if err != nil || code != 0 {
					return fmt.Errorf("%s ended with %d: %w\n%s", p.Name, code, err, p.Tail(5))
				}
				p.Replace(with)
				if err := p.Start(); err != nil {
					return err
				}
				return p.WaitReady(ctx)
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// ready tells which replicas of ingest a load balancer would send to.
func ready(s *processes.System) func(api string) bool {
	replicas := s.Of("ingest")
	return func(api string) bool { return replicas[slices.Index(s.APIs, api)].Ready() == nil }
}

// layout is the configuration of every stream and consumer.
func (p *pipeline) layout() map[string]string {
	p.t.Helper()
	all := map[string]string{}
	streams := p.js.ListStreams(p.t.Context())
	for info := range streams.Info() {
		all[info.Config.Name] = text(p.t, info.Config)
		s, err := p.js.Stream(p.t.Context(), info.Config.Name)
		if err != nil {
			p.t.Fatal(err)
		}
		consumers := s.ListConsumers(p.t.Context())
		for c := range consumers.Info() {
			if c.Config.Durable != "" { // others are watches, which come and go
				all[info.Config.Name+" "+c.Config.Durable] = text(p.t, c.Config)
			}
		}
		if err := consumers.Err(); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := streams.Err(); err != nil {
		p.t.Fatal(err)
	}
	return all
}

func text(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func changed(from, to map[string]string) int {
	n := 0
	for name, config := range to {
		if from[name] != config {
			n++
		}
	}
	return n
}

// hold keeps a blob from being answered until it is released.
func (s *slowRegistry) hold(digest string) (release func()) {
	inner, released := s.registry.inner, make(chan struct{})
	s.registry.inner = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodGet && strings.HasSuffix(q.URL.Path, "/blobs/"+digest) {
			select {
			case <-released:
			case <-q.Context().Done():
				return
			}
		}
		inner.ServeHTTP(w, q)
	})
	return func() { close(released) }
}
