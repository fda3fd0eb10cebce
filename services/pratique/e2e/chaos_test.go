package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
	"github.com/pratique-sec/pratique/services/pratique/e2e/processes"
)

const (
	chaosTags    = 60
	chaosActs    = 36 // every 2.25 s on average, and some of them take their time
	chaosAckWait = 5 * time.Second
	calm         = 3 * time.Minute // bounds what is left to do after the last act
)

// replicas of each service under chaos.
var replicas = map[string]int{"ingest": 2, "layercache": 2, "scanner": 4, "psaauditor": 2, "alertrouter": 2}

// TestKillAnything kills processes, nats-server and Redis included, every few seconds while a fleet of
// images is pushed, moved, asked for and deleted, and wants what an undisturbed run gives: no accepted
// event lost, equal reports, equal findings, each revision once, and no analysis more than the kills can
// account for.
//
// CHAOS_SEED decides what happens to whom; it is printed. When the kernel schedules what, it does not.
func TestKillAnything(t *testing.T) {
	seed := chaosSeed(t)
	h := fleet(t, chaosTags).shuffled(rand.New(rand.NewPCG(seed, 0)))
	acts := plan(rand.New(rand.NewPCG(seed, 1)), chaosActs)

	r := newSlowRegistry(t, rand.New(rand.NewPCG(seed, 2)))
	want := undisturbed(t, r, h)

	r.slowest.Store(int64(4 * time.Second)) // kills should find most scanners at work
	in := &inbox{t: t, delay: 300 * time.Millisecond}
	p, s := r.install(t, chaosAckWait, "http://"+serve(t, in))
	to := &teller{apis: s.APIs, requests: map[string]step{}}
	say := since(t)
	c := &chaos{system: s, ackWait: chaosAckWait, say: say, flush: func() error { return s.Flush(t) }}
	g, ctx := errgroup.WithContext(t.Context())
	g.Go(func() error { return c.run(acts) })
	g.Go(func() error { return p.unfold(ctx, h, to, chaosActs*2250*time.Millisecond) })
	if err := g.Wait(); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	say("calm")
	p.calmDown(s)
	say("nothing is left to do")
	p.awaitTold(in)
	say("everything was told")

	p.nothingLost(h, to)
	p.equals(want, h)
	p.consistent()
	analyses := attempts(t, s.Of("scanner"))
	disturbed := analysedOnce(t, analyses, c.disturbances, h.layers(t))
	alerts := len(p.deltas())
	repeats := in.toldOnce(t, alerts, c.disturbances)
	t.Logf("CHAOS_SEED=%d: %d steps, %d services killed; %d layers, %d analyses, of which %d were in flight at a kill or an outage; "+
		"%d deltas, %d posts, of which %d were repeats of a killed sender's",
		seed, len(h), c.kills, len(h.layers(t)), len(analyses), disturbed, alerts, len(in.all()), repeats)
}

// chaosSeed answers the seed, and skips where nobody asked for minutes of chaos.
func chaosSeed(t *testing.T) uint64 {
	t.Helper()
	text := asked("CHAOS_SEED")
	if text == "" && asked("CHAOS") == "" {
		t.Skip("takes minutes: make chaos-short")
	}
	seed := uint64(time.Now().UnixNano()) % 1_000_000
	if text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("CHAOS_SEED: %v", err)
		}
	}
	t.Logf("CHAOS_SEED=%d", seed)
	return seed
}

// asked is what the Makefile, or who calls it, asks of a test.
func asked(variable string) string {
	return os.Getenv(variable) //nolint:forbidigo // a test has no command line of its own
}

// since logs with the time since it was called.
func since(t testing.TB) func(format string, args ...any) {
	start := time.Now()
	return func(format string, args ...any) {
		t.Logf("%6.1f s  %s", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
}

// slowRegistry is a registry that outlives installations, so that the reports of two of them are about the same.
type slowRegistry struct {
	registry *counting
	host     string
	slowest  atomic.Int64 // how long a blob takes at most, a time.Duration
}

// newSlowRegistry makes a registry that can take its time over each blob.
func newSlowRegistry(t testing.TB, r *rand.Rand) *slowRegistry {
	t.Helper()
	s := &slowRegistry{registry: &counting{blobs: map[string]int{}, analysed: map[string]int{}}}
	salt := r.Uint64N(1 << 32)
	inner := silentRegistry()
	s.registry.inner = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if _, digest, ok := strings.Cut(q.URL.Path, "/blobs/sha256:"); ok && q.Method == http.MethodGet && s.slowest.Load() > 0 {
			n, _ := strconv.ParseUint(digest[:8], 16, 32) // 0 is as good
			select {
			case <-time.After(time.Duration((n^salt)<<8) % time.Duration(s.slowest.Load())):
			case <-q.Context().Done():
				return
			}
		}
		inner.ServeHTTP(w, q)
	})
	s.host = serve(t, s.registry)
	return s
}

// install starts a system of processes on the registry, with the usual database.
func (s *slowRegistry) install(t testing.TB, ackWait time.Duration, receiver string) (*pipeline, *processes.System) {
	t.Helper()
	programs, err := processes.Present()
	if err != nil {
		t.Fatal(err)
	}
	return s.installOf(t, processes.Config{Programs: programs, Replicas: replicas, AckWait: ackWait, Receiver: receiver})
}

func (s *slowRegistry) installOf(t testing.TB, cfg processes.Config) (*pipeline, *processes.System) {
	t.Helper()
	cfg.Hosts = []string{s.host}
	system := processes.Start(t, cfg)
	p := &pipeline{t: t, registry: s.registry, host: s.host, log: quiet(t)}
	p.observe(system)
	p.load(usual)
	return p, system
}

// ending is what an installation ends with.
type ending struct {
	reports map[string]string // by digest and platform
	open    map[string]string // by asset
}

// undisturbed has the history happen to an installation of its own that nobody harms.
func undisturbed(t *testing.T, r *slowRegistry, h history) ending {
	t.Helper()
	var all ending
	t.Run("undisturbed", func(t *testing.T) {
		p, s := r.install(t, chaosAckWait, "")
		to := &teller{apis: s.APIs, requests: map[string]step{}}
		// Each image has time to be judged before its tag moves on, so that there is a report on it.
		for _, wave := range h.waves() {
			g, ctx := errgroup.WithContext(t.Context())
			for _, one := range wave {
				g.Go(func() error { return p.happen(ctx, one, to) })
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			p.calmDown(s)
		}
		p.nothingLost(h, to)
		p.consistent()
		all = p.ends(h)
		if n, layers := len(attempts(t, s.Of("scanner"))), len(h.layers(t)); n != layers {
			t.Errorf("%d analyses of %d layers although nobody was killed", n, layers)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return all
}

// unfold has the history happen, spread over some time.
func (p *pipeline) unfold(ctx context.Context, h history, to *teller, over time.Duration) error {
	g, ctx := errgroup.WithContext(ctx)
	before := map[string]chan struct{}{} // closed when the tag's step before this one is accepted
	tick := time.NewTicker(over / time.Duration(len(h)))
	defer tick.Stop()
	for _, s := range h {
		wait, done := before[s.about()], make(chan struct{})
		before[s.about()] = done
		g.Go(func() error {
			defer close(done)
			if wait != nil {
				<-wait
			}
			return p.happen(ctx, s, to)
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return g.Wait()
}

// calmDown waits until every process is ready and nothing is left to do.
func (p *pipeline) calmDown(s *processes.System) {
	p.t.Helper()
	for _, one := range append(slices.Clone(s.Services), s.NATS, s.Redis) {
		one.AwaitReady(p.t)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(calm); !p.idle(); {
		select {
		case <-tick.C:
		case <-late:
			p.t.Fatalf("work is left after %v of calm:\n%s", calm, p.stuck())
		}
	}
}

// awaitTold waits until what was told last is what STATE says.
func (p *pipeline) awaitTold(in *inbox) {
	p.t.Helper()
	want := map[string]bool{}
	for _, s := range p.states() {
		for _, f := range s.Open {
			want[f.ID] = true
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(calm)
	for {
		got := in.firing()
		if maps.Equal(want, got) {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			p.t.Errorf("%d findings are open; by what was told last, %d are", len(want), len(got))
			return
		}
	}
}

// nothingLost wants an outcome of everything that was accepted.
func (p *pipeline) nothingLost(h history, to *teller) {
	p.t.Helper()
	for id, s := range to.requests {
		f, err := p.bus.Fate(p.t.Context(), fate.RequestKey(id))
		if err != nil {
			p.t.Errorf("request %s for %s: %v", id, s.image.Name(), err)
			continue
		}
		failed := slices.ContainsFunc(f.Images, func(i fate.Image) bool { return i.Outcome == report.Failed })
		if f.Stage != fate.Decided || f.Reason != "" || failed {
			p.t.Errorf("request %s for %s: stage %s, reason %s, images %+v", id, s.image.Name(), f.Stage, f.Reason, f.Images)
		}
	}
	judged := map[image.Digest]bool{}
	for _, s := range p.scans() {
		judged[s.Reference.Digest] = true
		if s.Outcome == report.Failed {
			p.t.Errorf("%s failed: %s %s", s.Reference, s.Reason, s.Detail)
		}
	}
	states := p.states()
	for name, last := range h.final() {
		for _, d := range last.digests(p.t) {
			if last.Action == event.Push && !judged[d] {
				p.t.Errorf("%s: the push of %s was accepted, and nobody judged it", name, d)
			}
		}
		if last.cluster != "" {
			p.audited(last.cluster, states)
			continue
		}
		var seen int
		for asset, state := range states {
			if asset.Repository != last.image.Repository {
				continue
			}
			seen++
			if closed := state.Outcome == report.Closed; closed != (last.Action == event.Delete) {
				p.t.Errorf("%s: state is %s after a %s", name, state.Outcome, last.Action)
			}
		}
		if images, err := last.image.Images(); err != nil || seen != len(images) {
			p.t.Errorf("%s: %d states of %d images: %v", name, seen, len(images), err)
		}
	}
	err := p.bus.DeadLetters(p.t.Context(), func(_ uint64, l system.DeadLetter) error {
		p.t.Errorf("a dead letter of sound images: %+v", l)
		return nil
	})
	if err != nil {
		p.t.Error(err)
	}
}

// audited wants the state of each workload after the last set.
func (p *pipeline) audited(cluster string, states map[finding.Asset]finding.State) {
	p.t.Helper()
	seen := map[string]string{}
	for asset, s := range states {
		if asset.Workload.Cluster != cluster {
			continue
		}
		for _, f := range s.Open {
			seen[asset.Workload.Name] += f.PodSecurity.Check + " "
		}
	}
	if len(seen) != 2 || strings.Contains(seen["web"], "hostNamespaces") || !strings.Contains(seen["agent"], "hostNamespaces") {
		p.t.Errorf("%s: the last set that was accepted left %v", cluster, seen)
	}
}

// ends reads what is compared with another run: all but times.
func (p *pipeline) ends(h history) ending {
	p.t.Helper()
	out := ending{reports: map[string]string{}, open: map[string]string{}}
	for _, i := range h.images() {
		for _, d := range digests(p.t, []demodata.Image{i}) {
			found, err := p.bus.Reports(p.t.Context(), d)
			if err != nil {
				continue // equals says which must be there
			}
			for _, r := range found {
				r.Created = time.Time{}
				b, err := wire.ReportJSON(r)
				if err != nil {
					p.t.Fatal(err)
				}
				out.reports[string(d)+" "+r.Image.Platform.String()] = string(b)
			}
		}
	}
	for asset, s := range p.states() {
		open := make([]string, len(s.Open))
		for i, f := range s.Open {
			open[i] = fmt.Sprint(f.ID, " ", f.Vulnerability, " ", f.Severity)
		}
		out.open[fmt.Sprint(asset)] = strings.Join(open, "\n")
	}
	return out
}

// equals compares with an undisturbed run. Images whose tag moved on before a planner asked for it are
// rightly not judged.
func (p *pipeline) equals(want ending, h history) {
	p.t.Helper()
	got := p.ends(h)
	missing := 0
	for key, w := range want.reports {
		g, ok := got.reports[key]
		if !ok {
			missing++
			continue
		}
		if d := gocmp.Diff(strings.Split(w, "\n"), strings.Split(g, "\n")); d != "" {
			p.t.Errorf("report on %s (-undisturbed +here):\n%s", key, d)
		}
	}
	moved, final := 0, h.final()
	for _, i := range h.images() {
		if last := final[i.Name()]; last.image.Image != i.Image || last.image.Index != i.Index {
			moved += len(digests(p.t, []demodata.Image{i}))
		}
	}
	if missing > moved {
		p.t.Errorf("%d reports are missing, and only %d images could be passed over", missing, moved)
	}
	if d := gocmp.Diff(want.open, got.open); d != "" {
		p.t.Errorf("open findings (-undisturbed +here):\n%s", d)
	}
}
