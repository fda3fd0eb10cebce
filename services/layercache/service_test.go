package layercache

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocireg "github.com/google/go-containerregistry/pkg/registry"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/facts/busfacts"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

const testAnalysis = "analysis-1"

// system under test: real JetStream, a real registry behind the real client, and a scanner that reads
// blobs and stores facts, without looking into them.
type rig struct {
	t        *testing.T
	bus      *bus.Bus
	facts    facts.Store
	registry *registry.Client
	host     string
	http     *http.Client
	base     string

	silent   atomic.Bool // the scanner sends no notices
	analyses sync.Map    // blob → *atomic.Int64
	events   atomic.Int64

	mu      sync.Mutex
	matches []work.MatchJob
	scans   []finding.Scan
	changed chan struct{} // closed and replaced when a match or scan arrives
}

func newRig(t *testing.T, planners int) *rig {
	t.Helper()
	srv := httptest.NewServer(ocireg.New(ocireg.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	client, err := registry.New(registry.Config{Hosts: map[string]registry.Host{host: {Plain: true}}}, registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tracer := sdktrace.NewTracerProvider()
	b := bustest.New(t, bus.Config{}, bus.Options{Tracer: tracer})
	r := &rig{t: t, bus: b, facts: busfacts.New(b), registry: client, host: host, http: srv.Client(), base: srv.URL, changed: make(chan struct{})}

	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	for range planners {
		s, err := New(Config{Recheck: 200 * time.Millisecond}, Deps{Bus: b, Registry: client, Facts: r.facts, Logger: slog.New(slog.DiscardHandler), Tracer: tracer})
		if err != nil {
			t.Fatal(err)
		}
		g.Go(func() error { return s.Run(ctx) })
	}
	g.Go(func() error { return b.ConsumeLayers(ctx, work.DefaultPool, 3, r.analyse) })
	g.Go(func() error { return b.ConsumeMatches(ctx, 3, r.match) })
	g.Go(func() error {
		return b.WatchScans(ctx, 1, func(_ uint64, s finding.Scan) error {
			r.note(func() { r.scans = append(r.scans, s) })
			return nil
		})
	})
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	if err := b.PutSetting(ctx, "analysis."+work.DefaultPool, testAnalysis); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) note(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.changed)
	r.changed = make(chan struct{})
}

// analyse is a scanner's layer handler without an analyzer.
func (r *rig) analyse(ctx context.Context, j work.LayerJob, _ bus.Delivery) error {
	n, _ := r.analyses.LoadOrStore(j.Layer.Blob, new(atomic.Int64))
	decide := func(v *facts.Verdict) error {
		if v != nil {
			if err := r.facts.PutVerdict(ctx, *v); err != nil {
				return err
			}
		}
		if r.silent.Load() {
			return nil
		}
		return r.bus.Notify(ctx, work.Notice{Key: j.Key, Failed: v != nil})
	}
	if rec, err := r.facts.Record(ctx, j.Layer.Blob); err == nil {
		if has, err := r.facts.HasFacts(ctx, rec.DiffID, j.Analysis); err != nil || has {
			return errors.Join(err, decide(nil))
		}
	}
	n.(*atomic.Int64).Add(1)
	rc, err := r.registry.Blob(ctx, j.Host, j.Repository, j.Layer.Blob, j.Layer.Size)
	if e := reason.Of(err); err != nil && e.Kind == reason.Refuse {
		return decide(&facts.Verdict{Key: facts.SourceVerdictKey(j.Key, j.Host, j.Repository, j.Layer.Size), Code: e.Code, Detail: err.Error(), At: time.Now()})
	} else if err != nil {
		return err
	}
	defer rc.Close()
	blob, err := io.ReadAll(rc)
	if err != nil {
		return err
	}
	zr, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		return decide(&facts.Verdict{Key: facts.VerdictKey(j.Key), Code: reason.Malformed, Detail: err.Error(), At: time.Now()})
	}
	content, err := io.ReadAll(zr)
	if err != nil {
		return err
	}
	d := image.DigestOf(content)
	return errors.Join(
		r.facts.PutFacts(ctx, facts.Layer{DiffID: d, Analysis: j.Analysis, Blob: []byte("{}")}),
		r.facts.PutRecord(ctx, facts.Record{Blob: j.Layer.Blob, DiffID: d, Size: int64(len(blob))}),
		r.facts.PutHolder(ctx, j.Host, j.Repository, j.Layer.Blob),
		decide(nil))
}

func (r *rig) match(_ context.Context, j work.MatchJob, _ bus.Delivery) error {
	r.note(func() { r.matches = append(r.matches, j) })
	return nil
}

// wait blocks until done holds of what has arrived.
func (r *rig) wait(what string, done func() bool) {
	r.t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		r.mu.Lock()
		ok, changed := done(), r.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			r.t.Fatalf("waited too long for %s; %d matches, scans %+v", what, len(r.matches), r.scans)
		}
	}
}

func (r *rig) put(method, path, mediaType string, body []byte) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.base+path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		b, _ := io.ReadAll(resp.Body)
		r.t.Fatalf("%s %s: %s %s", method, path, resp.Status, b)
	}
}

func (r *rig) blob(repository string, body []byte) image.Digest {
	d := image.DigestOf(body)
	r.put(http.MethodPost, "/v2/"+repository+"/blobs/uploads/?digest="+string(d), "application/octet-stream", body)
	return d
}

// layerBytes is a gzip layer of some content, and its diffID.
func layerBytes(content string) ([]byte, image.Digest) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, content)
	_ = w.Close()
	return b.Bytes(), image.DigestOf([]byte(content))
}

type pushed struct {
	repository, tag string
	digest          image.Digest
}

func (p pushed) reference(host string) image.Reference {
	return image.Reference{Host: host, Repository: p.repository, Tag: p.tag, Digest: p.digest}
}

func (r *rig) manifest(repository, tag string, v any) pushed {
	r.t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		r.t.Fatal(err)
	}
	d := image.DigestOf(body)
	at := tag
	if at == "" {
		at = string(d)
	}
	mediaType := v.(map[string]any)["mediaType"].(string)
	r.put(http.MethodPut, "/v2/"+repository+"/manifests/"+at, mediaType, body)
	return pushed{repository, tag, d}
}

// image pushes an image whose layers have these contents; change may make it dishonest.
func (r *rig) image(repository, tag, arch string, contents []string, change func(config, manifest map[string]any)) pushed {
	r.t.Helper()
	var layers, history []any
	var ids []image.Digest
	for _, c := range contents {
		b, diffID := layerBytes(c)
		layers = append(layers, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": r.blob(repository, b), "size": len(b)})
		history = append(history, map[string]any{"created_by": "RUN " + c})
		ids = append(ids, diffID)
	}
	config := map[string]any{"os": "linux", "architecture": arch, "rootfs": map[string]any{"diff_ids": ids}, "history": history}
	manifest := map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers}
	if change != nil {
		change(config, manifest)
	}
	body, err := json.Marshal(config)
	if err != nil {
		r.t.Fatal(err)
	}
	if manifest["config"] == nil {
		manifest["config"] = map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": r.blob(repository, body), "size": len(body)}
	}
	return r.manifest(repository, tag, manifest)
}

func (r *rig) tell(action event.Action, ref image.Reference) (sequence uint64, id string) {
	r.t.Helper()
	e := event.Event{
		ID: fmt.Sprintf("%032x", r.events.Add(1)), Kind: event.KindImage, Source: "distribution", Action: action,
		Cause: event.CausePush, Reference: ref, Received: time.Now().UTC(),
	}
	if action == event.Request {
		e.Source, e.Cause = "api", event.CauseRequest
	}
	seq, err := r.bus.PublishEvent(r.t.Context(), e)
	if err != nil {
		r.t.Fatal(err)
	}
	return seq, e.ID
}

func TestPushedImageIsMatched(t *testing.T) {
	r := newRig(t, 1)
	p := r.image("team/app", "v1", "amd64", []string{"base", "app", "base"}, nil)
	r.tell(event.Push, p.reference(r.host))
	r.wait("a match", func() bool { return len(r.matches) == 1 })

	j := r.matches[0]
	wantAsset := &finding.Asset{Host: r.host, Repository: "team/app", Track: "v1", Platform: amd64}
	if diff := cmp.Diff(wantAsset, j.Asset); diff != "" {
		t.Errorf("asset (-want +got):\n%s", diff)
	}
	if j.Generation != 1 || j.Analysis != testAnalysis || j.Lane != work.Push || j.Image.Digest != p.digest {
		t.Errorf("match %+v", j)
	}
	if want := (finding.LayerCounts{Seen: 3, Known: 1, Analysed: 2}); j.Layers != want {
		t.Errorf("layers %+v, want %+v", j.Layers, want)
	}
	var lines []string
	for _, l := range j.Image.Layers {
		lines = append(lines, l.CreatedBy)
	}
	if want := []string{"RUN base", "RUN app", "RUN base"}; !slices.Equal(lines, want) {
		t.Errorf("created by %q", lines)
	}
	f, err := r.bus.Fate(t.Context(), fate.ReferenceKey(p.reference(r.host)))
	if err != nil || f.Stage != fate.Matching || len(f.Images) != 1 || f.Images[0].Digest != p.digest || f.TraceID == "" {
		t.Errorf("fate %+v, %v", f, err)
	}

	// A new database matches it again, from what is kept, and once.
	db := vulndb.Pointer{Kind: vulndb.Vulnerabilities, Digest: string(image.DigestOf([]byte("db"))), Size: 1, UpdatedAt: time.Now(), LoadedAt: time.Now()}
	db, err = r.bus.PutPointer(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	r.wait("a re-match", func() bool { return len(r.matches) == 2 })
	j = r.matches[1]
	if j.Database != db.Digest || j.Lane != work.Backfill || j.Origin.Cause != event.CauseRematch || j.Image.Digest != p.digest || j.Generation != 1 {
		t.Errorf("re-match %+v", j)
	}
	r.waitSetting(settingRematched, sequence(db))

	// A request names the database that is current, and reports to its submission.
	seq, id := r.tell(event.Request, image.Reference{Host: r.host, Repository: "team/app", Tag: "v1"})
	r.wait("the request's match", func() bool { return len(r.matches) == 3 })
	j = r.matches[2]
	if j.Database != db.Digest || j.Lane != work.Interactive || j.Generation != 1 || j.Origin.Request != fate.RequestID(seq, id) {
		t.Errorf("match %+v", j)
	}
	if want := (finding.LayerCounts{Seen: 3, Known: 3}); j.Layers != want {
		t.Errorf("layers %+v, want %+v", j.Layers, want)
	}
	f, err = r.bus.Fate(t.Context(), fate.RequestKey(fate.RequestID(seq, id)))
	if err != nil || f.Stage != fate.Matching || f.Request == "" {
		t.Errorf("fate %+v, %v", f, err)
	}
}

// waitSetting blocks until a setting has a value.
func (r *rig) waitSetting(name, want string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	seen := false
	err := r.bus.WatchSetting(ctx, name, func(value string) {
		if value == want {
			seen = true
			cancel()
		}
	})
	if !seen {
		r.t.Fatalf("setting %s never became %s: %v", name, want, err)
	}
}

func TestIndexBecomesItsPlatforms(t *testing.T) {
	r := newRig(t, 1)
	a := r.image("team/app", "", "amd64", []string{"base", "a"}, nil)
	b := r.image("team/app", "", "arm64", []string{"base", "b"}, nil)
	entry := func(p pushed, arch string) any {
		return map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": p.digest, "size": 1, "platform": map[string]any{"os": "linux", "architecture": arch}}
	}
	idx := r.manifest("team/app", "v1", map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{entry(a, "amd64"), entry(b, "arm64")}})
	r.tell(event.Push, idx.reference(r.host))
	r.wait("a match", func() bool { return len(r.matches) == 1 })
	j := r.matches[0]
	if j.Image.Digest != a.digest || j.Image.Index != idx.digest || j.Image.Platform != amd64 || j.Asset == nil || j.Asset.Platform != amd64 {
		t.Errorf("match %+v", j)
	}
	// The index's child was pushed without a tag: a report, no asset.
	r.tell(event.Push, b.reference(r.host))
	r.wait("the child's match", func() bool { return len(r.matches) == 2 })
	if j := r.matches[1]; j.Image.Digest != b.digest || j.Asset != nil || j.Image.Platform != arm64 {
		t.Errorf("match %+v", j)
	}
	rec, _, err := r.bus.Track(t.Context(), r.host, "team/app", "v1")
	if err != nil || !slices.Equal(rec.Platforms, []image.Platform{amd64}) || rec.Digest != idx.digest {
		t.Errorf("track %+v, %v", rec, err)
	}

	// Gone from the registry: its asset is closed, and nothing is kept of it.
	r.put(http.MethodDelete, "/v2/team/app/manifests/v1", "", nil)
	r.tell(event.Delete, image.Reference{Host: r.host, Repository: "team/app", Digest: idx.digest})
	r.wait("the closing", func() bool { return len(r.matches) == 3 })
	if j := r.matches[2]; j.Close != string(finding.Deleted) || j.Generation != 2 || j.Asset.Platform != amd64 {
		t.Errorf("closing %+v", j)
	}
}

func TestRefusedImages(t *testing.T) {
	base := []string{"base"}
	tests := []struct {
		name   string
		make   func(r *rig) image.Reference
		reason reason.Code
	}{
		{"diffid mismatch", func(r *rig) image.Reference {
			return r.image("x/diffid", "v1", "amd64", base, func(c, _ map[string]any) {
				c["rootfs"] = map[string]any{"diff_ids": []any{image.DigestOf([]byte("lie"))}}
			}).reference(r.host)
		}, reason.DiffIDMismatch},
		{"missing blob", func(r *rig) image.Reference {
			return r.image("x/missing", "v1", "amd64", base, func(_, m map[string]any) {
				m["layers"].([]any)[0].(map[string]any)["digest"] = image.DigestOf([]byte("missing"))
			}).reference(r.host)
		}, reason.BlobMissing},
		{"no gzip", func(r *rig) image.Reference {
			return r.image("x/nogzip", "v1", "amd64", base, func(_, m map[string]any) {
				l := m["layers"].([]any)[0].(map[string]any)
				l["digest"], l["size"] = r.blob("x/nogzip", []byte("plain")), 5
			}).reference(r.host)
		}, reason.Malformed},
		{"unknown tag", func(r *rig) image.Reference {
			return image.Reference{Host: r.host, Repository: "x/none", Tag: "v1"}
		}, reason.NotFound},
		{"unknown host", func(*rig) image.Reference {
			return image.Reference{Host: "elsewhere.example", Repository: "x/y", Tag: "v1"}
		}, reason.HostNotAllowed},
		{"chart", func(r *rig) image.Reference {
			return r.image("x/chart", "v1", "amd64", nil, func(_, m map[string]any) {
				m["config"] = map[string]any{"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": image.DigestOf(nil), "size": 0}
			}).reference(r.host)
		}, reason.NotAnImage},
	}
	r := newRig(t, 1)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ref := tt.make(r)
			named := image.Reference{Host: ref.Host, Repository: ref.Repository, Tag: ref.Tag}
			seq, id := r.tell(event.Request, named)
			request := fate.RequestID(seq, id)
			var scan finding.Scan
			r.wait("the scan", func() bool {
				i := slices.IndexFunc(r.scans, func(s finding.Scan) bool { return s.Request == request })
				if i >= 0 {
					scan = r.scans[i]
				}
				return i >= 0
			})
			if scan.Outcome != report.Failed || scan.Reason != tt.reason || scan.Detail == "" {
				t.Errorf("scan %+v, want %s", scan, tt.reason)
			}
			letter := r.letter(string(tt.reason))
			if letter.Service != "layercache" {
				t.Errorf("letter %+v", letter)
			}
			f, err := r.bus.Fate(t.Context(), fate.RequestKey(request))
			if err != nil || f.Stage != fate.Decided {
				t.Errorf("fate %+v, %v", f, err)
			}
			if ref.Digest == "" {
				if f.Reason != tt.reason {
					t.Errorf("fate %+v", f)
				}
				return
			}
			if len(f.Images) != 1 || f.Images[0].Reason != tt.reason || f.Images[0].Outcome != report.Failed {
				t.Errorf("fate %+v", f)
			}
			reports, err := r.bus.Reports(t.Context(), ref.Digest)
			if err != nil || len(reports) != 1 || reports[0].Outcome != report.Failed || reports[0].Reason != tt.reason {
				t.Errorf("reports %+v, %v", reports, err)
			}
		})
	}
	if len(r.matches) != 0 {
		t.Errorf("matches %+v", r.matches)
	}
}

// letter waits for a dead letter with a reason; it follows the scan.
func (r *rig) letter(code string) system.DeadLetter {
	r.t.Helper()
	var found system.DeadLetter
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	for found.ID == "" {
		err := r.bus.DeadLetters(ctx, func(_ uint64, l system.DeadLetter) error {
			if string(l.Reason) == code {
				found = l
			}
			return nil
		})
		if err != nil {
			r.t.Fatalf("dead letter %s: %v", code, err)
		}
	}
	return found
}

func TestPushedChartIsSkipped(t *testing.T) {
	r := newRig(t, 1)
	p := r.image("charts/x", "v1", "amd64", nil, func(_, m map[string]any) {
		m["config"] = map[string]any{"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": image.DigestOf(nil), "size": 0}
	})
	r.tell(event.Push, p.reference(r.host))
	r.wait("the scan", func() bool { return len(r.scans) == 1 })
	if s := r.scans[0]; s.Outcome != report.Skipped || !strings.Contains(s.Detail, "helm") {
		t.Errorf("scan %+v", s)
	}
}

// Many images that share layers, through two lanes and two planners, are analysed once a layer; and
// without a single notice they still finish.
func TestSingleFlightAndLostNotices(t *testing.T) {
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprintf("silent %v", silent), func(t *testing.T) {
			r := newRig(t, 2)
			r.silent.Store(silent)
			const images, shared = 20, 6
			for i := range images {
				contents := []string{fmt.Sprint("own ", i)}
				for l := range 3 {
					contents = append(contents, fmt.Sprint("shared ", (i+l)%shared))
				}
				p := r.image(fmt.Sprint("team/app", i), "v1", "amd64", contents, nil)
				if i%2 == 0 {
					r.tell(event.Push, p.reference(r.host))
				} else {
					r.tell(event.Request, image.Reference{Host: r.host, Repository: p.repository, Tag: p.tag})
				}
			}
			r.wait("all matches", func() bool { return len(r.matches) == images })
			blobs, analyses := 0, int64(0)
			r.analyses.Range(func(_, n any) bool {
				blobs++
				analyses += n.(*atomic.Int64).Load()
				return true
			})
			if blobs != images+shared || analyses != int64(blobs) {
				t.Errorf("%d analyses of %d blobs, want one each of %d", analyses, blobs, images+shared)
			}
			var c finding.LayerCounts
			for _, j := range r.matches {
				c.Seen += j.Layers.Seen
				c.Known += j.Layers.Known
				c.Waited += j.Layers.Waited
				c.Analysed += j.Layers.Analysed
			}
			// A request's job replaces one that is still queued in a lower lane, and counts as well.
			if c.Seen != 4*images || c.Analysed < blobs || c.Seen != c.Known+c.Waited+c.Analysed {
				t.Errorf("counted %+v", c)
			}
		})
	}
}
