package psaauditor

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/ledger"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/psaauditor/manifest"
	"github.com/pratique-sec/pratique/services/psaauditor/verdict"
)

// audit judges one posted set, workload by workload, each of them idempotent. What could not be read of it
// ends as a dead letter, after the rest was judged.
func (s *Service) audit(ctx context.Context, e event.Event, d bus.Delivery) error {
	if e.Kind != event.KindManifest {
		return nil // another kind's consumer takes it
	}
	start := time.Now()
	outcome, err := s.set(ctx, e, d)
	s.metrics.sets.WithLabelValues(outcome).Inc()
	s.metrics.seconds.Observe(time.Since(start).Seconds())
	return err
}

func (s *Service) set(ctx context.Context, e event.Event, d bus.Delivery) (outcome string, err error) {
	set, err := manifest.Parse(e.Manifests.Body)
	if err != nil {
		return setRefused, reason.Refusef(reason.OverBound, "manifests: %w", err)
	}
	for _, w := range workloads(set, e.Manifests) {
		select {
		case <-d.Stopping: // what was judged is judged again, and nothing is told twice
			return setRetried, bus.ErrStopping
		default:
		}
		if err := s.workload(ctx, w, e, d.Sequence); err != nil {
			return setRetried, err
		}
	}
	s.log.InfoContext(ctx, "manifests judged", slog.String("cluster", e.Manifests.Cluster), slog.Uint64("sequence", d.Sequence),
		slog.Int("objects", len(set.Objects)), slog.Int("others", set.Other), slog.Int("unread", len(set.Problems)))
	if len(set.Problems) == 0 {
		return setJudged, nil
	}
	return setPartial, reason.Refusef(reason.Malformed, "manifests of cluster %s: %s", e.Manifests.Cluster, listed(set.Problems))
}

// listed says the first problems, and how many there are.
func listed(problems []manifest.Problem) string {
	const most = 10
	var out []string
	for _, p := range problems[:min(len(problems), most)] {
		out = append(out, p.String())
	}
	if n := len(problems) - most; n > 0 {
		out = append(out, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(out, "; ")
}

// workload moves one asset's findings on. The event's sequence is the state's generation: a set that was
// posted later is never overwritten by one from before.
func (s *Service) workload(ctx context.Context, w workload, e event.Event, sequence uint64) error {
	found := s.findings(w)
	scan := finding.Scan{
		Asset: &w.asset, Outcome: report.Clean, Generation: sequence,
		Cause: e.Cause, Request: fate.RequestID(sequence, e.ID), Engine: s.engine,
		Received: e.Received, Finished: s.now().UTC(),
	}
	for _, f := range found {
		scan.Outcome = report.Findings
		scan.Counts.Add(f.Severity)
	}
	scan.ID = finding.ScanID(scan)
	current, err := s.ledger.Move(ctx, scan, ledger.Change{
		After: func(prev finding.State) bool { return prev.Generation > sequence },
		Made:  func(prev finding.State) bool { return prev.Generation == sequence },
		Next: func(prev finding.State) finding.State {
			return finding.DiffWorkload(prev, found, s.version.String(), finding.Judgement{
				Asset: w.asset, Generation: sequence, Cause: e.Cause, Engine: s.engine, At: s.now().UTC(),
			})
		},
	})
	switch {
	case err != nil:
		return fmt.Errorf("%s %s/%s: %w", w.asset.Workload.Kind, w.asset.Workload.Namespace, w.asset.Workload.Name, err)
	case current:
		s.metrics.workloads.WithLabelValues(string(scan.Outcome)).Inc()
	default:
		s.metrics.workloads.WithLabelValues(workloadSuperseded).Inc()
	}
	return nil
}

// standards is where the levels are explained.
const standards = "https://kubernetes.io/docs/concepts/security/pod-security-standards/#"

// findings lists the checks that a workload fails at the levels that are judged, each once, as of the level
// that it belongs to: restricted includes baseline, and would say most of it again.
func (s *Service) findings(w workload) []finding.Finding {
	byCheck := map[string]*violation{}
	for _, o := range w.objects {
		for _, l := range s.levels {
			for _, v := range verdict.Evaluate(l, s.version, o.Metadata, o.Spec) {
				known := byCheck[v.Check]
				if known == nil {
					known = &violation{level: v.Level}
					byCheck[v.Check] = known
				}
				known.add(v, o, s.version)
			}
		}
	}
	out := make([]finding.Finding, 0, len(byCheck))
	for check, v := range byCheck {
		out = append(out, v.finding(w.asset.Workload, check, s.version))
	}
	slices.SortFunc(out, func(a, b finding.Finding) int { return strings.Compare(a.ID, b.ID) })
	return out
}
