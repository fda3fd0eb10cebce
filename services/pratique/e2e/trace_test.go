package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
)

// One trace goes from the webhook to the findings: every step of one pushed image is in it, every
// message that is left of it names it, and so does what `explain` reads.
func TestOneTraceFromWebhookToFinding(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	p := start(t, options{tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))})
	first, _ := demoImages(t)
	pushed := first[0]
	p.push(pushed)
	p.settle()

	const webhook = "POST /v1/events/distribution"
	stages := []string{
		webhook, "bus.consume EVENTS", "bus.consume WORK.image", "bus.consume WORK.layer", "bus.consume WORK.match",
		"layercache.observe", "layercache.open", "layercache.wait",
	}
	// A span ends a moment after its message is acknowledged.
	p.until("every stage's span has ended", func() bool {
		ended := byName(spans.Ended())
		return !slices.ContainsFunc(stages, func(s string) bool { return len(ended[s]) == 0 })
	})
	ended := byName(spans.Ended())
	if n := len(ended[webhook]); n != 1 {
		t.Fatalf("%d spans of the webhook", n)
	}
	want := ended[webhook][0].SpanContext().TraceID()
	for name, all := range ended {
		for _, s := range all {
			if got := s.SpanContext().TraceID(); got != want {
				t.Errorf("span %s is of trace %s, want %s", name, got, want)
			}
		}
	}
	if layers, err := pushed.Image.Layers(); err != nil || len(ended["bus.consume WORK.layer"]) != len(layers) {
		t.Errorf("%d spans of %d layers: %v", len(ended["bus.consume WORK.layer"]), len(layers), err)
	}

	for _, stream := range []string{"EVENTS", "FINDINGS", "SCANS", "STATE", "REPORTS"} {
		parents := p.traceparents(stream)
		if len(parents) == 0 {
			t.Errorf("%s is empty", stream)
		}
		for seq, parent := range parents {
			if !strings.HasPrefix(parent, "00-"+want.String()+"-") {
				t.Errorf("%s %d: traceparent %q, want trace %s", stream, seq, parent, want)
			}
		}
	}
	f, err := p.bus.Fate(t.Context(), fate.ReferenceKey(image.Reference{Host: p.host, Repository: pushed.Repository, Tag: pushed.Tag}))
	if err != nil {
		t.Fatal(err)
	}
	if f.TraceID != want.String() {
		t.Errorf("the fate names trace %q, want %s", f.TraceID, want)
	}
}

func byName(spans []sdktrace.ReadOnlySpan) map[string][]sdktrace.ReadOnlySpan {
	out := map[string][]sdktrace.ReadOnlySpan{}
	for _, s := range spans {
		out[s.Name()] = append(out[s.Name()], s)
	}
	return out
}

// traceparents reads the header of every message in a stream, by sequence, as any NATS client would.
func (p *pipeline) traceparents(stream string) map[uint64]string {
	p.t.Helper()
	s, err := p.js.Stream(p.t.Context(), stream)
	if err != nil {
		p.t.Fatal(err)
	}
	out := map[uint64]string{}
	state := s.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
		m, err := s.GetMsg(p.t.Context(), seq)
		if err == nil { // else it was replaced by a later one
			out[seq] = m.Header.Get("traceparent")
		}
	}
	return out
}

// labels are all that a metric's label may say. Whatever comes from outside is none of it.
var labels = map[string][]string{
	"stream":     {"EVENTS", "WORK.image", "WORK.layer", "WORK.match"},
	"outcome":    {"ok", "replaced", "held", "retry", "busy", "refuse", "poison", "panic", "paused", "drained", "expanded", "queued", "skipped", "gone", "refused", "analysed", "known", "retried", "clean", "findings", "closed", "superseded"},
	"how":        {"seen", "known", "waited", "analysed"},
	"class":      {"xs", "s", "m", "l"},
	"transition": {"opened", "changed", "resolved"},
	"kind":       {"vulndb", "javadb"},
	"lane":       {"interactive", "push", "backfill", "speculative"},
	"pool":       {"default"},
	"source":     {"distribution", "api"},
	"result":     {"stored"},
	"route":      {"POST /v1/scans", "GET /v1/scans/{id}", "POST /v1/events/distribution", "other"},
	"status":     {"200", "202", "404"},
}

// Every consumer and every stage is counted, and no label says a digest, a repository or a tag.
func TestMetricsCountEveryStageAndNameNobody(t *testing.T) {
	p := start(t, options{})
	first, rebuilt := demoImages(t)
	p.push(first...)
	p.settle()
	p.push(rebuilt...)
	p.settle()
	p.delete(rebuilt[0].Name())
	id, err := p.ask(t.Context(), p.host+"/no/such:tag")
	if err != nil {
		t.Fatal(err)
	}
	p.followed(t.Context(), id)
	p.settle()

	counted := map[string]float64{}
	p.metrics.mu.Lock()
	defer p.metrics.mu.Unlock()
	for _, r := range p.metrics.each {
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				series := f.GetName()
				for _, l := range m.GetLabel() {
					if !slices.Contains(labels[l.GetName()], l.GetValue()) {
						t.Errorf("%s: label %s says %q", f.GetName(), l.GetName(), l.GetValue())
					}
					series += fmt.Sprintf(" %s=%s", l.GetName(), l.GetValue())
				}
				counted[series] += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()) + max(m.GetGauge().GetValue(), 0)
			}
		}
	}
	for _, series := range []string{
		"pratique_bus_handled_total outcome=ok stream=EVENTS", "pratique_bus_handled_total outcome=ok stream=WORK.image",
		"pratique_bus_handled_total outcome=ok stream=WORK.layer", "pratique_bus_handled_total outcome=ok stream=WORK.match",
		"pratique_bus_handled_total outcome=refuse stream=WORK.image",
		"pratique_bus_handle_seconds stream=EVENTS", "pratique_bus_handle_seconds stream=WORK.image",
		"pratique_bus_handle_seconds stream=WORK.layer", "pratique_bus_handle_seconds stream=WORK.match",
		"pratique_ingest_requests_total route=POST /v1/events/distribution status=202",
		"pratique_ingest_request_seconds route=POST /v1/scans",
		"pratique_ingest_events_total result=stored source=distribution", "pratique_ingest_events_total result=stored source=api",
		"pratique_layercache_images_total outcome=queued", "pratique_layercache_images_total outcome=expanded",
		"pratique_layercache_images_total outcome=skipped", "pratique_layercache_images_total outcome=gone", "pratique_layercache_images_total outcome=refused",
		"pratique_layercache_layers_total how=seen", "pratique_layercache_layers_total how=known", "pratique_layercache_layers_total how=analysed",
		"pratique_scanner_layers_total outcome=analysed", "pratique_scanner_layer_seconds class=xs", "pratique_scanner_layer_bytes_total",
		"pratique_scanner_matches_total outcome=findings", "pratique_scanner_matches_total outcome=closed", "pratique_scanner_match_seconds",
		"pratique_scanner_findings_total transition=opened", "pratique_scanner_findings_total transition=resolved",
		"pratique_scanner_database_age_seconds kind=vulndb",
	} {
		if counted[series] <= 0 {
			t.Errorf("nothing is counted as %s", series)
		}
	}
	if t.Failed() {
		t.Logf("counted: %s", strings.Join(slices.Sorted(maps.Keys(counted)), "\n"))
	}
}

// followed waits until a request's fate is, and returns it with the stages that were seen before.
func (p *pipeline) followed(ctx context.Context, id string) (last fate.Fate, seen []fate.Stage) {
	p.t.Helper()
	c, err := p.asker()
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	last, err = c.Wait(ctx, id, func(f fate.Fate) {
		if len(seen) == 0 || seen[len(seen)-1] != f.Stage {
			seen = append(seen, f.Stage)
		}
	})
	if err != nil {
		p.t.Fatalf("request %s was not decided: %v", id, err)
	}
	return last, seen
}
