package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/access/accesstest"
	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/services/ingest"
	"github.com/pratique-sec/pratique/services/layercache"
	"github.com/pratique-sec/pratique/services/pratique/allinone"
	"github.com/pratique-sec/pratique/services/pratique/demo"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
	"github.com/pratique-sec/pratique/services/scanner"
	"github.com/pratique-sec/pratique/services/scanner/advisory/build"
	"github.com/pratique-sec/pratique/services/scanner/engine"
)

// soon bounds every wait for something that must happen, on a busy machine.
const soon = 40 * time.Second

// clock is when everything happens: reports of two runs are then equal to the last byte.
var clock = demodata.Built.Add(24 * time.Hour)

func now() time.Time { return clock }

// options of a pipeline. The zero value is one service of each kind, facts on the bus, the demo's
// advisories and a registry that notifies.
type options struct {
	planners, scanners int // -1: none
	facts              func(t testing.TB, b *bus.Bus) facts.Store
	fault              func(role string) bus.Fault // asked for at each start of a service
	noDatabase         bool
	silent             bool // the registry notifies nobody: the test does, with notify
	tracer             trace.TracerProvider
	database           string           // folder of the database, the demo's when empty
	hosts              []string         // registries that may be asked beside the pipeline's own
	now                func() time.Time // of all services; nil: it stands still
	breaker            breaker.Config
	giveUp             time.Duration                           // 0: a day
	analyzer           func(scanner.Analyzer) scanner.Analyzer // around that of each scanner
}

// pipeline is a whole installation. Each service has a connection and a bus of its own, as a process
// would, with its own credentials, which must be enough, and is started again when it dies.
type pipeline struct {
	t        testing.TB
	opts     options
	server   *accesstest.Server
	users    map[string][]nats.Option // of each service
	bus      *bus.Bus                 // the test's own, an administrator's
	js       jetstream.JetStream
	engine   *engine.Engine
	registry *counting
	host     string // of the registry
	api      string // ingest's address
	metrics  metrics
	log      *slog.Logger
	stop     context.CancelFunc
	running  sync.WaitGroup
}

func start(t testing.TB, o options) *pipeline {
	t.Helper()
	if o.now == nil {
		o.now = now
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &pipeline{
		t: t, opts: o, server: accesstest.Start(t),
		log: slog.New(slog.NewTextHandler(&testWriter{t: t}, &slog.HandlerOptions{Level: slog.LevelError})), stop: cancel,
	}
	p.users = map[string][]nats.Option{
		"ingest":     p.server.Options(t, access.Ingest),
		"layercache": p.server.Options(t, access.LayerCache),
		"scanner":    p.server.Options(t, access.Scanner),
	}
	nc := p.server.Connect(t, access.Admin)
	p.bus = bustest.On(t, nc, bus.Config{}, bus.Options{})
	var err error
	if p.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	p.engine, err = engine.New(engine.Config{Dir: t.TempDir(), TempDir: t.TempDir(), Version: "test", Logger: p.log, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	p.api = freeAddress(t)
	p.registry = &counting{blobs: map[string]int{}, analysed: map[string]int{}}
	if o.silent {
		p.registry.inner = ggcr.New(ggcr.Logger(stdlog.New(io.Discard, "", 0)))
	} else {
		p.registry.inner = demo.NewRegistry(demo.RegistryConfig{
			Notify: "http://" + p.api + "/v1/events/distribution", Logger: p.log, Now: now,
		})
	}
	srv := httptest.NewServer(p.registry)
	t.Cleanup(srv.Close)
	p.host = strings.TrimPrefix(srv.URL, "http://")
	if !o.noDatabase {
		p.load(cmp.Or(o.database, usual))
	}
	t.Cleanup(func() {
		cancel()
		p.running.Wait()
		if err := p.engine.Close(); err != nil {
			t.Error(err)
		}
		for _, v := range p.server.Violations() {
			t.Error("a service needs what its credentials do not allow: " + v)
		}
	})
	p.run(ctx, "ingest", p.ingest)
	for i := range max(o.planners, 1) {
		p.run(ctx, fmt.Sprintf("layercache-%d", i), p.layercache)
	}
	for i := range max(cmp.Or(o.scanners, 1), 0) {
		p.run(ctx, fmt.Sprintf("scanner-%d", i), p.scanner)
	}
	return p
}

// busConfig is every service's: nobody waits for long.
func (p *pipeline) busConfig() bus.Config {
	return bus.Config{AckWait: time.Second, Poll: 20 * time.Millisecond, Backoff: 20 * time.Millisecond, Lease: time.Second, MaxBytes: 256 << 20}
}

// runner is a service.
type runner interface {
	Run(ctx context.Context) error
}

// builder makes a service on its own bus, with its own metrics.
type builder func(b *bus.Bus, r prometheus.Registerer) (runner, error)

// run keeps one service alive: a fault kills it, and it is started again as a new process.
func (p *pipeline) run(ctx context.Context, role string, build builder) {
	p.running.Add(1)
	go func() {
		defer p.running.Done()
		for ctx.Err() == nil {
			if err := p.live(ctx, role, build); err != nil && ctx.Err() == nil {
				p.log.InfoContext(ctx, "service ended", "role", role, "error", err)
			}
		}
	}()
}

// live is one life of a service.
func (p *pipeline) live(ctx context.Context, role string, build builder) error {
	ctx, die := context.WithCancel(ctx)
	defer die()
	service, _, _ := strings.Cut(role, "-")
	var fault bus.Fault
	if p.opts.fault != nil {
		inject := p.opts.fault(service)
		fault = func(op string, phase bus.Phase) error {
			err := inject(op, phase)
			if err != nil {
				die()
			}
			return err
		}
	}
	nc, err := nats.Connect("", p.users[service]...)
	if err != nil {
		return err
	}
	defer nc.Close()
	reg := p.metrics.add()
	b, err := bus.New(nc, p.busConfig(), bus.Options{Logger: p.log, Now: p.opts.now, Fault: fault, Registerer: reg, Tracer: p.opts.tracer})
	if err != nil {
		return err
	}
	s, err := build(b, reg)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

func (p *pipeline) ingest(b *bus.Bus, r prometheus.Registerer) (runner, error) {
	return ingest.New(ingest.Config{Listen: p.api, Drain: time.Second},
		ingest.Deps{Bus: b, Logger: p.log, Registerer: r, Now: now, Tracer: p.opts.tracer})
}

func (p *pipeline) layercache(b *bus.Bus, r prometheus.Registerer) (runner, error) {
	return layercache.New(
		layercache.Config{Platforms: []image.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}, Recheck: 200 * time.Millisecond, GiveUp: p.opts.giveUp, Breaker: p.opts.breaker},
		layercache.Deps{Bus: b, Registry: p.client(), Facts: p.factsOn(b), Logger: p.log, Registerer: r, Now: p.opts.now, Tracer: p.opts.tracer, Version: "test"})
}

func (p *pipeline) scanner(b *bus.Bus, r prometheus.Registerer) (runner, error) {
	var a scanner.Analyzer = analyses{p.engine, p.registry}
	if p.opts.analyzer != nil {
		a = p.opts.analyzer(a)
	}
	return p.scannerWith(a, b, r)
}

func (p *pipeline) scannerWith(a scanner.Analyzer, b *bus.Bus, r prometheus.Registerer) (*scanner.Service, error) {
	return scanner.New(scanner.Config{GiveUp: p.opts.giveUp, Breaker: p.opts.breaker, ForeignRetry: 100 * time.Millisecond}, scanner.Deps{
		Bus: b, Registry: p.client(), Facts: p.factsOn(b),
		Analyzer: a, Matcher: p.engine, Databases: p.engine, Engine: p.engine.Versions(),
		Logger: p.log, Registerer: r, Now: p.opts.now,
	})
}

// metrics are the registries of all services that were ever started.
type metrics struct {
	mu   sync.Mutex
	each []*prometheus.Registry
}

func (m *metrics) add() *prometheus.Registry {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := prometheus.NewRegistry()
	m.each = append(m.each, r)
	return r
}

func (p *pipeline) client() *registry.Client {
	hosts := map[string]registry.Host{p.host: {Plain: true}}
	for _, h := range p.opts.hosts {
		hosts[h] = registry.Host{Plain: true}
	}
	c, err := registry.New(registry.Config{Hosts: hosts}, registry.Options{})
	if err != nil {
		panic(err) // the configuration is above
	}
	return c
}

func (p *pipeline) factsOn(b *bus.Bus) facts.Store {
	if p.opts.facts != nil {
		return p.opts.facts(p.t, b)
	}
	return busfacts.New(b)
}

// load makes a database the current one.
func (p *pipeline) load(dir string) vulndb.Pointer {
	p.t.Helper()
	ptr, err := allinone.LoadDatabase(p.t.Context(), p.bus, vulndb.Vulnerabilities, dir, p.t.TempDir())
	if err != nil {
		p.t.Fatal(err)
	}
	return ptr
}

// usual is the folder of the demo's database, made once: two that are built of the same rows differ in bytes.
var usual string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "pratique-e2e-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := buildDatabase(context.Background(), dir, func(string) bool { return true }); err != nil {
			panic(err)
		}
		usual = dir
		return m.Run()
	}())
}

// demoDatabase builds a Trivy database of those of the demo's advisories that keep chooses.
func demoDatabase(t testing.TB, keep func(line string) bool) string {
	t.Helper()
	dir := t.TempDir()
	if err := buildDatabase(t.Context(), dir, keep); err != nil {
		t.Fatal(err)
	}
	return dir
}

func buildDatabase(ctx context.Context, dir string, keep func(line string) bool, more ...string) error {
	rows := map[string]string{}
	for _, name := range []string{"adv.jsonl", "vuln.jsonl"} {
		b, err := fs.ReadFile(demodata.Advisories(), name)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if name != "adv.jsonl" || keep(line) {
				rows[name] += line
			}
		}
	}
	for _, line := range more {
		rows["adv.jsonl"] += line + "\n"
	}
	meta := build.Meta{UpdatedAt: demodata.Built, NextUpdate: demodata.Built.AddDate(10, 0, 0)}
	return build.Build(ctx, dir, strings.NewReader(rows["adv.jsonl"]), strings.NewReader(rows["vuln.jsonl"]), meta)
}

// push pushes images; the registry answers when ingest has taken the notification.
func (p *pipeline) push(images ...demodata.Image) {
	p.t.Helper()
	if err := demo.Push(p.t.Context(), p.host, images, nil); err != nil {
		p.t.Fatal(err)
	}
}

// delete deletes a tag's manifest in the registry, which notifies.
func (p *pipeline) delete(reference string) {
	p.t.Helper()
	ref, err := name.ParseReference(p.host+"/"+reference, name.Insecure)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := remote.Delete(ref, remote.WithContext(p.t.Context())); err != nil {
		p.t.Fatal(err)
	}
}

// settle waits until nothing is left to do: no event, no job.
func (p *pipeline) settle() {
	p.t.Helper()
	p.until("the pipeline is idle", func() bool { return p.idle() })
}

func (p *pipeline) idle() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// Events first: one that is acknowledged has its job stored. The consumers' pending counts are of no
	// use here, since they follow a moment after the publish.
	events, err := p.js.Stream(ctx, "EVENTS")
	if err != nil {
		return false
	}
	for kind, consumer := range map[string]string{"image": "layercache", "manifest": "psaauditor"} {
		last, err := events.GetLastMsgForSubject(ctx, "pratique.event."+kind+".>")
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		taken, cerr := events.Consumer(ctx, consumer)
		if err != nil || cerr != nil || taken.CachedInfo().AckFloor.Stream < last.Sequence {
			return false
		}
	}
	s, err := p.js.Stream(ctx, "WORK")
	return err == nil && s.CachedInfo().State.Msgs == 0
}

func (p *pipeline) until(what string, ok func() bool) {
	p.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(soon)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			p.t.Fatalf("not within %v: %s\n%s", soon, what, p.stuck())
		}
	}
}

// stuck tells what is left, for the failure's message.
func (p *pipeline) stuck() string {
	var out strings.Builder
	queues, err := p.bus.Backlog(context.Background())
	fmt.Fprintln(&out, "backlog:", err)
	for _, q := range queues {
		if q.Pending > 0 || q.InFlight > 0 {
			fmt.Fprintf(&out, "  %s %s %s: %d pending, %d in flight\n", q.Kind, q.Lane, q.Class, q.Pending, q.InFlight)
		}
	}
	return out.String()
}

// reports are all current reports, by digest and platform.
func (p *pipeline) reports(images ...demodata.Image) map[string]*report.Report {
	p.t.Helper()
	out := map[string]*report.Report{}
	for _, d := range digests(p.t, images) {
		found, err := p.bus.Reports(p.t.Context(), d)
		if err != nil {
			p.t.Fatalf("reports of %s: %v", d, err)
		}
		for _, r := range found {
			out[string(d)+" "+r.Image.Platform.String()] = r
		}
	}
	return out
}

// digests of all platform images.
func digests(t testing.TB, images []demodata.Image) []image.Digest {
	t.Helper()
	var out []image.Digest
	for _, i := range images {
		if i.Artifact {
			continue
		}
		if i.Index == nil {
			d, err := i.Image.Digest()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, image.Digest(d.String()))
			continue
		}
		m, err := i.Index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range m.Manifests {
			out = append(out, image.Digest(d.Digest.String()))
		}
	}
	return out
}

// deltas are all of FINDINGS, in order.
func (p *pipeline) deltas() []finding.Delta {
	p.t.Helper()
	s, err := p.js.Stream(p.t.Context(), "FINDINGS")
	if err != nil {
		p.t.Fatal(err)
	}
	held := s.CachedInfo().State
	if held.Msgs == 0 {
		return nil
	}
	var out []finding.Delta
	ctx, done := context.WithTimeout(p.t.Context(), soon)
	defer done()
	err = p.bus.WatchDeltas(ctx, held.FirstSeq, func(seq uint64, d finding.Delta) error {
		out = append(out, d)
		if seq >= held.LastSeq {
			done()
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// scans are all of SCANS, in order.
func (p *pipeline) scans() []finding.Scan {
	p.t.Helper()
	s, err := p.js.Stream(p.t.Context(), "SCANS")
	if err != nil {
		p.t.Fatal(err)
	}
	held := s.CachedInfo().State
	if held.Msgs == 0 {
		return nil
	}
	var out []finding.Scan
	ctx, done := context.WithTimeout(p.t.Context(), soon)
	defer done()
	err = p.bus.WatchScans(ctx, held.FirstSeq, func(seq uint64, s finding.Scan) error {
		out = append(out, s)
		if seq >= held.LastSeq {
			done()
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p *pipeline) states() map[finding.Asset]finding.State {
	p.t.Helper()
	out := map[finding.Asset]finding.State{}
	err := p.bus.States(p.t.Context(), func(s finding.State) error {
		out[s.Asset] = s
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// consistent checks the subscribers' contract: each (finding, revision) once, no gap, nothing pending, and
// the fold of FINDINGS is STATE. Of repositories, when any are named.
func (p *pipeline) consistent(repositories ...string) {
	p.t.Helper()
	other := func(a finding.Asset) bool {
		return len(repositories) > 0 && !slices.Contains(repositories, a.Repository)
	}
	type revision struct {
		finding string
		number  uint64
	}
	seen := map[revision]bool{}
	folded := map[finding.Asset]*finding.State{}
	for _, d := range p.deltas() {
		if other(d.Asset) {
			continue
		}
		at := revision{d.Finding.ID, d.Finding.Revision}
		if seen[at] {
			p.t.Errorf("%s revision %d is in FINDINGS twice", d.Finding.ID, d.Finding.Revision)
		}
		seen[at] = true
		if at.number > 1 && !seen[revision{at.finding, at.number - 1}] {
			p.t.Errorf("%s revision %d comes without the one before", d.Finding.ID, d.Finding.Revision)
		}
		s := folded[d.Asset]
		if s == nil {
			s = &finding.State{Asset: d.Asset}
			folded[d.Asset] = s
		}
		if err := finding.Fold(s, d); err != nil {
			p.t.Errorf("fold: %v", err)
		}
	}
	for asset, s := range p.states() {
		if other(asset) {
			continue
		}
		if len(s.Pending) > 0 {
			p.t.Errorf("%v: %d deltas are still pending", asset, len(s.Pending))
		}
		var open []finding.Finding
		if f := folded[asset]; f != nil {
			open = f.Open
		}
		if got, want := revisions(open), revisions(s.Open); got != want {
			p.t.Errorf("%v: the fold of FINDINGS is not STATE:\n%s\nwant\n%s", asset, got, want)
		}
	}
}

func revisions(open []finding.Finding) string {
	var out strings.Builder
	for _, f := range open {
		fmt.Fprintf(&out, "%s %d %s %s\n", f.ID, f.Revision, f.Vulnerability, f.Severity)
	}
	return out.String()
}

// counting counts what a registry is asked, and by which analyses.
type counting struct {
	inner    http.Handler
	mu       sync.Mutex
	blobs    map[string]int // GETs by digest
	gets     int
	analysed map[string]int
}

func (c *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		c.mu.Lock()
		c.gets++
		if _, digest, ok := strings.Cut(r.URL.Path, "/blobs/"); ok {
			c.blobs[digest]++
		}
		c.mu.Unlock()
	}
	c.inner.ServeHTTP(w, r)
}

func (c *counting) requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gets
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// testWriter sends logs to the test that is running.
type testWriter struct {
	mu sync.Mutex
	t  testing.TB
}

func (w *testWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := os.Stderr.Write(b)
	return len(b), err
}

// analyses counts how often each blob is analysed, and hands them on.
type analyses struct {
	*engine.Engine
	count *counting
}

func (a analyses) Analyze(ctx context.Context, l image.Layer, r io.Reader) (facts.Layer, error) {
	a.count.mu.Lock()
	a.count.analysed[string(l.Blob)]++
	a.count.mu.Unlock()
	return a.Engine.Analyze(ctx, l, r)
}
