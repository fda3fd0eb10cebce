package cmd

import (
	"context"
	"encoding/json/v2"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/services/pratique/allinone"
)

func TestCredentials(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	if got := runCommand(t, "credentials", "init", "--out", dir); got.code != ExitOK || !strings.Contains(got.stderr, "nats-server -c "+dir) {
		t.Fatalf("%+v", got)
	}
	if got := runCommand(t, "credentials", "init", "--out", dir); got.code != ExitUsage || !strings.Contains(got.stderr, "credentials issue") {
		t.Errorf("made twice: %+v", got)
	}
	signer, out := filepath.Join(dir, access.SignerFile), filepath.Join(dir, "second.creds")
	if got := runCommand(t, "credentials", "init", "--out", dir, "--keep"); got.code != ExitOK || !strings.Contains(got.stderr, "stays as it is") {
		t.Errorf("init --keep where there is one: %d %s", got.code, got.stderr)
	}
	if got := runCommand(t, "credentials", "issue", "scanner", "--signing-key", signer, "--out", out); got.code != ExitOK {
		t.Errorf("%+v", got)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if inbox, err := access.InboxOf(b); err != nil || inbox != access.Inbox("scanner") {
		t.Errorf("inbox %q, %v", inbox, err)
	}
	for _, args := range [][]string{
		{"issue", "scanner", "--signing-key", signer, "--out", out},
		{"issue", "nobody", "--signing-key", signer},
		{"issue", "scanner", "--signing-key", out + "x"},
		{"issue", "scanner", "--signing-key", out},
	} {
		if got := runCommand(t, append([]string{"credentials"}, args...)...); got.code != ExitUsage {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

// Subscribers are made in a running `up`, by its state folder alone.
func TestSubscriberLife(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	said, exit := newLines(), make(chan int, 1)
	go func() {
		exit <- Run(ctx, []string{
			"up", "--state", state, "--registry", "registry.example", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-level", "error", "--json-mirror",
		}, Env{Stdout: io.Discard, Stderr: said, Now: time.Now, Getenv: func(string) string { return "" }, Version: "test"})
	}()
	said.wait(t, `API (http://\S+)`)
	at := func(code int, args ...string) outcome {
		t.Helper()
		got := runCommand(t, append(append([]string{"subscriber"}, args...), "--state", state)...)
		if got.code != code {
			t.Fatalf("%q: exit code %d, want %d: %s", args, got.code, code, got.stderr)
		}
		return got
	}
	first, second := filepath.Join(t.TempDir(), "1.creds"), filepath.Join(t.TempDir(), "2.creds")
	at(ExitOK, "add", "team-a", "--scope", "registry.example/team-a", "--severity", "high,critical", "--json", "--out", first)
	mirrored(t, state, first)
	for _, args := range [][]string{
		{"add", "team-a", "--scope", "registry.example/team-a", "--out", second},
		{"add", "other", "--scope", "registry.example/team-a", "--out", first},
		{"add", "other", "--scope", "registry.example/", "--out", second},
		{"add", "other", "--scope", "registry.example", "--severity", "loud", "--out", second},
		{"rotate", "nobody", "--out", second},
		{"remove", "nobody"},
	} {
		at(ExitUsage, args...)
	}
	if _, err := os.Stat(second); err == nil {
		t.Error("credentials were written for what was refused")
	}
	list := func() (all []subscriberJSON) {
		t.Helper()
		for line := range strings.Lines(at(ExitOK, "list", "-o", "json").stdout) {
			var s subscriberJSON
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		return all
	}
	was := list()
	if len(was) != 1 || was[0].Name != "team-a" || strings.Join(was[0].Severities, " ") != "high critical" {
		t.Fatalf("%+v", was)
	}
	if table := at(ExitOK, "list").stdout; !strings.Contains(table, "registry.example/team-a") || !strings.Contains(table, "UNREAD") {
		t.Errorf("list:\n%s", table)
	}
	if status := pull(t, state, first, was[0].Consumer); status != "404" {
		t.Errorf("with its credentials: %q", status)
	}
	at(ExitOK, "rotate", "team-a", "--out", second)
	is := list()
	if len(is) != 1 || is[0].Consumer == was[0].Consumer {
		t.Fatalf("%+v", is)
	}
	if status := pull(t, state, first, was[0].Consumer); status == "404" {
		t.Error("the old credentials still open the old consumer")
	}
	if status := pull(t, state, second, is[0].Consumer); status != "404" {
		t.Errorf("with the new credentials: %q", status)
	}
	at(ExitOK, "remove", "team-a")
	if status := pull(t, state, second, is[0].Consumer); status == "404" {
		t.Error("still opens its consumer after it was removed")
	}
	stop()
	if code := <-exit; code != ExitOK {
		t.Errorf("up ended with %d: %s", code, said)
	}
}

// mirrored publishes on the mirror's subjects as an administrator, and sees what a subscriber hears of it; and
// that somebody mirrors.
func mirrored(t *testing.T, state, creds string) {
	t.Helper()
	endpoint, err := allinone.Find(state)
	if err != nil {
		t.Fatal(err)
	}
	var conns []*nats.Conn
	for _, file := range []string{creds, endpoint.Creds} {
		options, err := withCreds(file)
		if err != nil {
			t.Fatal(err)
		}
		nc, err := nats.Connect(endpoint.NATS, options...)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		conns = append(conns, nc)
	}
	listener, admin := conns[0], conns[1]
	sub, err := listener.SubscribeSync("pratique.json.finding.v1.vuln.*.high.registry%2Eexample.team-a.*.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := admin.Publish("pratique.json.finding.v1.vuln.opened.high.registry%2Eexample.team-a.1.linux-amd64", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(time.Minute); err != nil {
		t.Errorf("the subscriber hears nothing of the mirror: %v", err)
	}
	tick, late := time.NewTicker(10*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for {
		m, err := admin.Request("$JS.API.CONSUMER.INFO.FINDINGS.mirror", nil, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(m.Data), `"config"`) {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("nobody mirrors: %s", m.Data)
		}
	}
}

// pull asks a consumer of FINDINGS once: "404" is that there is one, and nothing in it.
func pull(t *testing.T, state, creds, consumer string) string {
	t.Helper()
	endpoint, err := allinone.Find(state)
	if err != nil {
		t.Fatal(err)
	}
	options, err := withCreds(creds)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(endpoint.NATS, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	m, err := nc.Request("$JS."+access.Domain("")+".API.CONSUMER.MSG.NEXT.FINDINGS."+consumer, []byte(`{"batch":1,"no_wait":true}`), 2*time.Second)
	if err != nil {
		return err.Error()
	}
	return m.Header.Get("Status")
}
