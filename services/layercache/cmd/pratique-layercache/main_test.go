package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ocireg "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/access/accesstest"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/program"
	"github.com/pratique-sec/pratique/pkg/program/programtest"
	"github.com/pratique-sec/pratique/pkg/system"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/pkg/work"
)

// A registry and a Redis that repeat in their errors what they were sent, and the finest level of logging: no
// secret is shown, nor stored in what others read.
func TestShowsNoSecret(t *testing.T) {
	secrets := map[string]string{
		"the password of a registry": "canary-of-the-registry", "the password of a repository": "canary-of-the-repository",
		"the password of a Docker configuration": "canary-of-docker", "the password of Redis": "canary-of-redis",
		"what stands in the configuration": "canary-inline",
	}
	for what, user := range map[string]string{"the password of a registry": "me", "the password of a repository": "robot", "the password of a Docker configuration": "docker"} {
		secrets[what+", encoded"] = base64.StdEncoding.EncodeToString([]byte(user + ":" + secrets[what]))
	}
	nats := accesstest.Listen(t)
	b := bustest.On(t, nats.Connect(t, access.Admin), bus.Config{}, bus.Options{})
	installation := filepath.Join(t.TempDir(), "installation")
	if err := nats.Installation.Write(installation, "", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	creds, err := os.ReadFile(filepath.Join(installation, access.CredsFile(access.LayerCache)))
	if err != nil {
		t.Fatal(err)
	}
	secrets["the seed of NATS's credentials"] = regexp.MustCompile(`SU[A-Z0-9]{40,}`).FindString(string(creds))
	secrets["the token of NATS's credentials"] = regexp.MustCompile(`eyJ[\w.-]+`).FindString(string(creds))
	for what, secret := range secrets {
		if secret == "" {
			t.Fatalf("there is no %s", what)
		}
	}

	registry, told := loud(t)
	second, _ := loud(t)
	redis, asked := loudRedis(t)
	file := programtest.File(t, fmt.Sprintf(`
nats: {url: '%s', creds: '%s'}
admin: {listen: '127.0.0.1:0'}
log: {level: debug}
maxBytes: 268435456
redis: {url: 'redis://%s', passwordFile: '%s'}
registries:
  hosts:
    %s:
      plain: true
      username: me
      passwordFile: '%s'
      repositories: {robots: {username: robot, passwordFile: '%s'}}
    %s: {plain: true}
  dockerConfig: '%s'
`, nats.ClientURL(), filepath.Join(installation, access.CredsFile(access.LayerCache)),
		redis, programtest.File(t, secrets["the password of Redis"]),
		registry, programtest.File(t, secrets["the password of a registry"]), programtest.File(t, secrets["the password of a repository"]),
		second, programtest.File(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, second, secrets["the password of a Docker configuration, encoded"]))))

	p := &programtest.Program{Identity: program.Identity{Name: "pratique-layercache", Provisions: true}, Defaults: defaults}
	for _, args := range [][]string{{"--print-config"}, {"--check-config"}} {
		if code := p.Run(t, append(args, "--config", file)...); code != 0 {
			t.Errorf("%s: exit code %d:\n%s", args, code, p)
		}
	}
	for _, wrong := range []string{
		"redis: {url: 'redis://:canary-inline@redis.example'}", "redis: {url: 'redis://redis.example?password=canary-inline'}", "redis: {password: canary-inline}",
		"redis: {url: 'redis://:canary-inline@redis example'}", "redis: canary-inline", "registries: {proxy: {url: 'http://me:canary-inline@proxy.example'}}",
		"registries: {proxy: {url: 'http://me:canary-inline@proxy example'}}", "registries: {hosts: {a.example: {password: canary-inline}}}",
		"registries: {hosts: {a.example: canary-inline}}",
	} {
		if code := p.Run(t, "--check-config", "--config", programtest.File(t, wrong)); code != 2 {
			t.Errorf("%s: exit code %d", wrong, code)
		}
	}

	p.Start(t, file)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.PutSetting(ctx, "analysis."+work.DefaultPool, "analysis"); err != nil {
		t.Fatal(err)
	}
	denied := []image.Reference{
		{Host: registry, Repository: "secretive/app", Tag: "1"}, {Host: registry, Repository: "robots/app", Tag: "1"}, {Host: second, Repository: "secretive/app", Tag: "1"},
	}
	for i, ref := range append(denied, image.Reference{Host: registry, Repository: "open/app", Tag: "1"}) {
		if _, err := b.PublishEvent(ctx, event.Event{
			ID: fmt.Sprint(i), Kind: event.KindImage, Source: "api", Action: event.Request, Cause: event.CauseRequest, Reference: ref, Received: time.Now(),
		}); err != nil {
			t.Fatal(err)
		}
	}
	failed := 0
	if err := b.WatchScans(ctx, 1, func(_ uint64, s finding.Scan) error {
		keep(t, p, s, wire.ScanJSON)
		if failed++; failed == len(denied) {
			return errEnough
		}
		return nil
	}); !errors.Is(err, errEnough) {
		t.Fatalf("%d images failed, want %d: %v\n%s", failed, len(denied), err, p)
	}
	if err := b.DeadLetters(ctx, func(_ uint64, l system.DeadLetter) error {
		keep(t, p, l, wire.DeadLetterJSON)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	p.Until(t, "fast fact store fails")
	p.Show(t)
	for _, what := range []string{"the password of a registry", "the password of a repository"} {
		if !strings.Contains(told.String(), secrets[what]) {
			t.Errorf("%s was never sent:\n%s", what, told)
		}
	}
	if !strings.Contains(asked.String(), secrets["the password of Redis"]) {
		t.Errorf("the password of Redis was never sent:\n%s", asked)
	}
	p.ShowsNone(t, secrets)
}

// Of the configuration it takes over the level of the log; the rest needs a restart, and is named.
func TestReload(t *testing.T) {
	base := fmt.Sprintf("nats: {url: '%s'}\nadmin: {listen: '127.0.0.1:0'}\nmaxBytes: 268435456\n", bustest.Listen(t))
	file := programtest.File(t, base)
	p := &programtest.Program{Identity: program.Identity{Name: "pratique-layercache", Provisions: true, Version: "v1"}, Defaults: defaults}
	p.Start(t, file)
	for text, said := range map[string]string{
		"log: {level: debug}": "configuration reloaded", "registries: {hosts: {a.example: {}}}": "registries.hosts: changed, which needs a restart",
	} {
		if err := os.WriteFile(file, []byte(base+text), 0o600); err != nil {
			t.Fatal(err)
		}
		p.Hangup()
		p.Until(t, said)
	}
}

var errEnough = errors.New("enough")

// keep counts a stored value among what was shown.
func keep[T any](t *testing.T, p *programtest.Program, v T, text func(T) ([]byte, error)) {
	t.Helper()
	b, err := text(v)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = p.Write(append(b, '\n'))
}

// loud is a registry that shows in its refusals what it was sent, and what that was. The image open/app:1 is
// there for everybody.
func loud(t *testing.T) (host string, told *programtest.Output) {
	t.Helper()
	told = &programtest.Output{}
	var pushed atomic.Bool
	images := ocireg.New(ocireg.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		switch {
		case !pushed.Load(), strings.HasPrefix(r.URL.Path, "/v2/open/"):
			images.ServeHTTP(w, r)
		case !ok:
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			fmt.Fprintln(told, user, password)
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":%q}]}`, user+" "+password+" "+r.Header.Get("Authorization"))
		}
	}))
	t.Cleanup(s.Close)
	host = strings.TrimPrefix(s.URL, "http://")
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(host+"/open/app:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	pushed.Store(true)
	return host, told
}

// loudRedis answers every command with an error that repeats it, as Redis does with those that it does not know.
func loudRedis(t *testing.T) (address string, asked *programtest.Output) {
	t.Helper()
	asked = &programtest.Output{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				buffer := make([]byte, 4096)
				for {
					n, err := c.Read(buffer)
					if err != nil {
						return
					}
					fmt.Fprintf(asked, "%s\n", buffer[:n])
					words := strings.Join(strings.Fields(string(buffer[:n])), " ")
					if _, err := fmt.Fprintf(c, "-ERR unknown command, with args beginning with: %s\r\n", words); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), asked
}
