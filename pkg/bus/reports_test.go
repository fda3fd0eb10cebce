package bus_test

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
)

func TestReportReplacesOnlyAWorseOne(t *testing.T) {
	old, newer := someReport("a"), someReport("a")
	old.Database.Sequence, newer.Database.Sequence = 4, 6
	again := someReport("a")
	again.Outcome = report.Partial
	for name, c := range map[string]struct {
		there, put *report.Report
		replaced   bool
	}{
		"failed after good":          {someReport("a"), failedReport("a"), false},
		"good after failed":          {failedReport("a"), someReport("a"), true},
		"failed after failed":        {failedReport("a"), failedReport("a"), true},
		"older database":             {someReport("a"), old, false},
		"newer database":             {someReport("a"), newer, true},
		"same database":              {someReport("a"), again, true},
		"older database after newer": {newer, old, false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			b := bustest.New(t, bus.Config{}, bus.Options{})
			c.there.Detail, c.put.Detail = "the first", "the second"
			must(t, b.PutReport(ctx, c.there))
			must(t, b.PutReport(ctx, c.put))
			got, err := b.Report(ctx, digest("a"), amd64)
			must(t, err)
			if replaced := got.Detail == "the second"; replaced != c.replaced {
				t.Errorf("replaced: %v, want %v", replaced, c.replaced)
			}
		})
	}
}

func TestReports(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	_, err := b.Report(ctx, digest("a"), amd64)
	wantIs(t, "Report", err, bus.ErrNotFound)
	none, err := b.Reports(ctx, digest("a"))
	if err != nil || len(none) != 0 {
		t.Errorf("Reports of nothing: %v, %v", none, err)
	}
	first, second, other := someReport("a"), someReport("a"), someReport("b")
	second.Image.Platform = arm64
	unknown := failedReport("a")
	unknown.Image.Platform = image.Platform{}
	for _, r := range []*report.Report{second, first, other, unknown} {
		must(t, b.PutReport(ctx, r))
	}
	got, err := b.Reports(ctx, digest("a"))
	must(t, err)
	if diff := cmp.Diff([]*report.Report{first, second, unknown}, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("Reports (-want +got):\n%s", diff)
	}
}

func TestReportNeedsADigest(t *testing.T) {
	b := bustest.New(t, bus.Config{}, bus.Options{})
	r := someReport("a")
	r.Image.Digest = ""
	if e := reason.Of(b.PutReport(t.Context(), r)); e.Kind != reason.Refuse || e.Code != reason.Malformed {
		t.Errorf("PutReport: %v", e)
	}
}

// A report that does not fit a message is kept in the object store, and leaves it when it is replaced.
func TestLargeReport(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	r := someReport("a")
	noise := make([]byte, 2<<20)
	_, _ = rand.Read(noise)
	r.Results = []report.Result{{Class: "os-pkgs", Type: "debian", Packages: []report.Package{{ID: "p", Name: hex.EncodeToString(noise)}}}}
	must(t, b.PutReport(ctx, r))
	got, err := b.Report(ctx, digest("a"), amd64)
	must(t, err)
	if diff := cmp.Diff(r, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error("the report came back changed")
	}
	if n := objects(t, nc, "reports"); n != 1 {
		t.Errorf("%d objects, want 1", n)
	}
	all, err := b.Reports(ctx, digest("a"))
	if err != nil || len(all) != 1 {
		t.Errorf("Reports: %d, %v", len(all), err)
	}
	must(t, b.PutReport(ctx, r)) // the same again, as after a crash
	must(t, b.PutReport(ctx, someReport("a")))
	got, err = b.Report(ctx, digest("a"), amd64)
	if err != nil || len(got.Results) != 0 {
		t.Errorf("Report after replacing: %v", err)
	}
	if n := objects(t, nc, "reports"); n != 0 {
		t.Errorf("%d objects are left of a replaced report", n)
	}
}

// A report that can not be read is absent, and can be made again.
func TestDamagedReportIsAbsent(t *testing.T) {
	ctx := t.Context()
	nc := bustest.Start(t)
	b := bustest.On(t, nc, bus.Config{}, bus.Options{})
	js, err := jetstream.New(nc)
	must(t, err)
	for name, header := range map[string]map[string]string{
		"noise":         nil,
		"absent object": {"Pratique-Object": digest("nothing").Hex()},
		"no name":       {"Pratique-Object": " "},
	} {
		t.Run(name, func(t *testing.T) {
			m := natsMessage("pratique.report.v1.linux-amd64."+digest(name).Hex(), "noise", header)
			_, err := js.PublishMsg(ctx, m)
			must(t, err)
			_, err = b.Report(ctx, digest(name), amd64)
			wantIs(t, "Report", err, bus.ErrNotFound)
			must(t, b.PutReport(ctx, someReport(name)))
			_, err = b.Report(ctx, digest(name), amd64)
			must(t, err)
		})
	}
}

// Of many that judge at once the newest database's report stays.
func TestConcurrentReports(t *testing.T) {
	ctx := t.Context()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			r := someReport("a")
			r.Database.Sequence = uint64(i + 1)
			r.Detail = strconv.Itoa(i + 1)
			if err := b.PutReport(ctx, r); err != nil {
				t.Errorf("PutReport: %v", err)
			}
		})
	}
	all.Wait()
	got, err := b.Report(ctx, digest("a"), amd64)
	must(t, err)
	if got.Database.Sequence != 8 {
		t.Errorf("the report is of database %d, want 8", got.Database.Sequence)
	}
}
