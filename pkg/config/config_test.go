package config_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/config"
)

type common struct {
	NATS  natsConfig
	Drain time.Duration
}

type natsConfig struct{ URL, CA string }

func (c natsConfig) Validate() error {
	if c.URL == "" {
		return errors.New("url: name a server")
	}
	return nil
}

type token struct {
	Name, File string
	Read       []string
}

type whole struct {
	common
	Level  slog.Level
	Ingest struct {
		Listen   string
		Tokens   []token
		MaxBody  int64
		TLSFiles struct{ Cert, Key string }
		Open     bool
	}
	Hosts map[string]host
	Names []string
}

type host struct{ Plain bool }

func (w whole) Validate() error {
	var errs []error
	for i, t := range w.Ingest.Tokens {
		if t.File == "" {
			errs = append(errs, fmt.Errorf("ingest.tokens[%d].file: name one", i))
		}
	}
	return errors.Join(errs...)
}

func defaults() *whole {
	w := &whole{common: common{NATS: natsConfig{URL: "nats://localhost"}, Drain: 25 * time.Second}}
	w.Ingest.Listen = ":8420"
	return w
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pratique.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const sound = `
nats: {url: nats://one, ca: }
level: WARN
ingest:
  tokens:
    - {name: harbor, file: /run/token, read: [registry.example/team-a]}
  maxBody: 4096
  tlsFiles: {cert: a, key: b}
  open: true
hosts:
  registry.example:5000: {plain: true}
`

func TestFileThenEnvironment(t *testing.T) {
	got := defaults()
	env := []string{
		"PATH=/bin", "PRATIQUE_CONFIG=x", "PRATIQUE_NATS_URL=nats://two", "PRATIQUE_DRAIN=1m", "PRATIQUE_INGEST_MAX_BODY=7",
		"PRATIQUE_INGEST_TLS_FILES_KEY=c", "PRATIQUE_NAMES=a, b", "PRATIQUE_NATS_SERVICE_HOST=10.0.0.1", "PRATIQUE_NATS_PORT_4222_TCP_ADDR=10.0.0.1", "PRATIQUE_NATS_PORT=tcp://10.0.0.1:4222",
	}
	if err := config.Load(file(t, sound), env, got); err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.NATS.URL, want.Drain, want.Level = "nats://two", time.Minute, slog.LevelWarn
	want.Ingest.Tokens = []token{{Name: "harbor", File: "/run/token", Read: []string{"registry.example/team-a"}}}
	want.Ingest.MaxBody, want.Ingest.Open = 7, true
	want.Ingest.TLSFiles.Cert, want.Ingest.TLSFiles.Key = "a", "c"
	want.Hosts, want.Names = map[string]host{"registry.example:5000": {Plain: true}}, []string{"a", "b"}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(whole{})); diff != "" {
		t.Error(diff)
	}
}

func TestEveryProblemAtOnce(t *testing.T) {
	err := config.Load(file(t, `
nats: [a]
drain: soon
level: loud
ingest:
  listne: :1
  maxBody: many
  open: {}
  tokens: [{name: a, fiel: b}]
hosts: {a: {plain: 3}, a: {}}
hosts: {}
`), []string{"PRATIQUE_INGEST_OPEN=perhaps", "PRATIQUE_NATS_ULR=x"}, defaults())
	var problems config.Problems
	if !errors.As(err, &problems) {
		t.Fatalf("Load = %v, want Problems", err)
	}
	var paths []string
	for _, p := range problems {
		paths = append(paths, p.Path)
	}
	want := []string{
		"PRATIQUE_INGEST_OPEN", "PRATIQUE_NATS_ULR", "drain", "hosts", "hosts[a]", "hosts[a].plain", "ingest.listne", "ingest.maxBody", "ingest.open",
		"ingest.tokens[0].fiel", "level", "nats",
	}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("%s\n%v", diff, err)
	}
	if !strings.Contains(err.Error(), `ingest.maxBody: line 7: want a whole number, not "many"`) {
		t.Errorf("not for people: %v", err)
	}
}

func TestSectionsAreAsked(t *testing.T) {
	err := config.Load(file(t, "nats: {url: ''}\ningest: {tokens: [{name: a}]}"), nil, defaults())
	want := "ingest.tokens[0].file: name one\nnats.url: name a server"
	if err == nil || err.Error() != want {
		t.Errorf("Load = %v, want %s", err, want)
	}
}

func TestWhatIsNoConfiguration(t *testing.T) {
	for name, text := range map[string]string{
		"two documents": "drain: 1s\n---\ndrain: 2s", "no yaml": "a: [", "a list": "[]", "too large": strings.Repeat("#", 1<<20+1),
		"an alias of itself": "hosts: &a {x: *a}",
	} {
		if err := config.Load(file(t, text), nil, defaults()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := config.Load(filepath.Join(t.TempDir(), "none"), nil, defaults()); err == nil {
		t.Error("a file that is not there: accepted")
	}
	for name, text := range map[string]string{"empty": "", "a comment": "# nothing"} {
		if err := config.Load(file(t, text), nil, defaults()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDumpReadsBack(t *testing.T) {
	first := defaults()
	if err := config.Load(file(t, sound), nil, first); err != nil {
		t.Fatal(err)
	}
	dump, err := config.Dump(first)
	if err != nil {
		t.Fatal(err)
	}
	again := &whole{}
	if err := config.Load(file(t, string(dump)), nil, again); err != nil {
		t.Fatalf("%v\n%s", err, dump)
	}
	again.Names = first.Names // none and an empty list are the same
	if changed := config.Changed(first, again); len(changed) > 0 {
		t.Errorf("%v changed in\n%s", changed, dump)
	}
}

func TestChanged(t *testing.T) {
	a, b := defaults(), defaults()
	b.NATS.URL, b.Ingest.Open, b.Hosts = "nats://other", true, map[string]host{"a": {}}
	if diff := cmp.Diff([]string{"hosts", "ingest.open", "nats.url"}, config.Changed(a, b)); diff != "" {
		t.Error(diff)
	}
	if c := config.Changed(a, a); len(c) > 0 {
		t.Errorf("the same differs at %v", c)
	}
}

func TestNames(t *testing.T) {
	for field, key := range map[string]string{"URL": "url", "GiveUp": "giveUp", "TLSFiles": "tlsFiles", "NATS": "nats", "MaxCPU": "maxCPU", "A": "a", "ClientCA": "clientCA"} {
		if got := config.Key(field); got != key {
			t.Errorf("Key(%s) = %s, want %s", field, got, key)
		}
	}
	for path, name := range map[string]string{"layercache.giveUp": "PRATIQUE_LAYERCACHE_GIVE_UP", "ingest.clientCA": "PRATIQUE_INGEST_CLIENT_CA"} {
		if got := config.Variable(path); got != name {
			t.Errorf("Variable(%s) = %s, want %s", path, got, name)
		}
	}
	want := []string{
		"PRATIQUE_DRAIN", "PRATIQUE_INGEST_LISTEN", "PRATIQUE_INGEST_MAX_BODY", "PRATIQUE_INGEST_OPEN", "PRATIQUE_INGEST_TLS_FILES_CERT",
		"PRATIQUE_INGEST_TLS_FILES_KEY", "PRATIQUE_LEVEL", "PRATIQUE_NAMES", "PRATIQUE_NATS_CA", "PRATIQUE_NATS_URL",
	}
	if diff := cmp.Diff(want, config.Variables(defaults())); diff != "" {
		t.Error(diff)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(sound)
	f.Add("hosts: &a {x: *a}")
	f.Add("ingest: !!binary aGk=\nnames: [1, null, ~]")
	f.Fuzz(func(t *testing.T, text string) {
		w := defaults()
		if config.Load(file(t, text), nil, w) != nil {
			return
		}
		if _, err := config.Dump(w); err != nil {
			t.Error(err)
		}
	})
}
