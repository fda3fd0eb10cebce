package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/access/accesstest"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/program"
	"github.com/pratique-sec/pratique/pkg/program/programtest"
	"github.com/pratique-sec/pratique/pkg/tlstest"
)

// Whatever happens to it, and at the finest level of logging: no secret that it was given, or that somebody
// sent, is shown.
func TestShowsNoSecret(t *testing.T) {
	nats := accesstest.Listen(t)
	bustest.On(t, nats.Connect(t, access.LayerCache), bus.Config{}, bus.Options{})
	installation := filepath.Join(t.TempDir(), "installation")
	if err := nats.Installation.Write(installation, "", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	creds := read(t, filepath.Join(installation, access.CredsFile(access.Ingest)))
	authority := tlstest.New(t)
	cert, key := authority.Issue(t, "127.0.0.1")
	secrets := map[string]string{
		"a token": "canary-of-team-a-0123", "the next token": "canary-of-team-a-next", "a token of a file": "canary-of-everything",
		"a token that nobody has": "canary-of-a-stranger-0", "a token that is too short": "canary-short", "what stands in the configuration": "canary-inline",
		"the seed of NATS's credentials":  regexp.MustCompile(`SU[A-Z0-9]{40,}`).FindString(creds),
		"the token of NATS's credentials": regexp.MustCompile(`eyJ[\w.-]+`).FindString(creds),
		"the key of TLS":                  strings.Split(read(t, key), "\n")[1],
	}
	for what, secret := range secrets {
		if secret == "" {
			t.Fatalf("there is no %s", what)
		}
	}
	teamA := programtest.File(t, secrets["a token"]+"\n"+secrets["the next token"]+"\n")
	base := fmt.Sprintf("nats: {url: '%s', creds: '%s'}\nadmin: {listen: '127.0.0.1:0'}\nlog: {level: debug}\n",
		nats.ClientURL(), filepath.Join(installation, access.CredsFile(access.Ingest)))
	config := base + fmt.Sprintf("ingest:\n  listen: 127.0.0.1:0\n  tls: {cert: '%s', key: '%s'}\n  tokenFiles: ['%s']\n  tokens:\n  - {name: team-a, file: '%s', submit: {scans: [registry.example/team-a]}}\n",
		cert, key, programtest.File(t, secrets["a token of a file"]), teamA)
	file := programtest.File(t, config)

	p := &programtest.Program{Identity: program.Identity{Name: "pratique-ingest"}, Defaults: defaults}
	for _, args := range [][]string{{"--print-config"}, {"--check-config"}} {
		if code := p.Run(t, append(args, "--config", file)...); code != 0 {
			t.Errorf("%s: exit code %d:\n%s", args, code, p)
		}
	}
	for _, wrong := range []string{
		"nats: {url: 'nats://me:canary-inline@nats.example', password: canary-inline}", "nats: {url: 'nats://me:canary-inline@nats example'}",
		"ingest: {tokens: [{name: a, secret: canary-inline}]}", "ingest: {tokens: canary-inline}", "ingest: {tokens: [canary-inline]}",
		"ingest: {tokenFiles: canary-inline}", "trace: {endpoint: 'http://me:canary-inline@x'}",
	} {
		if code := p.Run(t, "--check-config", "--config", programtest.File(t, wrong)); code != 2 {
			t.Errorf("%s: exit code %d", wrong, code)
		}
	}

	p.Start(t, file)
	address := p.Until(t, `ingest listens.*?(127\.0\.0\.1:\d+)`)[1]
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool}}}
	defer client.CloseIdleConnections()
	post := func(secret, path, body string, want int) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, "https://"+address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", secret)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(p, resp.Body); err != nil || resp.StatusCode != want {
			t.Errorf("%s is answered %s, want %d: %v", path, resp.Status, want, err)
		}
	}
	for _, what := range []string{"a token", "the next token", "a token of a file"} {
		post("Bearer "+secrets[what], "/v1/scans", `{"reference":"registry.example/team-a/api:1"}`, http.StatusAccepted)
		post(secrets[what], "/v1/scans", `{"reference":"-"}`, http.StatusBadRequest)
	}
	post("Bearer "+secrets["a token"], "/v1/scans", `{"reference":"registry.example/team-b/api:1"}`, http.StatusForbidden)
	post("Bearer "+secrets["a token that nobody has"], "/v1/scans", `{}`, http.StatusUnauthorized)
	post("Basic "+secrets["a token that nobody has"], "/v1/scans?token="+secrets["a token that nobody has"], `{}`, http.StatusUnauthorized)
	p.Show(t)

	write(t, teamA, secrets["a token that is too short"])
	p.Hangup()
	p.Until(t, "reload refused")
	write(t, file, config+"  - {name: b, secret: canary-inline}\n")
	p.Hangup()
	p.Until(t, "ingest.tokens\\[1\\].secret: ")
	p.Show(t)
	p.ShowsNone(t, secrets)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
