// Package route reads Alertmanager's configuration file, by Alertmanager's own parser, and says where it
// leads an alert. Routes, matchers, grouping, timing, time intervals and templates mean what they mean
// there. What Pratique adds is one rule: alerts from backfill follow only routes that ask for them.
package route

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/alertmanager/pkg/labels"
	"github.com/prometheus/alertmanager/timeinterval"
	"github.com/prometheus/common/model"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/services/alertrouter/group"
)

// LabelCause is the label that a route asks for alerts from backfill with.
const LabelCause = "cause"

// Table is a configuration file as it is in use. It does not change.
type Table struct {
	Receivers []config.Receiver
	Templates []string // files, as in the configuration
	Warnings  []string // what the file asks for and nobody does

	root      *dispatch.Route
	receivers map[string]config.Receiver
	intervals *timeinterval.Intervener
}

// Integration is one way in which a receiver is told.
type Integration struct {
	Kind         string // "webhook", "slack"
	Index        int
	SendResolved bool
}

// Name tells integrations of one receiver apart.
func (i Integration) Name() string { return i.Kind + "/" + strconv.Itoa(i.Index) }

// Integrations of a receiver, in the order of the file.
func Integrations(r config.Receiver) []Integration {
	var all []Integration
	for i, c := range r.WebhookConfigs {
		all = append(all, Integration{"webhook", i, c.SendResolved()})
	}
	for i, c := range r.SlackConfigs {
		all = append(all, Integration{"slack", i, c.SendResolved()})
	}
	return all
}

// Match answers the groups that an alert goes to; none when it goes nowhere. A quiet alert follows only
// routes that have a positive matcher for the label cause, or are below one.
func (t *Table) Match(alertLabels map[string]string, quiet bool) []group.Target {
	set := make(model.LabelSet, len(alertLabels))
	for k, v := range alertLabels {
		set[model.LabelName(k)] = model.LabelValue(v)
	}
	var targets []group.Target
	seen := map[string]bool{}
	for _, r := range match(t.root, set, !quiet) {
		opts := r.RouteOpts
		for _, i := range Integrations(t.receivers[opts.Receiver]) {
			target := group.Target{
				Receiver: opts.Receiver, Integration: i.Name(),
				Labels: groupLabels(opts, alertLabels), RouteLabels: plain(opts.Labels),
				Timing: alert.Timing{Wait: opts.GroupWait, Interval: opts.GroupInterval, Repeat: opts.RepeatInterval},
				Mute:   opts.MuteTimeIntervals, Active: opts.ActiveTimeIntervals,
			}
			if id := target.ID(); !seen[id] { // two routes may lead to one group; the first one says how it is told
				seen[id] = true
				targets = append(targets, target)
			}
		}
	}
	return targets
}

// match walks the tree as Alertmanager does, depth first and left to right, but for routes that were not
// asked: to a quiet alert they are not there.
func match(r *dispatch.Route, set model.LabelSet, asked bool) []*dispatch.Route {
	if !r.Matchers.Matches(set) {
		return nil
	}
	asked = asked || slices.ContainsFunc(r.Matchers, asks)
	var all []*dispatch.Route
	for _, child := range r.Routes {
		found := match(child, set, asked)
		all = append(all, found...)
		if found != nil && !child.Continue {
			break
		}
	}
	if len(all) == 0 && asked {
		all = append(all, r)
	}
	return all
}

func asks(m *labels.Matcher) bool {
	return m.Name == LabelCause && (m.Type == labels.MatchEqual || m.Type == labels.MatchRegexp)
}

func groupLabels(opts dispatch.RouteOpts, all map[string]string) map[string]string {
	common := map[string]string{}
	for k, v := range all {
		if _, ok := opts.GroupBy[model.LabelName(k)]; ok || opts.GroupByAll {
			common[k] = v
		}
	}
	return common
}

func plain(set model.LabelSet) map[string]string {
	if len(set) == 0 {
		return nil
	}
	m := make(map[string]string, len(set))
	for k, v := range set {
		m[string(k)] = string(v)
	}
	return m
}

// Integration answers how a group is told; false when the configuration no longer has it.
func (t *Table) Integration(receiver, integration string) (Integration, bool) {
	for _, i := range Integrations(t.receivers[receiver]) {
		if i.Name() == integration {
			return i, true
		}
	}
	return Integration{}, false
}

// Muted tells whether a group is not to be told now. An interval that the file no longer has mutes nothing.
func (t *Table) Muted(mute, active []string, now time.Time) bool {
	if within, _, err := t.intervals.Mutes(mute, now); err == nil && within {
		return true
	}
	if len(active) == 0 {
		return false
	}
	within, _, err := t.intervals.Mutes(active, now)
	return err == nil && !within
}
