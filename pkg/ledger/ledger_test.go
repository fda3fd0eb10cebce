package ledger_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/ledger"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
)

var (
	asset = finding.Asset{Workload: finding.Workload{Cluster: "c", Namespace: "n", Kind: "Deployment", Name: "d"}}
	noon  = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
)

// crowd writes the state a number of times between a ledger's reading it and writing it.
type crowd struct {
	*bus.Bus
	left   int
	events []string
}

func (c *crowd) State(ctx context.Context, class finding.Class, a finding.Asset) (finding.State, uint64, error) {
	s, revision, err := c.Bus.State(ctx, class, a)
	if c.left > 0 {
		c.left--
		next := s
		next.Asset = asset
		if _, err := c.Bus.PutState(ctx, class, next, revision); err != nil {
			return s, revision, err
		}
	}
	return s, revision, err
}

func (c *crowd) PutState(ctx context.Context, class finding.Class, s finding.State, revision uint64) (uint64, error) {
	n, err := c.Bus.PutState(ctx, class, s, revision)
	if err == nil {
		c.events = append(c.events, "state, "+strings.Repeat("|", len(s.Pending))+" pending")
	}
	return n, err
}

func (c *crowd) PublishDelta(ctx context.Context, d finding.Delta) error {
	c.events = append(c.events, string(d.Transition))
	return c.Bus.PublishDelta(ctx, d)
}

func (c *crowd) PublishScan(ctx context.Context, s finding.Scan) error {
	c.events = append(c.events, "scan "+string(s.Reason)+strings.Repeat("+", s.Opened)+strings.Repeat("-", s.Resolved))
	return c.Bus.PublishScan(ctx, s)
}

// move judges the asset in a generation as having the findings named.
func move(t *testing.T, b ledger.Bus, generation uint64, checks ...string) (bool, error) {
	t.Helper()
	var next []finding.Finding
	for _, c := range checks {
		next = append(next, finding.Finding{ID: c, Class: finding.ClassPSA, PodSecurity: finding.PodSecurity{Check: c}})
	}
	scan := finding.Scan{Asset: &asset, Outcome: report.Findings, Generation: generation}
	scan.ID = finding.ScanID(scan)
	return ledger.Ledger{Bus: b, Class: finding.ClassPSA}.Move(t.Context(), scan, ledger.Change{
		After: func(s finding.State) bool { return s.Generation > generation },
		Made:  func(s finding.State) bool { return s.Generation == generation },
		Next: func(s finding.State) finding.State {
			return finding.DiffWorkload(s, next, "", finding.Judgement{Asset: asset, Generation: generation, At: noon})
		},
	})
}

// State with the deltas pending, deltas, scan, state without: in this order, or a crash would lose or
// repeat something.
func TestOrder(t *testing.T) {
	t.Parallel()
	c := &crowd{Bus: bustest.New(t, bus.Config{}, bus.Options{}), left: 3}
	for _, step := range []struct {
		generation uint64
		checks     []string
		current    bool
		want       []string
	}{
		{2, []string{"a", "b"}, true, []string{"state, || pending", "opened", "opened", "scan ++", "state,  pending"}},
		{2, []string{"a", "b"}, true, []string{"state,  pending", "scan "}}, // delivered again
		{1, nil, false, []string{"scan superseded"}},
		{3, []string{"b"}, true, []string{"state, | pending", "resolved", "scan -", "state,  pending"}},
	} {
		c.events = nil
		current, err := move(t, c, step.generation, step.checks...)
		if err != nil || current != step.current {
			t.Fatalf("generation %d: current %v, %v", step.generation, current, err)
		}
		if diff := cmp.Diff(step.want, c.events); diff != "" {
			t.Errorf("generation %d (-want +got):\n%s", step.generation, diff)
		}
	}
}

// What somebody left pending is told before anything is decided on it.
func TestPendingFirst(t *testing.T) {
	t.Parallel()
	c := &crowd{Bus: bustest.New(t, bus.Config{}, bus.Options{})}
	left := finding.DiffWorkload(finding.State{}, []finding.Finding{{ID: "a", Class: finding.ClassPSA, PodSecurity: finding.PodSecurity{Check: "a"}}}, "",
		finding.Judgement{Asset: asset, Generation: 1, At: noon})
	if _, err := c.Bus.PutState(t.Context(), finding.ClassPSA, left, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := move(t, c, 1, "a"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"opened", "state,  pending", "scan +"}, c.events); diff != "" {
		t.Errorf("the same evaluation (-want +got):\n%s", diff)
	}
}

// A crowd that is always faster is no reason to turn for ever.
func TestClashes(t *testing.T) {
	t.Parallel()
	c := &crowd{Bus: bustest.New(t, bus.Config{}, bus.Options{}), left: 1000}
	_, err := move(t, c, 1, "a")
	if e := reason.Of(err); err == nil || e.Kind != reason.Retry || e.Code != reason.BusUnavailable {
		t.Errorf("%v", err)
	}
}
