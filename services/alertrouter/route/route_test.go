package route_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/services/alertrouter/route"
)

func file(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "alertmanager.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, text string) *route.Table {
	t.Helper()
	table, err := route.Load(file(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

const receivers = `
receivers:
- {name: nobody}
- {name: all, webhook_configs: [{url: http://hook.example/all}]}
- {name: security, webhook_configs: [{url: http://hook.example/1}, {url: http://hook.example/2, send_resolved: false}], slack_configs: [{api_url: https://hooks.slack.example/x, channel: '#sec'}]}
- {name: night, webhook_configs: [{url: http://hook.example/night}]}
`

const tree = `
route:
  receiver: all
  group_by: [repository]
  group_wait: 10s
  routes:
  - receiver: nobody
    matchers: [severity=~"low|unknown"]
  - receiver: security
    matchers: [severity="critical"]
    group_by: [vulnerability]
    repeat_interval: 24h
    continue: true
    labels: {owner: security}
    routes:
    - receiver: night
      matchers: [fixable="yes", cause=~"rematch|crawl"]
      mute_time_intervals: [weekend]
  - receiver: night
    matchers: [cause!="push", registry="old.example"]
time_intervals:
- name: weekend
  time_intervals: [{weekdays: [saturday, sunday]}]
- name: office
  time_intervals: [{times: [{start_time: '09:00', end_time: '17:00'}]}]
` + receivers

func TestMatch(t *testing.T) {
	table := load(t, tree)
	for _, c := range []struct {
		name, labels string
		quiet        bool
		want         []string
	}{
		{"default", "severity=high repository=team/api cause=push", false, []string{"all webhook/0 repository=team/api"}},
		{"nobody", "severity=low repository=team/api cause=push", false, nil},
		{"continue goes on, to the default where no later sibling matches", "severity=critical vulnerability=CVE-1 repository=team/api cause=push", false,
			[]string{"security webhook/0 vulnerability=CVE-1", "security webhook/1 vulnerability=CVE-1", "security slack/0 vulnerability=CVE-1"}},
		{"a matcher that denies is no question", "registry=old.example cause=rematch severity=high", true, nil},
		{"a positive one is", "severity=critical vulnerability=CVE-1 fixable=yes cause=rematch", true, []string{"night webhook/0 vulnerability=CVE-1"}},
		{"backfill that nobody asked for", "severity=critical vulnerability=CVE-1 fixable=no cause=rematch", true, nil},
		{"what is not quiet follows such a route too", "severity=high registry=old.example repository=a cause=request", false, []string{"night webhook/0 repository=a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, target := range table.Match(labels(c.labels), c.quiet) {
				var group []string
				for k, v := range target.Labels {
					group = append(group, k+"="+v)
				}
				slices.Sort(group)
				got = append(got, fmt.Sprint(target.Receiver, " ", target.Integration, " ", strings.Join(group, ",")))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	target := table.Match(labels("severity=critical vulnerability=CVE-1 cause=push"), false)[0]
	if target.Wait != 10*time.Second || target.Interval != 5*time.Minute || target.Repeat != 24*time.Hour || target.RouteLabels["owner"] != "security" {
		t.Errorf("target is %+v", target)
	}
}

func labels(s string) map[string]string {
	m := map[string]string{}
	for pair := range strings.FieldsSeq(s) {
		k, v, _ := strings.Cut(pair, "=")
		m[k] = v
	}
	return m
}

// Groups survive every change of the file that is not about them.
func TestGroupsAreKnownByReceiverAndLabelsAlone(t *testing.T) {
	before := load(t, tree).Match(labels("severity=high repository=team/api"), false)
	after := load(t, `
route:
  receiver: nobody
  routes:
  - {receiver: night, matchers: [severity=none]}
  - {receiver: all, group_by: [repository], matchers: [severity!=none], group_wait: 3s, repeat_interval: 9h}
`+receivers).Match(labels("severity=high repository=team/api"), false)
	if before[0].ID() != after[0].ID() {
		t.Error("a group has another id because routes moved")
	}
}

func TestTwoRoutesToOneGroupTellItOnce(t *testing.T) {
	targets := load(t, `
route:
  receiver: all
  routes:
  - {receiver: all, matchers: [severity=high], continue: true}
  - {receiver: all, matchers: [fixable=yes]}
`+receivers).Match(labels("severity=high fixable=yes"), false)
	if len(targets) != 1 {
		t.Errorf("%d targets", len(targets))
	}
}

func TestMuted(t *testing.T) {
	table := load(t, tree)
	friday := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		mute, active []string
		at           time.Time
		want         bool
	}{
		{nil, nil, friday, false},
		{[]string{"weekend"}, nil, friday, false},
		{[]string{"weekend"}, nil, friday.AddDate(0, 0, 1), true},
		{nil, []string{"office"}, friday, false},
		{nil, []string{"office"}, friday.Add(8 * time.Hour), true},
		{[]string{"of another file"}, []string{"of another file"}, friday, false},
	} {
		if got := table.Muted(c.mute, c.active, c.at); got != c.want {
			t.Errorf("mute %v, active %v at %v: %v", c.mute, c.active, c.at, got)
		}
	}
}

func TestProblemsHavePaths(t *testing.T) {
	path := file(t, `
templates: [broken.tmpl]
route:
  receiver: pager
  routes: [{receiver: mixed, matchers: [a=b]}]
receivers:
- {name: pager, pagerduty_configs: [{routing_key: very-secret-key}]}
- name: mixed
  webhook_configs: [{url_file: none.txt}]
  email_configs: [{to: a@example.com, from: b@example.com, smarthost: 'mail.example:25'}]
- {name: unused, opsgenie_configs: [{api_key: very-secret-key}]}
`)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "broken.tmpl"), []byte("{{ define"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := route.Load(path)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"receivers[0] (pager).pagerduty_configs: Pratique sends to", "receivers[1] (mixed).email_configs: Pratique sends to",
		"receivers[1] (mixed).webhook_configs[0].url_file: open ", "templates: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "opsgenie") {
		t.Errorf("says too much: %v", err)
	}
}

func TestWhatIsNotDoneIsSaid(t *testing.T) {
	table := load(t, `
route: {receiver: all}
inhibit_rules: [{source_matchers: [severity=critical], target_matchers: [severity=high], equal: [asset]}]
receivers:
- {name: all, webhook_configs: [{url: http://hook.example}]}
- {name: unused, opsgenie_configs: [{api_key: x}]}
- {name: slack, slack_configs: [{api_url: 'https://slack.com/api/chat.postMessage', update_message: true}]}
`)
	var got []string
	for _, w := range table.Warnings {
		at, _, _ := strings.Cut(w, ": ")
		got = append(got, at)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"inhibit_rules", "receivers[1] (unused).opsgenie_configs", "receivers[2] (slack).slack_configs[0].update_message"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "no yaml": "route: [", "no route": "receivers: [{name: a}]", "unknown key": "route: {receiver: all, grupo: x}" + receivers,
		"undefined receiver": "route: {receiver: none}" + receivers, "bad matcher": "route: {receiver: all, routes: [{matchers: ['a=~(']}]}" + receivers,
		"undefined interval": "route: {receiver: all, routes: [{mute_time_intervals: [x]}]}" + receivers, "too large": strings.Repeat("#", 4<<20+1),
		"url":       "route: {receiver: a}\nreceivers: [{name: a, webhook_configs: [{url: 'ftp://user:very-secret@hook.example/very-secret'}]}]",
		"slack url": "route: {receiver: a}\nreceivers: [{name: a, slack_configs: [{api_url: 'https://hooks.slack.example/very-secret\x7f'}]}]",
	} {
		_, err := route.Load(file(t, text))
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "very-secret") {
			t.Errorf("%s: shows a secret: %v", name, err)
		}
	}
	if _, err := route.Load(filepath.Join(t.TempDir(), "none.yml")); err == nil {
		t.Error("a file that is not there: accepted")
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(tree)
	f.Add("route: &a {routes: [*a]}")
	f.Fuzz(func(t *testing.T, text string) {
		table, err := route.Load(file(t, text))
		if err != nil {
			return
		}
		table.Match(labels("severity=critical cause=rematch"), true)
	})
}
