package alertrouter_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/services/alertrouter"
)

func newBus(t *testing.T) *bus.Bus {
	t.Helper()
	return bustest.New(t, bus.Config{}, bus.Options{Logger: logger(t)})
}

func TestFiresAndResolves(t *testing.T) {
	t.Parallel()
	b, h := newBus(t), newHook(t)
	start(t, b, alertrouter.Config{Config: file(t, simple(h))})

	publish(t, b, delta("team/api", "CVE-1", 1, finding.Opened), delta("team/api", "CVE-2", 1, finding.Opened))
	p := h.last(t, "firing:CVE-1 firing:CVE-2")
	if p.Version != "4" || p.Status != "firing" || p.Receiver != "team" || p.Reason != "first notification" || p.Key == "" {
		t.Errorf("payload is %+v", p)
	}
	for name, want := range map[string]string{
		"alertname": "Vulnerability", "class": "vuln", "severity": "critical", "registry": "registry.example", "repository": "team/api", "track": "main",
		"platform": "linux/amd64", "package": "liblzma5", "type": "debian", "fixable": "yes", "cause": "push", "asset": "registry.example/team/api:main",
	} {
		if p.CommonLabels[name] != want {
			t.Errorf("label %s is %q, want %q", name, p.CommonLabels[name], want)
		}
	}
	if a := p.Alerts[0]; a.Annotations["fix"] != "5.6.2" || a.Annotations["summary"] != "CVE-1 in liblzma5 5.6.0 (critical) of registry.example/team/api:main" || !a.StartsAt.Equal(began.Add(time.Second)) {
		t.Errorf("alert is %+v", a)
	}
	publish(t, b, delta("team/api", "CVE-1", 2, finding.Resolved))
	p = h.last(t, "firing:CVE-2 resolved:CVE-1")
	if p.Reason != "some alerts resolved" {
		t.Errorf("reason is %q", p.Reason)
	}
	publish(t, b, delta("team/api", "CVE-2", 2, finding.Resolved))
	p = h.last(t, "resolved:CVE-2")
	if p.Status != "resolved" || p.Reason != "all alerts resolved" || p.CommonAnnotations["resolution"] != "fixed" {
		t.Errorf("payload is %+v", p)
	}
	if n := len(h.all()); n != 3 {
		t.Errorf("%d posts, want 3", n)
	}
	empty(t, b)
}

func TestRepeatsWhatStillFires(t *testing.T) {
	t.Parallel()
	b, h := newBus(t), newHook(t)
	start(t, b, alertrouter.Config{Config: file(t, strings.Replace(simple(h), "repeat_interval: 1h", "repeat_interval: 1s", 1))})
	publish(t, b, delta("team/api", "CVE-1", 1, finding.Opened))
	posts := h.wait(t, 3)
	for i, want := range []string{"first notification", "repeat interval elapsed", "repeat interval elapsed"} {
		if posts[i].Reason != want || posts[i].says() != "firing:CVE-1" {
			t.Errorf("post %d: %q says %q", i, posts[i].Reason, posts[i].says())
		}
	}
}

// A finding that becomes worse moves to whoever wants it, and is over where it was.
func TestChangedMovesBetweenGroups(t *testing.T) {
	t.Parallel()
	b, all, critical := newBus(t), newHook(t), newHook(t)
	start(t, b, alertrouter.Config{Config: file(t, "route:\n  receiver: all\n  "+quick+`
  routes: [{receiver: critical, matchers: [severity=critical]}]
receivers:
- {name: all, webhook_configs: [{url: '`+all.URL+`'}]}
- {name: critical, webhook_configs: [{url: '`+critical.URL+`'}]}
`)})
	first := delta("team/api", "CVE-1", 1, finding.Opened)
	first.Finding.Severity = report.High
	publish(t, b, first)
	all.last(t, "firing:CVE-1")
	worse := delta("team/api", "CVE-1", 2, finding.Changed)
	worse.Old, worse.Cause = &first.Finding, event.CauseRematch
	publish(t, b, worse)
	p := critical.last(t, "firing:CVE-1")
	if p.CommonAnnotations["change"] != "severity: critical, was high" || p.CommonLabels["cause"] != "push" {
		t.Errorf("post is %+v", p)
	}
	p = all.last(t, "resolved:CVE-1")
	if p.CommonLabels["severity"] != "high" {
		t.Error("it is over by other labels than it was told with")
	}
	gone := delta("team/api", "CVE-1", 3, finding.Resolved)
	gone.Cause = event.CauseRematch
	publish(t, b, gone)
	critical.last(t, "resolved:CVE-1")
	empty(t, b)
}

func TestBackfillIsToldToWhoAsksForIt(t *testing.T) {
	t.Parallel()
	b, h, asked := newBus(t), newHook(t), newHook(t)
	start(t, b, alertrouter.Config{Config: file(t, "route:\n  receiver: team\n  "+quick+`
  routes:
  - receiver: team
    matchers: [severity=high]
  - receiver: asked
    matchers: [cause=~"rematch|crawl", vulnerability="CVE-3"]
receivers:
- {name: team, webhook_configs: [{url: '`+h.URL+`'}]}
- {name: asked, webhook_configs: [{url: '`+asked.URL+`'}]}
`)})
	for i, cause := range []event.Cause{event.CauseCrawl, event.CauseRematch, event.CauseRematch} {
		d := delta("team/api", fmt.Sprintf("CVE-%d", i+1), 1, finding.Opened)
		d.Cause = cause
		publish(t, b, d)
	}
	publish(t, b, delta("team/api", "CVE-4", 1, finding.Opened))
	asked.last(t, "firing:CVE-3")
	h.last(t, "firing:CVE-4")
	// What nobody was told of ends without a word.
	d := delta("team/api", "CVE-1", 2, finding.Resolved)
	d.Cause = event.CauseCrawl
	publish(t, b, d, delta("team/api", "CVE-4", 2, finding.Resolved))
	h.last(t, "resolved:CVE-4")
}

func TestWorkloadsAndTroubles(t *testing.T) {
	t.Parallel()
	b, h := newBus(t), newHook(t)
	start(t, b, alertrouter.Config{Config: file(t, "route:\n  receiver: team\n  group_by: [alertname]\n  "+quick+"\nreceivers: [{name: team, webhook_configs: [{url: '"+h.URL+"'}]}]\n")})
	w := finding.Workload{Cluster: "prod", Namespace: "shop", Kind: "Deployment", Name: "cart"}
	id := finding.WorkloadID(w, "baseline", "hostNamespaces")
	publish(t, b, finding.Delta{
		EventID: finding.EventID(id, 1), Asset: finding.Asset{Workload: w}, Transition: finding.Opened, Cause: event.CausePush, At: began,
		Finding: finding.Finding{
			ID: id, Revision: 1, Class: finding.ClassPSA, Severity: report.High,
			PodSecurity: finding.PodSecurity{Level: "baseline", Check: "hostNamespaces", Message: "host namespaces (hostNetwork=true)", Version: "latest", Fields: []string{"spec.template.spec.hostNetwork"}},
		},
	})
	p := h.last(t, "firing:hostNamespaces")
	for name, want := range map[string]string{"class": "psa", "cluster": "prod", "namespace": "shop", "kind": "Deployment", "name": "cart", "level": "baseline", "asset": "prod/shop/Deployment/cart"} {
		if p.CommonLabels[name] != want {
			t.Errorf("label %s is %q, want %q", name, p.CommonLabels[name], want)
		}
	}
	if p.CommonAnnotations["description"] != "host namespaces (hostNetwork=true)" || p.CommonAnnotations["fields"] != "spec.template.spec.hostNetwork" {
		t.Errorf("annotations are %v", p.CommonAnnotations)
	}
	for _, kind := range []system.Kind{system.DatabaseLoaded, system.StreamFull} {
		must(t, b.PublishSystem(t.Context(), system.Notice{ID: "n-" + string(kind), Kind: kind, Subject: "EVENTS", Message: "raise its limit", At: began}))
	}
	p = h.last(t, "firing:stream-full")
	if place, _, err := b.AlertPlace(t.Context(), "n-stream-full"); err != nil || len(place.Groups) > 0 {
		t.Errorf("a place that is kept for ever: %+v, %v", place, err)
	}
	if p.CommonLabels["severity"] != "critical" || p.CommonLabels["subject"] != "EVENTS" || p.CommonAnnotations["description"] != "raise its limit" {
		t.Errorf("payload is %+v", p)
	}
}

func TestDeadReceiverBlocksNobody(t *testing.T) {
	t.Parallel()
	b, dead, h := newBus(t), newHook(t), newHook(t)
	dead.set(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }) // never answers
	t.Cleanup(dead.CloseClientConnections)
	start(t, b, alertrouter.Config{SendSlots: 4, Timeout: 300 * time.Millisecond, Config: file(t, "route:\n  receiver: team\n  group_by: [repository]\n  "+quick+`
receivers:
- name: team
  webhook_configs: [{url: '`+dead.URL+`'}, {url: '`+h.URL+`'}]
`)})
	const repositories = 40 // ten times the slots
	for i := range repositories {
		publish(t, b, delta(fmt.Sprintf("team/api-%d", i), fmt.Sprintf("CVE-%d", i), 1, finding.Opened))
	}
	h.wait(t, repositories)
	if n, err := b.Notifications(t.Context()); err != nil || n < repositories {
		t.Errorf("%d notifications wait for the dead receiver, %v", n, err)
	}
	// It comes back, and gets how things are now.
	publish(t, b, delta("team/api-0", "CVE-0", 2, finding.Resolved))
	dead.set(nil)
	dead.wait(t, repositories)
	eventually(t, "the last one is told that CVE-0 is over", func() bool {
		for _, p := range dead.all() {
			if p.says() == "resolved:CVE-0" {
				return true
			}
		}
		return false
	})
	dead.consistent(t)
}

func TestGivesUpIntoADeadLetter(t *testing.T) {
	t.Parallel()
	b, h := newBus(t), newHook(t)
	var code atomic.Int64
	code.Store(503)
	h.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(code.Load())) })
	start(t, b, alertrouter.Config{GiveUp: time.Second, Config: file(t, simple(h))})
	letter := func() (found *system.DeadLetter) {
		must(t, b.DeadLetters(t.Context(), func(_ uint64, l system.DeadLetter) error {
			found = &l
			return nil
		}))
		return found
	}
	publish(t, b, delta("team/api", "CVE-1", 1, finding.Opened))
	eventually(t, "a dead letter", func() bool { return letter() != nil })
	l := letter()
	if l.Service != "alertrouter" || l.Reason != reason.Undelivered || l.Attempts < 2 || !strings.Contains(l.Detail, `webhook/0 of "team": answered 503`) || len(l.Data) == 0 {
		t.Errorf("letter is %+v", l)
	}
	// The group goes on.
	h.set(nil)
	publish(t, b, delta("team/api", "CVE-2", 1, finding.Opened))
	h.last(t, "firing:CVE-1 firing:CVE-2")
}

// A receiver that refuses everything is not told of its own dead letters for ever.
func TestDeadLettersOfDeadLettersEnd(t *testing.T) {
	t.Parallel()
	b, h := newBus(t), newHook(t)
	h.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	start(t, b, alertrouter.Config{Config: file(t, strings.Replace(simple(h), quick, strings.Replace(quick, "300ms", "10ms", 2), 1))})
	publish(t, b, delta("team/api", "CVE-1", 1, finding.Opened))
	letters := func() (n int) {
		must(t, b.DeadLetters(t.Context(), func(uint64, system.DeadLetter) error { n++; return nil }))
		return n
	}
	eventually(t, "two letters: of the alert, and of the trouble", func() bool { return letters() == 2 })
	// Were there a third one, it would come before this one is told.
	publish(t, b, delta("team/web", "CVE-2", 1, finding.Opened))
	eventually(t, "two more", func() bool { return letters() >= 4 })
	if n := letters(); n != 4 {
		t.Errorf("%d letters", n)
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	b, h, other := newBus(t), newHook(t), newHook(t)
	path := file(t, simple(h))
	r := start(t, b, alertrouter.Config{Config: path})
	publish(t, b, delta("team/api", "CVE-1", 1, finding.Opened))
	h.last(t, "firing:CVE-1")

	write := func(text string) {
		t.Helper()
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	write("route: {receiver: nobody}\nreceivers: [{name: a, pagerduty_configs: [{routing_key: very-secret}]}]")
	if err := r.Reload(alertrouter.Config{Config: path}); err == nil || strings.Contains(err.Error(), "very-secret") {
		t.Errorf("Reload = %v", err)
	}
	// Routes in another order, other timing, another receiver beside it, another grouping.
	write("route:\n  receiver: other\n  " + quick + "\n  routes: [{receiver: other, matchers: [severity=low]}, {receiver: team, matchers: [severity=critical], group_by: [vulnerability], continue: true}]\nreceivers:\n" +
		"- {name: other, webhook_configs: [{url: '" + other.URL + "'}]}\n- {name: team, webhook_configs: [{url: '" + h.URL + "'}]}\n")
	must(t, r.Reload(alertrouter.Config{Config: path}))
	publish(t, b, delta("team/api", "CVE-2", 1, finding.Opened))
	h.last(t, "firing:CVE-2") // in a group of its own: CVE-1 was not repeated
	// What was told before is over where it was told.
	publish(t, b, delta("team/api", "CVE-1", 2, finding.Resolved))
	h.last(t, "resolved:CVE-1")
	h.consistent(t)
	if n := len(h.all()); n != 3 {
		t.Errorf("%d posts, want 3", n)
	}
	if n := len(other.all()); n != 0 {
		t.Errorf("the other receiver got %d posts", n)
	}
}

func TestRestartTellsNothingAgain(t *testing.T) {
	t.Parallel()
	b, h := newBus(t), newHook(t)
	cfg := alertrouter.Config{Config: file(t, simple(h))}
	for i := range 3 {
		r := start(t, b, cfg)
		publish(t, b, delta("team/api", fmt.Sprintf("CVE-%d", i), 1, finding.Opened))
		h.wait(t, i+1)
		r.stop()
	}
	h.consistent(t)
	if n := len(h.all()); n != 3 {
		t.Errorf("%d posts, want 3", n)
	}
}

// The same delta again, and an older one after a newer, change nothing.
func TestLateAndDoubleDeltas(t *testing.T) {
	t.Parallel()
	b, h := newBus(t), newHook(t)
	start(t, b, alertrouter.Config{Config: file(t, simple(h))})
	publish(t, b, delta("team/api", "CVE-1", 2, finding.Changed))
	h.last(t, "firing:CVE-1")
	late := delta("team/api", "CVE-1", 1, finding.Opened)
	again := delta("team/api", "CVE-1", 2, finding.Changed)
	again.EventID = "told under another id" // or the stream would swallow it
	ended := delta("team/api", "CVE-2", 2, finding.Resolved)
	tooLate := delta("team/api", "CVE-2", 1, finding.Opened)
	publish(t, b, late, again, ended)
	eventually(t, "the end is noted", func() bool {
		p, _, err := b.AlertPlace(t.Context(), ended.Finding.ID)
		return err == nil && p.Revision == 2
	})
	publish(t, b, tooLate, delta("team/api", "CVE-3", 1, finding.Opened))
	h.last(t, "firing:CVE-1 firing:CVE-3")
	if n := len(h.all()); n != 2 {
		t.Errorf("%d posts, want 2", n)
	}
}

func TestHostileText(t *testing.T) {
	t.Parallel()
	b, h := newBus(t), newHook(t)
	start(t, b, alertrouter.Config{Config: file(t, strings.Replace(simple(h), "[repository]", "['...']", 1))})
	nasty := "{{ .ExternalURL }}</script>\"'\n\r\t\x00*.> %\u202e" + strings.Repeat("x", 5000)
	d := delta("team/api", "CVE-1", 1, finding.Opened)
	d.Finding.Package, d.Finding.Title, d.Finding.URL, d.Finding.Fixed, d.Finding.CreatedBy, d.Finding.Path = nasty, nasty, nasty, nasty, nasty, nasty
	d.Finding.Versions = []string{nasty, nasty}
	publish(t, b, d)
	p := h.last(t, "firing:CVE-1")
	for k, v := range p.Alerts[0].Labels {
		if len(v) > 256 {
			t.Errorf("label %s has %d bytes", k, len(v))
		}
	}
	for k, v := range p.Alerts[0].Annotations {
		if len(v) > 1024 {
			t.Errorf("annotation %s has %d bytes", k, len(v))
		}
	}
	if got := p.Alerts[0].Labels["package"]; !strings.HasPrefix(got, "{{ .ExternalURL }}</script>\"'\n\r\t\x00*.> %\u202e") {
		t.Errorf("package is %q", got)
	}
}

// A thousand findings of one image are told in few notifications, and each of them once.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	b, h := newBus(t), newHook(t)
	start(t, b, alertrouter.Config{MaxAlerts: 100, Config: file(t, simple(h))})
	const many = 350
	for i := range many {
		publish(t, b, delta("team/api", fmt.Sprintf("CVE-%d", i), 1, finding.Opened))
	}
	eventually(t, "all are told", func() bool {
		told := map[string]bool{}
		for _, p := range h.all() {
			for _, a := range p.Alerts {
				told[a.Fingerprint] = true
			}
			if len(p.Alerts) > 100 {
				t.Fatalf("a post of %d alerts", len(p.Alerts))
			}
		}
		return len(told) == many
	})
	h.consistent(t)
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	h := newHook(t)
	for _, c := range []struct {
		cfg  alertrouter.Config
		want []string
	}{
		{alertrouter.Config{}, []string{"config: name a configuration"}},
		{alertrouter.Config{Config: "/none/alertmanager.yml", GiveUp: -1, MaxAlerts: 5000}, []string{"config: open /none/alertmanager.yml", "giveUp: ", "maxAlerts: 5000"}},
		{alertrouter.Config{Config: file(t, simple(h)), ExternalURL: "http://u:very-secret@x"}, []string{"externalURL: want a URL without a password"}},
		{alertrouter.Config{Config: file(t, "route: {receiver: a}\nreceivers: [{name: a, webhook_configs: [{url_file: none, http_config: {tls_config: {ca_file: none}}}], email_configs: [{to: a, from: b, smarthost: 'c:1'}]}]")},
			[]string{"config: ", "receivers[0] (a).webhook_configs[0].url_file", "receivers[0] (a).email_configs"}},
	} {
		err := c.cfg.Validate()
		if err == nil {
			t.Errorf("%+v: accepted", c.cfg)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in %q", want, err)
			}
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if at, _, ok := strings.Cut(line, ": "); !ok || strings.ContainsAny(at, " /") {
				t.Errorf("line %q does not begin with a path", line)
			}
		}
		if strings.Contains(err.Error(), "very-secret") {
			t.Errorf("shows a secret: %v", err)
		}
	}
	if err := (alertrouter.Config{Config: file(t, simple(h))}).Validate(); err != nil {
		t.Error(err)
	}
}

// lossy stands between router and bus, and loses timers.
type lossy struct{ *bus.Bus }

func (l lossy) CommitAlerts(ctx context.Context, b alert.Batch) error {
	for i := range b.Groups {
		b.Groups[i].Timer = false
		b.Groups[i].Group.Due = b.Groups[i].Group.Due.Add(-time.Hour) // it is late already
	}
	return l.Bus.CommitAlerts(ctx, b)
}

func TestSweepFindsLostTimers(t *testing.T) {
	t.Parallel()
	b, h := newBus(t), newHook(t)
	s, err := alertrouter.New(alertrouter.Config{Config: file(t, simple(h)), Sweep: 50 * time.Millisecond}, alertrouter.Deps{Bus: lossy{b}, Logger: logger(t)})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	publish(t, b, delta("team/api", "CVE-1", 1, finding.Opened))
	h.last(t, "firing:CVE-1")
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
