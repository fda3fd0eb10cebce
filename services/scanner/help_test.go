package scanner

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

const (
	host       = "registry.example:5000"
	repository = "team-a/api"
	patience   = 30 * time.Second // of tests, on a busy machine
)

var (
	noon     = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	amd64    = image.Platform{OS: "linux", Architecture: "amd64"}
	analysis = image.DigestOf([]byte("analysis")).Hex()
	dbOne    = pointer(vulndb.Vulnerabilities, "one", 1)
	dbTwo    = pointer(vulndb.Vulnerabilities, "two", 2)
)

func pointer(k vulndb.Kind, content string, sequence uint64) vulndb.Pointer {
	return vulndb.Pointer{
		Kind: k, Digest: string(image.DigestOf([]byte(content))), Size: int64(len(content)),
		UpdatedAt: noon.Add(-time.Hour), NextUpdate: noon, LoadedAt: noon, Sequence: sequence,
	}
}

// bench is a scanner on a real bus with everything else faked. Its time stands still.
type bench struct {
	*Service
	dial      func() *nats.Conn // another process's connection to the same server
	bus       *bus.Bus
	facts     facts.Store
	registry  *fakeRegistry
	analyzer  *fakeAnalyzer
	matcher   *fakeMatcher
	databases *fakeDatabases
	seen      uint64 // of FINDINGS: deltas begins after it
}

func newBench(t *testing.T, cfg Config) *bench {
	t.Helper()
	server := bustest.StartServer(t)
	h := benchOn(t, bustest.On(t, bustest.Connect(t, server), bus.Config{}, bus.Options{}), cfg)
	h.dial = func() *nats.Conn { return bustest.Connect(t, server) }
	return h
}

func benchOn(t *testing.T, b *bus.Bus, cfg Config) *bench {
	t.Helper()
	if cfg.DatabaseWait == 0 {
		cfg.DatabaseWait = time.Millisecond
	}
	h := &bench{
		bus: b, facts: busfacts.New(b),
		registry: &fakeRegistry{}, analyzer: &fakeAnalyzer{id: analysis}, matcher: &fakeMatcher{},
		databases: &fakeDatabases{in: map[vulndb.Kind]vulndb.Pointer{vulndb.Vulnerabilities: dbOne}},
	}
	h.matcher.databases = h.databases
	s, err := New(cfg, Deps{
		Bus: b, Registry: h.registry, Facts: h.facts, Analyzer: h.analyzer, Matcher: h.matcher, Databases: h.databases,
		Engine: report.Engine{Version: "test", Trivy: "0"},
		Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Service = s
	return h
}

// fakeRegistry answers every blob with the same body and error.
type fakeRegistry struct {
	body string
	open error // instead of a body
	end  error // instead of io.EOF
}

func (r *fakeRegistry) Blob(context.Context, string, string, image.Digest, int64) (io.ReadCloser, error) {
	if r.open != nil {
		return nil, r.open
	}
	end := r.end
	if end == nil {
		end = io.EOF
	}
	return io.NopCloser(io.MultiReader(bytes.NewReader([]byte(r.body)), failing{end})), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// fakeAnalyzer makes facts that only say how many bytes there were.
type fakeAnalyzer struct {
	mu    sync.Mutex
	id    string
	calls int
	analyses
}

// analyses says what goes wrong.
type analyses struct {
	err  error
	lazy bool   // it does not read to the end
	as   string // the analysis that facts say; "" for the right one
}

func (a *fakeAnalyzer) ID() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.id
}

func (a *fakeAnalyzer) set(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.id = id
}

func (a *fakeAnalyzer) Analyze(_ context.Context, _ image.Layer, r io.Reader) (facts.Layer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	var body []byte
	if !a.lazy {
		var err error
		if body, err = io.ReadAll(r); err != nil && a.err == nil {
			return facts.Layer{}, err
		}
	}
	if a.err != nil {
		return facts.Layer{}, a.err
	}
	as := a.id
	if a.as != "" {
		as = a.as
	}
	return facts.Layer{DiffID: image.DigestOf(body), Analysis: as, Blob: []byte(`{}`), Size: int64(len(body))}, nil
}

// fakeMatcher finds in every image what it was told to find.
type fakeMatcher struct {
	mu        sync.Mutex
	databases *fakeDatabases
	vulns     map[image.Digest][]string // ids, by image
	outcome   report.Outcome            // "": by what was found
	err       error
	layers    int // facts of the last call
}

func (m *fakeMatcher) Match(_ context.Context, job work.MatchJob, layers []facts.Layer) (*report.Report, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.layers = len(layers)
	if m.err != nil {
		return nil, m.err
	}
	p, ok := m.databases.Current(vulndb.Vulnerabilities)
	if !ok {
		return nil, reason.Retryf(reason.NoDatabase, "none")
	}
	r := &report.Report{
		Image: job.Image, Outcome: report.Clean, Created: noon,
		Database: report.Database{Digest: p.Digest, UpdatedAt: p.UpdatedAt, Sequence: p.Sequence},
		Engine:   report.Engine{Version: "test", Trivy: "0", Analysis: job.Analysis},
	}
	res := report.Result{Class: "os-pkgs", Type: "debian", Packages: []report.Package{{Name: "p", Version: "1.0"}}}
	for _, id := range m.vulns[job.Image.Digest] {
		r.Outcome = report.Findings
		res.Vulnerabilities = append(res.Vulnerabilities, report.Vulnerability{ID: id, Package: "p", Version: "1.0", Severity: report.High, Status: "affected"})
	}
	r.Results = []report.Result{res}
	if m.outcome != "" {
		r.Outcome = m.outcome
	}
	return r, nil
}

func (m *fakeMatcher) finds(d image.Digest, ids ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.vulns == nil {
		m.vulns = map[image.Digest][]string{}
	}
	m.vulns[d] = ids
}

// fakeDatabases remembers what it was given.
type fakeDatabases struct {
	mu      sync.Mutex
	in      map[vulndb.Kind]vulndb.Pointer
	content map[vulndb.Kind]string
	fail    int                    // so many loads fail
	onLoad  func(p vulndb.Pointer) // after one succeeded
}

func (d *fakeDatabases) Current(k vulndb.Kind) (vulndb.Pointer, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ok := d.in[k]
	return p, ok
}

func (d *fakeDatabases) set(p vulndb.Pointer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.in[p.Kind] = p
}

func (d *fakeDatabases) Load(ctx context.Context, p vulndb.Pointer, fetch func(context.Context) (io.ReadCloser, error)) error {
	d.mu.Lock()
	if d.fail > 0 {
		d.fail--
		d.mu.Unlock()
		return errors.New("the disk is full")
	}
	d.mu.Unlock()
	r, err := fetch(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.in[p.Kind] = p
	if d.content == nil {
		d.content = map[vulndb.Kind]string{}
	}
	d.content[p.Kind] = string(body)
	onLoad := d.onLoad
	d.mu.Unlock()
	if onLoad != nil {
		onLoad(p)
	}
	return nil
}

func layerJob(content string) work.LayerJob {
	blob := image.DigestOf([]byte(content))
	return work.LayerJob{
		Key: work.LayerKey(blob, analysis), Analysis: analysis, Host: host, Repository: repository,
		Layer: image.Layer{Blob: blob, DiffID: blob, Size: int64(len(content))},
		Pool:  work.DefaultPool, Class: work.XS, Lane: work.Push,
	}
}

func assetOf(track string) finding.Asset {
	return finding.Asset{Host: host, Repository: repository, Track: track, Platform: amd64}
}

// matchJob is of an image without layers, which needs no facts.
func matchJob(name, track string, generation uint64) work.MatchJob {
	a := assetOf(track)
	return work.MatchJob{
		Image: image.Image{
			Reference: image.Reference{Host: host, Repository: repository, Tag: track, Digest: image.DigestOf([]byte(name))},
			Config:    image.DigestOf([]byte("config")), Platform: amd64,
		},
		Analysis: analysis, Asset: &a, Generation: generation, Lane: work.Push,
		Origin: work.Origin{Cause: event.CausePush, EventID: "e", Received: noon},
	}
}

func closeJob(track string, generation uint64) work.MatchJob {
	j := matchJob("", track, generation)
	j.Image.Digest, j.Image.Config, j.Close = "", "", string(finding.Deleted)
	j.Origin.Cause = event.CauseDelete
	return j
}

// first is a delivery that nothing is wrong with.
var first = bus.Delivery{Sequence: 1, Attempt: 1, Queued: noon}

func (h *bench) state(t *testing.T, track string) finding.State {
	t.Helper()
	s, _, err := h.bus.State(t.Context(), finding.ClassVuln, assetOf(track))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// deltasOf are a track's so far.
func (h *bench) deltasOf(t testContext, track string) []finding.Delta {
	return slices.DeleteFunc(h.deltas(t), func(d finding.Delta) bool { return d.Asset.Track != track })
}

// testContext is what *testing.T and *rapid.T have in common that helpers need.
type testContext interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Context() context.Context
}

func (h *bench) deltas(t testContext) []finding.Delta {
	t.Helper()
	last, err := h.bus.LastDelta(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if last == h.seen {
		return nil
	}
	return watched(t, func(ctx context.Context, got func(finding.Delta)) error {
		return h.bus.WatchDeltas(ctx, h.seen+1, func(seq uint64, d finding.Delta) error {
			if got(d); seq >= last {
				return errEnough
			}
			return nil
		})
	})
}

// scans are those so far: a last one is published to know where they end.
func (h *bench) scans(t *testing.T) []finding.Scan {
	t.Helper()
	end := finding.Scan{
		ID:        image.DigestOf([]byte(t.Name() + time.Now().String())).Hex(),
		Reference: image.Reference{Host: "end.example", Repository: "end", Tag: "end"}, Outcome: report.Skipped, Finished: noon,
	}
	if err := h.bus.PublishScan(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	return watched(t, func(ctx context.Context, got func(finding.Scan)) error {
		return h.bus.WatchScans(ctx, 1, func(_ uint64, s finding.Scan) error {
			if s.ID == end.ID {
				return errEnough
			}
			if s.Reference.Host != end.Reference.Host {
				got(s)
			}
			return nil
		})
	})
}

var errEnough = errors.New("enough")

func watched[T any](t testContext, watch func(context.Context, func(T)) error) (out []T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := watch(ctx, func(v T) { out = append(out, v) })
	if !errors.Is(err, errEnough) {
		t.Fatalf("watch: %v", err)
	}
	return out
}

// wantReason checks a decision and answers what it holds beside.
func wantReason(t *testing.T, err error, kind reason.Kind, code reason.Code) reason.Error {
	t.Helper()
	e := reason.Of(err)
	if err == nil || e.Kind != kind || e.Code != code {
		t.Fatalf("error %v, want kind %d, code %s", err, kind, code)
	}
	return *e
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
