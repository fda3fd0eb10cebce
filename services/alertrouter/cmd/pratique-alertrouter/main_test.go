package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/access/accesstest"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/program"
	"github.com/pratique-sec/pratique/pkg/program/programtest"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// Receivers that repeat in their refusals what they were sent, secrets in the file itself, and the finest
// level of logging: none is shown, nor stored in dead letters.
func TestShowsNoSecret(t *testing.T) {
	secrets := map[string]string{
		"the URL of a webhook": "canary-of-the-hook", "a bearer token": "canary-of-the-bearer", "the token in a file": "canary-of-a-file",
		"the URL of Slack": "canary-of-slack", "a password": "canary-of-basic", "what stands in a mistake": "canary-inline",
	}
	nats := accesstest.Listen(t)
	b := bustest.On(t, nats.Connect(t, access.Admin), bus.Config{}, bus.Options{})
	installation := filepath.Join(t.TempDir(), "installation")
	if err := nats.Installation.Write(installation, "", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	creds, err := os.ReadFile(filepath.Join(installation, access.CredsFile(access.AlertRouter)))
	if err != nil {
		t.Fatal(err)
	}
	secrets["the seed of NATS's credentials"] = regexp.MustCompile(`SU[A-Z0-9]{40,}`).FindString(string(creds))

	var sent programtest.Output
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		said := fmt.Sprintln(r.URL, r.Header.Get("Authorization"), password)
		_, _ = sent.Write([]byte(said))
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, said)
	}))
	defer receiver.Close()
	const routes = `
route: {receiver: all, group_wait: 10ms, group_by: [finding]}
receivers:
  - name: all
    webhook_configs:
      - {url: '%[1]s/canary-of-the-hook', http_config: {authorization: {credentials: canary-of-the-bearer}}}
      - {url: '%[1]s/file', http_config: {authorization: {credentials_file: '%[2]s'}}}
      - {url: '%[1]s/basic', http_config: {basic_auth: {username: me, password: canary-of-basic}}}
    slack_configs:
      - {channel: '#x', api_url: '%[1]s/canary-of-slack'}
`
	alerts := programtest.File(t, fmt.Sprintf(routes, receiver.URL, programtest.File(t, secrets["the token in a file"])))
	file := programtest.File(t, fmt.Sprintf("nats: {url: '%s', creds: '%s'}\nadmin: {listen: '127.0.0.1:0'}\nlog: {level: debug}\nalertrouter: {config: '%s'}\n",
		nats.ClientURL(), filepath.Join(installation, access.CredsFile(access.AlertRouter)), alerts))

	p := &programtest.Program{
		Identity: program.Identity{Name: "pratique-alertrouter"},
		Defaults: func() program.Configuration { return &configuration{Common: program.Defaults()} },
	}
	for _, args := range [][]string{{"--print-config"}, {"--check-config"}} {
		if code := p.Run(t, append(args, "--config", file)...); code != 0 {
			t.Errorf("%s: exit code %d:\n%s", args, code, p)
		}
	}
	mistakes := []string{
		"receivers: [{name: all, webhook_configs: [{url: 'ftp://me:canary-inline@x/canary-inline'}]}]", "receivers: [{name: all, pagerduty_configs: [{routing_key: canary-inline}]}]",
		"receivers: [{name: all, slack_configs: [{api_url: 'x:/canary-inline y', channel: x}]}]", "receivers: [{name: all, webhook_configs: [{secret: canary-inline}]}]",
		"global: {slack_api_url: '::canary-inline'}\nreceivers: [{name: all}]",
	}
	for _, wrong := range mistakes {
		wrong = programtest.File(t, "route: {receiver: all}\n"+wrong)
		if code := p.Run(t, "--check-config", "--config", programtest.File(t, "alertrouter: {config: '"+wrong+"'}")); code != 2 {
			t.Errorf("%s: exit code %d:\n%s", wrong, code, p)
		}
	}

	p.Start(t, file)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.PublishDelta(ctx, opened()); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for tick := time.NewTicker(20 * time.Millisecond); refused < 4; {
		select {
		case <-ctx.Done():
			t.Fatalf("%d notifications are dead letters, want 4:\n%s", refused, p)
		case <-tick.C:
		}
		refused = 0
		if err := b.DeadLetters(ctx, func(uint64, system.DeadLetter) error { refused++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.DeadLetters(ctx, func(_ uint64, l system.DeadLetter) error {
		text, err := wire.DeadLetterJSON(l)
		_, _ = p.Write(append(append(text, '\n'), l.Data...))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range mistakes {
		if err := os.WriteFile(alerts, []byte("route: {receiver: all}\n"+wrong), 0o600); err != nil {
			t.Fatal(err)
		}
		before := strings.Count(p.String(), "reload refused")
		p.Hangup()
		p.Until(t, fmt.Sprintf(`(?s)(reload refused.*?){%d}`, before+1))
	}
	p.Show(t)
	for _, what := range []string{"the URL of a webhook", "a bearer token", "the token in a file", "the URL of Slack", "a password"} {
		if !strings.Contains(sent.String(), secrets[what]) {
			t.Errorf("%s was never sent:\n%s", what, &sent)
		}
	}
	p.ShowsNone(t, secrets)
}

// opened is what somebody must be told of.
func opened() finding.Delta {
	at := time.Now().UTC()
	asset := finding.Asset{Host: "registry.example", Repository: "team-a/api", Track: "main", Platform: image.Platform{OS: "linux", Architecture: "amd64"}}
	id := finding.ID(asset, finding.ClassVuln, "CVE-2026-0001", "debian", "liblzma5", "")
	return finding.Delta{
		EventID: finding.EventID(id, 1), Asset: asset, Transition: finding.Opened, Cause: event.CausePush, At: at,
		Finding: finding.Finding{
			ID: id, Revision: 1, Class: finding.ClassVuln, Vulnerability: "CVE-2026-0001", Type: "debian", Package: "liblzma5",
			Versions: []string{"5.6.0"}, Severity: report.Critical, FirstSeen: at, Changed: at,
		},
	}
}
