package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
)

// point is a moment at which a service can die: before or after one of its publishes, writes or acks.
type point struct {
	service, op string
	phase       bus.Phase
}

func (p point) String() string {
	return fmt.Sprintf("%s/%s/%s", p.service, strings.ReplaceAll(p.op, " ", "-"), p.phase)
}

// points counts how often each point is passed, and kills whoever passes one of them for the nth time,
// once.
type points struct {
	mu     sync.Mutex
	passed map[point]int
	kill   point // zero: nobody
	nth    int
	killed bool
}

var errKilled = errors.New("killed by the test")

func (ps *points) fault(service string) bus.Fault {
	return func(op string, phase bus.Phase) error {
		ps.mu.Lock()
		defer ps.mu.Unlock()
		at := point{service, op, phase}
		ps.passed[at]++
		if ps.kill == at && !ps.killed && ps.passed[at] >= ps.nth {
			ps.killed = true
			return errKilled
		}
		return nil
	}
}

// TestAnyStepMayDie kills a service at each point that an undisturbed run passes, and wants of each run
// what the undisturbed one gave.
func TestAnyStepMayDie(t *testing.T) {
	undisturbed := &points{passed: map[point]int{}}
	want := story(t, undisturbed)
	all := slices.SortedFunc(maps.Keys(undisturbed.passed), func(a, b point) int { return cmp.Compare(a.String(), b.String()) })
	if len(all) < 40 {
		t.Fatalf("only %d points: %v", len(all), all)
	}
	for _, at := range all {
		// The first time, and once in the middle, when the others are at work.
		for _, nth := range slices.Compact([]int{1, 1 + undisturbed.passed[at]/2}) {
			if testing.Short() && nth > 1 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", at, nth), func(t *testing.T) {
				t.Parallel()
				ps := &points{passed: map[point]int{}, kill: at, nth: nth}
				got := story(t, ps)
				// A leader renews its lease by the clock: a quick story ends before it has to.
				if !ps.killed && nth == 1 && at.op != "update settings" {
					t.Errorf("the point was never passed")
				}
				for part := range want {
					if d := gocmp.Diff(strings.Split(want[part], "\n"), strings.Split(got[part], "\n")); d != "" {
						t.Errorf("%s differ from the undisturbed run's (-want +got):\n%s", part, d)
					}
				}
			})
		}
	}
}

// story pushes two images, rebuilds one, deletes the other, and tells all that is left in the streams,
// without what differs from run to run.
func story(t *testing.T, ps *points) map[string]string {
	t.Helper()
	p := start(t, options{fault: ps.fault})
	first, rebuilt := demoImages(t)
	images := first[:2]
	p.push(images...)
	p.settle()
	p.push(rebuilt...)
	p.settle()
	p.delete(images[1].Name())
	p.settle()
	p.consistent()

	events, err := p.js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{"events": fmt.Sprint(events.CachedInfo().State.Msgs)}
	var reports, deltas, scans []string
	for _, r := range p.reports(slices.Concat([]demodata.Image{}, images, rebuilt)...) {
		b, err := wire.ReportJSON(r)
		if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, strings.ReplaceAll(string(b), p.host, "HOST"))
	}
	for _, d := range p.deltas() {
		deltas = append(deltas, fmt.Sprintf("%s %s %s %s %d %s", d.Asset.Repository, d.Transition, d.Finding.Package, d.Finding.Vulnerability, d.Finding.Revision, d.Resolution))
	}
	for _, s := range p.scans() {
		scans = append(scans, fmt.Sprintf("%s:%s %s %s %d %d/%d/%d", s.Reference.Repository, s.Reference.Tag, s.Outcome, s.Reason, s.Generation, s.Opened, s.Changed, s.Resolved))
	}
	for part, lines := range map[string][]string{"reports": reports, "deltas": deltas, "scans": scans} {
		slices.Sort(lines)
		told[part] = strings.Join(lines, "\n")
	}
	return told
}
