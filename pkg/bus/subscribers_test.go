package bus_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/access/accesstest"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
)

// tenants is an installation with credentials, several teams' findings, and a bus that may do everything.
type tenants struct {
	*testing.T
	server *accesstest.Server
	bus    *bus.Bus
	admin  *nats.Conn
}

func newTenants(t *testing.T) *tenants {
	t.Helper()
	s := accesstest.Start(t)
	nc := s.Connect(t, access.Admin)
	return &tenants{T: t, server: s, admin: nc, bus: bustest.On(t, nc, bus.Config{}, bus.Options{})}
}

// find stores one finding of a repository, in STATE and FINDINGS.
func (n *tenants) find(repository, track string, severity report.Severity) {
	n.Helper()
	a := finding.Asset{Host: "registry.example", Repository: repository, Track: track, Platform: image.Platform{OS: "linux", Architecture: "amd64"}}
	d := someDelta(repository+track+severity.String(), 1)
	d.Asset, d.Finding.Severity = a, severity
	s, rev, err := n.bus.State(n.Context(), finding.ClassVuln, a)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		n.Fatal(err)
	}
	s.Asset, s.Open = a, append(s.Open, d.Finding)
	_, err = n.bus.PutState(n.Context(), finding.ClassVuln, s, rev)
	must(n.T, err)
	must(n.T, n.bus.PublishDelta(n.Context(), d))
}

func (n *tenants) add(s bus.Subscription) bus.Subscriber {
	n.Helper()
	made, err := n.bus.AddSubscriber(n.Context(), s)
	must(n.T, err)
	return made
}

// connect opens a connection with a subscriber's credentials.
func (n *tenants) connect(s bus.Subscriber) *nats.Conn {
	n.Helper()
	creds, err := n.server.Installation.SubscriberIssuer.Issue(access.User{
		Name: s.State, Permissions: access.ForSubscriber(access.Subscription{State: s.State, Findings: s.Findings}),
	})
	must(n.T, err)
	nc, err := nats.Connect("", n.server.OptionsOf(n.T, creds)...)
	must(n.T, err)
	n.Cleanup(nc.Close)
	return nc
}

// read takes and acknowledges what a consumer has now, and answers the subjects.
func read(t *testing.T, nc *nats.Conn, stream, consumer string) []string {
	t.Helper()
	js, err := jetstream.NewWithDomain(nc, access.Domain(""))
	must(t, err)
	c, err := js.Consumer(t.Context(), stream, consumer)
	must(t, err)
	var all []string
	for {
		batch, err := c.FetchNoWait(100)
		must(t, err)
		n := 0
		for m := range batch.Messages() {
			n++
			all = append(all, m.Subject())
			must(t, m.DoubleAck(t.Context()))
		}
		must(t, batch.Error())
		if n == 0 {
			return all
		}
	}
}

func TestSubscriberReadsItsScope(t *testing.T) {
	t.Parallel()
	n := newTenants(t)
	n.find("team-a", "1", report.High)
	made := n.add(bus.Subscription{Name: "a", Class: finding.ClassVuln, Scopes: []string{"registry.example/team-a"}})
	for _, r := range []string{"team-a", "team-a/app/api", "team-ab", "team-b/app", "other/team-a"} {
		n.find(r, "2", report.Low)
	}
	// The track of a repository may be called like a team.
	top := n.add(bus.Subscription{Name: "top", Class: finding.ClassVuln, Scopes: []string{"registry.example/shared/team-a"}})
	n.find("shared", "team-a", report.High)

	nc := n.connect(made)
	const scope = "registry%2Eexample.team-a."
	state := read(t, nc, "STATE", made.State)
	want := []string{"pratique.state.v1.vuln." + scope + "1.linux-amd64", "pratique.state.v1.vuln." + scope + "2.linux-amd64", "pratique.state.v1.vuln." + scope + "app.api.2.linux-amd64"}
	if !slices.Equal(state, want) {
		t.Errorf("STATE:\n%s\nwant\n%s", strings.Join(state, "\n"), strings.Join(want, "\n"))
	}
	deltas := read(t, nc, "FINDINGS", made.Findings)
	want = []string{"pratique.finding.v1.vuln.opened.low." + scope + "2.linux-amd64", "pratique.finding.v1.vuln.opened.low." + scope + "app.api.2.linux-amd64"}
	if !slices.Equal(deltas, want) {
		t.Errorf("FINDINGS:\n%s\nwant\n%s", strings.Join(deltas, "\n"), strings.Join(want, "\n"))
	}
	other := n.connect(top)
	if got := append(read(t, other, "STATE", top.State), read(t, other, "FINDINGS", top.Findings)...); len(got) != 0 {
		t.Errorf("the scope shared/team-a reads the track team-a of shared: %q", got)
	}
	// From the beginning again, by its own credentials.
	js, err := jetstream.NewWithDomain(nc, access.Domain(""))
	must(t, err)
	_, err = js.ResetConsumerToSequence(t.Context(), "STATE", made.State, 1)
	must(t, err)
	if again := read(t, nc, "STATE", made.State); !slices.Equal(again, state) {
		t.Errorf("the snapshot taken again: %q", again)
	}
	if v := n.server.Violations(); len(v) != 0 {
		t.Errorf("refused: %q", v)
	}
}

func TestSubscriberOfSeverities(t *testing.T) {
	t.Parallel()
	n := newTenants(t)
	made := n.add(bus.Subscription{
		Name: "a", Class: finding.ClassVuln, Scopes: []string{"registry.example/x", "registry.example/y"},
		Severities: []report.Severity{report.Critical, report.High},
	})
	for _, severity := range []report.Severity{report.Critical, report.High, report.Medium, report.Low} {
		for _, r := range []string{"x", "y", "z"} {
			n.find(r, "1", severity)
		}
	}
	got := read(t, n.connect(made), "FINDINGS", made.Findings)
	var want []string
	for _, severity := range []string{"critical", "high"} {
		for _, r := range []string{"x", "y"} {
			want = append(want, "pratique.finding.v1.vuln.opened."+severity+".registry%2Eexample."+r+".1.linux-amd64")
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	all, err := n.bus.Subscribers(t.Context())
	must(t, err)
	if len(all) != 1 || fmt.Sprint(all[0].Subscription) != fmt.Sprint(made.Subscription) || all[0].State != made.State || all[0].LastAck.IsZero() {
		t.Errorf("listed as %+v, made as %+v", all, made)
	}
}

// TestSubscriberCanDoNothingElse plays a tenant who tries everything with its credentials.
func TestSubscriberCanDoNothingElse(t *testing.T) {
	t.Parallel()
	n := newTenants(t)
	ctx := t.Context()
	mine := n.add(bus.Subscription{Name: "mine", Class: finding.ClassVuln, Scopes: []string{"registry.example/mine"}})
	other := n.add(bus.Subscription{Name: "other", Class: finding.ClassVuln, Scopes: []string{"registry.example/other"}})
	n.find("mine", "1", report.High)
	n.find("other", "1", report.High)
	must(t, n.bus.PutObject(ctx, "reports", "secret", strings.NewReader("of others")))
	attacker := n.connect(mine)
	victim := n.connect(other)
	judge, err := nats.Connect("", n.server.Options(t, access.Admin)...)
	must(t, err)
	defer judge.Close()

	foreign := 0
	count := func(m *nats.Msg) {
		if strings.Contains(string(m.Data), "other") || strings.Contains(m.Subject, "other") {
			foreign++
		}
	}
	refused := func(what, needle string) {
		t.Helper()
		must(t, attacker.Flush())
		if err := attacker.LastError(); err == nil || !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), needle) {
			t.Errorf("%s was not refused: last error %v", what, err)
		}
	}
	for _, subject := range []string{
		">", "pratique.>", "pratique.live.>", "pratique.finding.>", "pratique.state.>", "pratique.json.>", "pratique.wake.>", "pratique.notice.*",
		"$JS.>", "$JS.API.>", "$JS.ACK.>", "$JS.EVENT.>", "$KV.>", "$O.>", "$SYS.>", "_INBOX.>", "_INBOX_*.>", access.Inbox(other.State) + ".>", access.Inbox("scanner") + ".>",
	} {
		sub, err := attacker.Subscribe(subject, count)
		must(t, err)
		refused("subscribe to "+subject, fmt.Sprintf("Subscription to %q", subject))
		_ = sub.Unsubscribe()
	}
	// Own inboxes are allowed, so answers would be seen.
	inbox := attacker.NewInbox()
	answers, err := attacker.Subscribe(inbox, count)
	must(t, err)
	defer func() { _ = answers.Unsubscribe() }()
	create := `{"stream_name":"STATE","config":{"durable_name":"x","name":"x","ack_policy":"none","deliver_policy":"all","deliver_subject":"` + inbox + `"}}`
	for subject, body := range map[string]string{
		"$JS.API.CONSUMER.CREATE.STATE":                               create,
		"$JS.API.CONSUMER.CREATE.STATE.x":                             create,
		"$JS.API.CONSUMER.CREATE.STATE.x.pratique.state.>":            create,
		"$JS.API.CONSUMER.CREATE.STATE." + mine.State:                 create,
		"$JS.API.CONSUMER.CREATE.FINDINGS.x":                          strings.ReplaceAll(create, "STATE", "FINDINGS"),
		"$JS.API.CONSUMER.DURABLE.CREATE.STATE.x":                     create,
		"$JS.API.CONSUMER.MSG.NEXT.STATE." + other.State:              "1",
		"$JS.API.CONSUMER.MSG.NEXT.FINDINGS." + other.Findings:        "1",
		"$JS.API.CONSUMER.INFO.STATE." + other.State:                  "",
		"$JS.API.CONSUMER.DELETE.STATE." + other.State:                "",
		"$JS.API.CONSUMER.DELETE.STATE." + mine.State:                 "",
		"$JS.API.CONSUMER.RESET.STATE." + other.State:                 `{"seq":1}`,
		"$JS.API.CONSUMER.PAUSE.STATE." + other.State:                 "",
		"$JS.API.CONSUMER.NAMES.STATE":                                "",
		"$JS.API.CONSUMER.LIST.FINDINGS":                              "",
		"$JS.API.STREAM.INFO.STATE":                                   `{"subjects_filter":">"}`,
		"$JS.API.STREAM.NAMES":                                        "",
		"$JS.API.STREAM.LIST":                                         "",
		"$JS.API.INFO":                                                "",
		"$JS.API.STREAM.MSG.GET.STATE":                                `{"seq":2}`,
		"$JS.API.STREAM.MSG.GET.FINDINGS":                             `{"last_by_subj":"pratique.finding.>"}`,
		"$JS.API.DIRECT.GET.FINDINGS":                                 `{"seq":1}`,
		"$JS.API.DIRECT.GET.KV_settings.$KV.settings.provisioned":     "",
		"$JS.API.DIRECT.GET.OBJ_reports.$O.reports.M.c2VjcmV0":        "",
		"$JS.API.STREAM.MSG.GET.OBJ_reports":                          `{"seq":1}`,
		"$JS.API.STREAM.CREATE.COPY":                                  `{"name":"COPY","sources":[{"name":"STATE"}]}`,
		"$JS.API.STREAM.PURGE.STATE":                                  "",
		"$JS.API.STREAM.DELETE.STATE":                                 "",
		"$JS.API.STREAM.MSG.DELETE.STATE":                             `{"seq":1}`,
		"$JS.API.STREAM.SNAPSHOT.STATE":                               `{"deliver_subject":"` + inbox + `"}`,
		"$JS.ACK.STATE." + other.State + ".1.2.1.1.0":                 "",
		"$JS.ACK.FINDINGS." + other.Findings + ".1.2.1.1.0":           "+TERM",
		"pratique.finding.v1.vuln.opened.high.registry%2Eexample.x.y": "forged",
		"pratique.event.image.x.push":                                 "forged",
		"pratique.work.push.image.x":                                  "forged",
		"pratique.notice.x":                                           "forged",
		"$KV.settings.vulndb":                                         "forged",
		"$O.reports.C.x":                                              "forged",
		access.Inbox(other.State) + ".x":                              "forged",
	} {
		for _, to := range []string{subject, strings.Replace(subject, "$JS.API.", "$JS."+access.Domain("")+".API.", 1)} {
			must(t, attacker.PublishRequest(to, inbox, []byte(body)))
			refused("publish on "+to, fmt.Sprintf("%q", to))
		}
	}
	// JetStream answers wherever a request says, also with an empty message, which elsewhere is a request: on
	// $JS.API.STREAM.PURGE.STATE, say. It must not become one.
	read(t, attacker, "FINDINGS", mine.Findings)
	next := "$JS." + access.Domain("") + ".API.CONSUMER.MSG.NEXT.FINDINGS." + mine.Findings
	ack := "$JS.ACK.FINDINGS." + other.Findings + ".1.2.1.1.0"
	must(t, attacker.PublishRequest(next, ack, []byte(`{"batch":1,"no_wait":true}`)))
	refused("answer to "+ack, "Publish with Reply of")
	for _, to := range []string{
		"$JS.API.STREAM.PURGE.STATE", "$JS.API.STREAM.DELETE.FINDINGS", "$JS.API.CONSUMER.DELETE.STATE." + other.State, "$KV.settings.vulndb",
		"pratique.finding.v1.vuln.opened.high.x", "pratique.work.push.image.x", "pratique.event.image.x.push",
		"$JS.pratique.API.STREAM.PURGE.STATE", "$JS.pratique.API.CONSUMER.DELETE.STATE." + other.State,
	} {
		must(t, attacker.PublishRequest(next, to, []byte(`{"batch":1,"no_wait":true}`)))
	}
	// One consumer's requests are answered in order.
	if m, err := attacker.Request(next, []byte(`{"batch":1,"no_wait":true}`), patience); err != nil || m.Header.Get("Status") != "404" {
		t.Errorf("nothing is left to pull, but the answer is %v, %v", m, err)
	}

	js, err := jetstream.New(judge)
	must(t, err)
	for stream, want := range map[string]uint64{"STATE": 2, "FINDINGS": 2, "EVENTS": 0, "WORK": 0} {
		s, err := js.Stream(ctx, stream)
		must(t, err)
		if n := s.CachedInfo().State.Msgs; n != want {
			t.Errorf("%s holds %d messages afterwards, want %d", stream, n, want)
		}
	}
	if got := read(t, victim, "STATE", other.State); len(got) != 1 {
		t.Errorf("the other tenant's STATE afterwards: %q", got)
	}
	if got := read(t, victim, "FINDINGS", other.Findings); len(got) != 1 {
		t.Errorf("the other tenant's FINDINGS afterwards: %q", got)
	}
	if foreign != 0 {
		t.Errorf("foreign messages seen: %d", foreign)
	}
}

func TestRotateGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	n := newTenants(t)
	ctx := t.Context()
	old := n.add(bus.Subscription{Name: "a", Class: finding.ClassVuln, Scopes: []string{bus.Everything}})
	n.find("x", "1", report.High)
	nc := n.connect(old)
	if got := len(read(t, nc, "STATE", old.State)) + len(read(t, nc, "FINDINGS", old.Findings)); got != 2 {
		t.Fatalf("read %d, want 2", got)
	}
	n.find("x", "2", report.High)
	next, was, err := n.bus.RotateSubscriber(ctx, "a")
	must(t, err)
	if was.State != old.State || next.State == old.State {
		t.Fatalf("rotated %q to %q", was.State, next.State)
	}
	must(t, n.bus.DropSubscriber(ctx, was))
	must(t, n.bus.DropSubscriber(ctx, was)) // again
	to := n.connect(next)
	if got := read(t, to, "STATE", next.State); len(got) != 1 || !strings.HasSuffix(got[0], ".2.linux-amd64") {
		t.Errorf("STATE after rotation: %q", got)
	}
	if got := read(t, to, "FINDINGS", next.Findings); len(got) != 1 || !strings.HasSuffix(got[0], ".2.linux-amd64") {
		t.Errorf("FINDINGS after rotation: %q", got)
	}
	if m, err := nc.Request("$JS.API.CONSUMER.MSG.NEXT.STATE."+old.State, []byte(`{"batch":1,"no_wait":true}`), time.Second); err == nil && len(m.Data) > 0 {
		t.Error("the old credentials still read")
	}
	all, err := n.bus.Subscribers(ctx)
	must(t, err)
	if len(all) != 1 || all[0].State != next.State {
		t.Errorf("listed: %+v", all)
	}
}

func TestSubscriptionsThatCanNotBe(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{})
	good := bus.Subscription{Name: "a", Class: finding.ClassVuln, Scopes: []string{"registry.example/team"}}
	for want, change := range map[string]func(*bus.Subscription){
		"name":                            func(s *bus.Subscription) { s.Name = "A b" },
		"class":                           func(s *bus.Subscription) { s.Class = "*" },
		"none":                            func(s *bus.Subscription) { s.Scopes = nil },
		`scope ">"`:                       func(s *bus.Subscription) { s.Scopes = []string{">"} },
		`scope "registry.example/"`:       func(s *bus.Subscription) { s.Scopes = []string{"registry.example/"} },
		`scope "registry.example/a/../b"`: func(s *bus.Subscription) { s.Scopes = []string{"registry.example/a/../b"} },
		"one is in the other":             func(s *bus.Subscription) { s.Scopes = []string{"registry.example/a/b", "registry.example/a"} },
		"cluster or cluster/namespace":    func(s *bus.Subscription) { s.Class, s.Scopes = finding.ClassPSA, []string{"prod/web/x"} },
		"twice":                           func(s *bus.Subscription) { s.Severities = []report.Severity{report.Low, report.Low} },
	} {
		s := good
		change(&s)
		if _, err := b.AddSubscriber(t.Context(), s); reason.Of(err).Code != reason.Malformed || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := b.AddSubscriber(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	if _, err := b.AddSubscriber(t.Context(), good); !errors.Is(err, bus.ErrExists) {
		t.Errorf("added twice: %v", err)
	}
	if _, _, err := b.RotateSubscriber(t.Context(), "nobody"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("rotate nobody: %v", err)
	}
}

// A subscriber is told of before what it has not read expires, once a day, and not before that.
func TestSubscriberBehind(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t)
	var later time.Duration
	at := func() *bus.Bus {
		return bustest.On(t, bustest.Connect(t, s), bus.Config{}, bus.Options{Now: func() time.Time { return time.Now().Add(later) }})
	}
	n := &tenants{T: t, bus: at()}
	slow := n.add(bus.Subscription{Name: "slow", Class: finding.ClassVuln, Scopes: []string{"registry.example/x"}, Severities: []report.Severity{report.Critical, report.High}})
	n.add(bus.Subscription{Name: "idle", Class: finding.ClassVuln, Scopes: []string{"registry.example/y"}})
	n.find("x", "1", report.High)
	told := func() (ids []string) {
		t.Helper()
		all, err := at().Troubles(t.Context())
		must(t, err)
		for _, trouble := range all {
			if trouble.Kind == system.SubscriberBehind {
				if trouble.Subject != "slow" || !strings.Contains(trouble.Message, "1 findings") {
					t.Errorf("%+v", trouble)
				}
				ids = append(ids, trouble.ID)
			}
		}
		return ids
	}
	if got := told(); len(got) != 0 {
		t.Errorf("told at once: %q", got)
	}
	later = 25 * 24 * time.Hour
	first := told()
	if len(first) != 1 || !slices.Equal(first, told()) {
		t.Errorf("told %q, and then %q", first, told())
	}
	later += 24 * time.Hour
	if next := told(); len(next) != 1 || next[0] == first[0] {
		t.Errorf("the next day: %q after %q", next, first)
	}
	js, err := jetstream.New(bustest.Connect(t, s))
	must(t, err)
	c, err := js.Consumer(t.Context(), "FINDINGS", slow.Findings)
	must(t, err)
	m, err := c.Next()
	must(t, err)
	must(t, m.DoubleAck(t.Context()))
	if got := told(); len(got) != 0 {
		t.Errorf("told although it has read everything: %q", got)
	}
}

func TestMirror(t *testing.T) {
	t.Parallel()
	n := newTenants(t)
	n.add(bus.Subscription{Name: "plain", Class: finding.ClassVuln, Scopes: []string{"registry.example/team-a"}})
	mirror := bus.Subscription{Name: "a", Class: finding.ClassVuln, Scopes: []string{"registry.example/team-a"}, Mirror: true}
	made := n.add(mirror)
	creds, err := n.server.Installation.SubscriberIssuer.Issue(access.User{Name: made.State, Permissions: access.ForSubscriber(access.Subscription{
		State: made.State, Findings: made.Findings, Core: n.bus.MirrorSubjects(mirror),
	})})
	must(t, err)
	nc, err := nats.Connect("", n.server.OptionsOf(t, creds)...)
	must(t, err)
	defer nc.Close()
	got := make(chan *nats.Msg, 16)
	for _, subject := range n.bus.MirrorSubjects(mirror) {
		_, err := nc.ChanSubscribe(subject, got)
		must(t, err)
	}
	must(t, nc.Flush())
	// Two replicas, as planners with their credentials.
	for range 2 {
		planner, err := nats.Connect("", n.server.Options(t, access.LayerCache)...)
		must(t, err)
		defer planner.Close()
		b := bustest.On(t, planner, bus.Config{}, bus.Options{})
		background(t, b.Mirror)
	}
	js, err := jetstream.New(n.admin)
	must(t, err)
	eventually(t, "the mirror's consumers are there", func() bool {
		for _, stream := range []string{"FINDINGS", "SCANS", "SYSTEM"} {
			if _, err := js.Consumer(t.Context(), stream, "mirror"); err != nil {
				return false
			}
		}
		return true
	})
	const findings = 10
	for i := range findings {
		n.find("team-b", fmt.Sprint(i), report.High)
		n.find("team-a", fmt.Sprint(i), report.High)
	}
	for range findings {
		m := receive(t, "a finding in JSON", got)
		if !strings.HasPrefix(m.Subject, "pratique.json.finding.v1.vuln.opened.high.registry%2Eexample.team-a.") || !strings.Contains(string(m.Data), `"repository":"team-a"`) {
			t.Errorf("%s: %s", m.Subject, m.Data)
		}
	}
	eventually(t, "the mirror has done", func() bool {
		c, err := js.Consumer(t.Context(), "FINDINGS", "mirror")
		must(t, err)
		info := c.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0
	})
	if len(got) != 0 {
		t.Errorf("%d more than were stored, or another team's", len(got))
	}
	if v := n.server.Violations(); len(v) != 0 {
		t.Errorf("refused: %q", v)
	}
}
