package psaauditor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
)

// What is posted is judged, what is mended is resolved, and what is posted again changes nothing.
func TestFromPostToResolved(t *testing.T) {
	t.Parallel()
	b := newBus(t)
	run(t, serviceOn(t, b, Config{}))
	post := func(id, body string) uint64 {
		t.Helper()
		seq, err := b.PublishEvent(t.Context(), manifests(id, body))
		must(t, err)
		return seq
	}
	seq := post("1", deployment("api", "hostNetwork: true\n      volumes: [{name: v, nfs: {}}]")+deployment("other", ""))
	opened := deltasOf(t, b, "api", 2)
	got := told(opened)
	slices.Sort(got)
	if diff := cmp.Diff([]string{"opened high baseline/hostNamespaces r1", "opened medium restricted/restrictedVolumes r1"}, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	for _, d := range opened {
		p := d.Finding.PodSecurity
		if d.Cause != event.CauseRequest || d.Engine.Version != "test" || p.Version != "latest" || d.Finding.FirstSeen != noon {
			t.Errorf("%+v", d)
		}
		if p.Check == "hostNamespaces" && (p.Message != "host namespaces (hostNetwork=true)" || d.Finding.Title != "host namespaces" ||
			!slices.Equal(p.Fields, []string{"spec.template.spec.hostNetwork"}) || !strings.HasSuffix(d.Finding.URL, "#baseline")) {
			t.Errorf("%+v", d.Finding)
		}
	}
	scan := scansOf(t, b, "api", 1)[0]
	if scan.Outcome != report.Findings || scan.Opened != 2 || scan.Counts != (report.Counts{High: 1, Medium: 1}) || scan.Generation != seq ||
		!strings.HasPrefix(scan.Request, fmt.Sprintf("%d-", seq)) || scan.Received != noon {
		t.Errorf("scan %+v", scan)
	}
	if clean := scansOf(t, b, "other", 1)[0]; clean.Outcome != report.Clean || clean.Opened != 0 {
		t.Errorf("scan %+v", clean)
	}

	post("2", deployment("api", "hostNetwork: true\n      volumes: [{name: v, nfs: {}}]")) // nothing new
	post("3", deployment("api", "hostNetwork: true\n      hostPID: true"))
	post("4", deployment("api", ""))
	want := []string{
		"changed high baseline/hostNamespaces r2",
		"resolved medium restricted/restrictedVolumes r2 fixed",
		"resolved high baseline/hostNamespaces r3 fixed",
	}
	got = told(deltasOf(t, b, "api", 5)[2:])
	slices.Sort(got[:2])
	slices.Sort(want[:2])
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	scans := scansOf(t, b, "api", 4)
	if last := scans[3]; last.Outcome != report.Clean || last.Resolved != 1 || scans[1].Opened != 0 {
		t.Errorf("scans %+v", scans)
	}
	s, _, err := b.State(t.Context(), finding.ClassPSA, assetOf("api"))
	if err != nil || len(s.Open) != 0 || len(s.Pending) != 0 || s.Outcome != report.Clean {
		t.Errorf("state %+v, %v", s, err)
	}
}

// A set of before that is judged late takes nothing back.
func TestTheLaterSetWins(t *testing.T) {
	t.Parallel()
	b := newBus(t)
	s := serviceOn(t, b, Config{})
	before, after := manifests("1", deployment("api", "hostPID: true")), manifests("2", deployment("api", ""))
	must(t, s.audit(t.Context(), after, bus.Delivery{Sequence: 2, Attempt: 1}))
	must(t, s.audit(t.Context(), before, bus.Delivery{Sequence: 1, Attempt: 1}))
	state, _, err := b.State(t.Context(), finding.ClassPSA, assetOf("api"))
	if err != nil || len(state.Open) != 0 || state.Generation != 2 {
		t.Errorf("state %+v, %v", state, err)
	}
	if scans := scansOf(t, b, "api", 2); scans[1].Reason != reason.Superseded {
		t.Errorf("scans %+v", scans)
	}
	if last, err := b.LastDelta(t.Context()); err != nil || last != 0 {
		t.Errorf("%d deltas, %v", last, err)
	}
}

// Another version or level of the standards resolves as withdrawn what it does not find.
func TestAnotherStandard(t *testing.T) {
	t.Parallel()
	b := newBus(t)
	body := deployment("api", "hostUsers: false\n      volumes: [{name: v, nfs: {}}]")
	must(t, serviceOn(t, b, Config{Version: "v1.34"}).audit(t.Context(), manifests("1", body), bus.Delivery{Sequence: 1}))
	must(t, serviceOn(t, b, Config{Levels: []string{"baseline"}}).audit(t.Context(), manifests("2", body), bus.Delivery{Sequence: 2}))
	want := []string{"opened medium restricted/restrictedVolumes r1", "resolved medium restricted/restrictedVolumes r2 withdrawn"}
	if diff := cmp.Diff(want, told(deltasOf(t, b, "api", 2))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What can not be read is told as a dead letter; the rest is judged all the same.
func TestUnreadDocuments(t *testing.T) {
	t.Parallel()
	b := newBus(t)
	run(t, serviceOn(t, b, Config{}))
	_, err := b.PublishEvent(t.Context(), manifests("1", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: x}\n"+deployment("api", "hostPID: true")))
	must(t, err)
	deltasOf(t, b, "api", 1)
	notices := watched(t, b.WatchSystem, func(all []system.Notice) bool { return all[len(all)-1].Kind == system.DeadLettered })
	if !strings.Contains(notices[len(notices)-1].Message, "psaauditor refused") {
		t.Errorf("%+v", notices)
	}
	var letters []system.DeadLetter
	must(t, b.DeadLetters(t.Context(), func(_ uint64, l system.DeadLetter) error { letters = append(letters, l); return nil }))
	if len(letters) != 1 || letters[0].Reason != reason.Malformed || !strings.Contains(letters[0].Detail, "document 1: Pod: ") {
		t.Fatalf("%+v", letters)
	}
	// Driving it again repeats nothing.
	must(t, b.Redrive(t.Context(), 1, nil))
	scansOf(t, b, "api", 2)
	if last, err := b.LastDelta(t.Context()); err != nil || last != 1 {
		t.Errorf("%d deltas, %v", last, err)
	}
}

// A process that dies at any write, before or after it, costs nothing: the next attempt ends with the same
// deltas, state and scan as if nothing had happened.
func TestAuditDiesAnywhere(t *testing.T) {
	t.Parallel()
	nc := bustest.Start(t)
	sound := bustest.On(t, nc, bus.Config{}, bus.Options{})
	want := []string{
		"opened high baseline/hostNamespaces r1", "changed high baseline/hostNamespaces r2", "opened high baseline/hostPorts r1",
	}
	slices.Sort(want)
	dies := func(n int) (died bool) {
		name, seq := fmt.Sprintf("w%d", n), uint64(10*n)
		s := serviceOn(t, sound, Config{})
		must(t, s.audit(t.Context(), manifests("before", deployment(name, "hostPID: true")), bus.Delivery{Sequence: seq, Attempt: 1}))
		at := manifests("at", strings.Replace(deployment(name, "hostNetwork: true"), "name: a,", "name: a, ports: [{containerPort: 80}],", 1))
		ops := 0
		mortal, err := bus.New(nc, bus.Config{}, bus.Options{Logger: slog.New(slog.DiscardHandler), Fault: func(string, bus.Phase) error {
			if ops++; ops == n {
				died = true
				return errors.New("killed")
			}
			return nil
		}})
		must(t, err)
		err = serviceOn(t, mortal, Config{}).audit(t.Context(), at, bus.Delivery{Sequence: seq + 1, Attempt: 1})
		if died == (err == nil) {
			t.Fatalf("killed at operation %d: %v, audit: %v", n, died, err)
		}
		must(t, s.audit(t.Context(), at, bus.Delivery{Sequence: seq + 1, Attempt: 2}))
		got := told(deltasOf(t, sound, name, 3))
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("killed at operation %d (-want +got):\n%s", n, diff)
		}
		state, _, err := sound.State(t.Context(), finding.ClassPSA, assetOf(name))
		if err != nil || len(state.Pending) != 0 || len(state.Open) != 2 || state.Generation != seq+1 {
			t.Fatalf("killed at operation %d: state %+v, %v", n, state, err)
		}
		scans := scansOf(t, sound, name, 2)
		if last := scans[1]; last.Opened != 1 || last.Changed != 1 || last.Generation != seq+1 {
			t.Fatalf("killed at operation %d: scans %+v", n, scans)
		}
		return died
	}
	n := 1
	for ; dies(n); n++ {
	}
	if n <= 2*5 { // state, two deltas, scan, state
		t.Errorf("only %d operations were killed", n-1)
	}
	// Nothing came after what was waited for.
	seen := map[string]bool{}
	last, err := sound.LastDelta(t.Context())
	must(t, err)
	watched(t, sound.WatchDeltas, func(all []finding.Delta) bool {
		d := all[len(all)-1]
		if seen[d.EventID] {
			t.Errorf("%s was told twice", d.EventID)
		}
		seen[d.EventID] = true
		return len(all) == int(last)
	})
	if int(last) != 3*n {
		t.Errorf("%d deltas of %d workloads, want 3 each", last, n)
	}
}

func TestConfig(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Levels: []string{"baseline", "privileged"}, Version: "1.34", Slots: -1}.Validate()
	for _, want := range []string{"levels[1]: ", "version: ", "slots: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if _, err := New(Config{Slots: -1}, Deps{}); err == nil {
		t.Error("a bad configuration was taken")
	}
}

// stopped refuses to take more work.
func TestStopping(t *testing.T) {
	t.Parallel()
	b := newBus(t)
	stopping := make(chan struct{})
	close(stopping)
	err := serviceOn(t, b, Config{}).audit(t.Context(), manifests("1", deployment("api", "")), bus.Delivery{Sequence: 1, Stopping: stopping})
	if !errors.Is(err, bus.ErrStopping) {
		t.Errorf("%v", err)
	}
}

// Other kinds are somebody else's.
func TestOtherEvents(t *testing.T) {
	t.Parallel()
	if err := serviceOn(t, newBus(t), Config{}).audit(context.Background(), event.Event{ID: "x", Kind: event.KindImage}, bus.Delivery{}); err != nil {
		t.Error(err)
	}
}
