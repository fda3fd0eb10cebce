package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/pratique-sec/pratique/pkg/reason"
)

const (
	dockerHub       = "docker.io"
	helperPrefix    = "docker-credential-"
	helperPatience  = 20 * time.Second // those of clouds ask over the network
	helperMemory    = time.Minute      // for which an answer is used again
	maxHelpers      = 4                // that run at a time
	maxHelperAnswer = 64 << 10         // bytes
	maxRemembered   = 1024
)

// dockerCredentials looks a repository up in the Docker configuration, the longest prefix first as
// Kubernetes and Podman write them ("registry.example/team-a"), then the host; for each, a credential
// helper goes before what stands in the file. The credential store is asked last. Nothing found is the
// zero value.
func (c *Client) dockerCredentials(ctx context.Context, host, repository string) (authn.AuthConfig, error) {
	b, err := readBounded(c.cfg.DockerConfig, maxConfigFile)
	if err != nil {
		return authn.AuthConfig{}, reason.Retryf(reason.Denied, "%w", err)
	}
	file, err := config.LoadFromReader(bytes.NewReader(b))
	if err != nil {
		return authn.AuthConfig{}, reason.Retryf(reason.Denied, "not a Docker configuration: %w", unquoted(err))
	}
	helpers, auths := named(file.CredentialHelpers), named(file.AuthConfigs)
	for path := host + "/" + repository; path != ""; path = parent(path) {
		if h, ok := helpers[path]; ok {
			return c.helpers.ask(ctx, h.value, h.key)
		}
		if a := auths[path].value; usable(a) {
			return authConfig(a), nil
		}
	}
	if file.CredentialsStore == "" {
		return authn.AuthConfig{}, nil
	}
	if host == dockerHub {
		host = authn.DefaultAuthKey
	}
	return c.helpers.ask(ctx, file.CredentialsStore, host)
}

// unquoted keeps from a parser's error what it quotes: it may be a secret.
func unquoted(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return syntax
	}
	return errors.New("check it with `docker login`, or `jq . FILE`")
}

// entryOf is a value and the key that it stands under in the file.
type entryOf[V any] struct {
	key   string
	value V
}

// named lists entries by "host" or "host/prefix": keys are written as URLs, too, with the path of an API.
// A key that is written plainly goes before one that comes to the same.
func named[V any](m map[string]V) map[string]entryOf[V] {
	all := map[string]entryOf[V]{}
	for key, v := range m {
		name := strings.ToLower(key)
		name = strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://")
		name = strings.TrimSuffix(name, "/")
		for _, api := range []string{"/v1", "/v2"} {
			name = strings.TrimSuffix(name, api)
		}
		if name == "index.docker.io" || name == "registry-1.docker.io" {
			name = dockerHub
		}
		if old, twice := all[name]; twice && (old.key == name || old.key < key && key != name) {
			continue
		}
		all[name] = entryOf[V]{key, v}
	}
	return all
}

func usable(a types.AuthConfig) bool {
	return a.Username != "" || a.Auth != "" || a.IdentityToken != "" || a.RegistryToken != ""
}

func authConfig(a types.AuthConfig) authn.AuthConfig {
	return authn.AuthConfig{
		Username: a.Username, Password: a.Password, Auth: a.Auth,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}
}

// helpers runs credential helpers: few at a time, each for a bounded time, and remembers their answers for
// a while, since every repository has its own login. What a helper prints is a secret, or may hold one: no
// error shows any of it.
type helpers struct {
	slots    chan struct{}
	patience time.Duration
	now      func() time.Time

	mu    sync.Mutex
	known map[helperKey]helperAnswer
}

type helperKey struct{ helper, server string }

type helperAnswer struct {
	auth  authn.AuthConfig
	until time.Time
}

func newHelpers() *helpers {
	return &helpers{slots: make(chan struct{}, maxHelpers), patience: helperPatience, now: time.Now, known: map[helperKey]helperAnswer{}}
}

// ask answers what a helper has for a server; the zero value when it has nothing.
func (h *helpers) ask(ctx context.Context, helper, server string) (authn.AuthConfig, error) {
	if !goodHelper(helper) {
		return authn.AuthConfig{}, reason.Retryf(reason.Denied, "credential helper %q: want the part of its name after %s", clip(helper), helperPrefix)
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return authn.AuthConfig{}, ctx.Err()
	}
	key := helperKey{helper, server}
	h.mu.Lock()
	known, ok := h.known[key]
	h.mu.Unlock()
	if ok && h.now().Before(known.until) {
		return known.auth, nil
	}
	auth, err := h.run(ctx, helperPrefix+helper, server)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.known) >= maxRemembered {
		clear(h.known)
	}
	h.known[key] = helperAnswer{auth, h.now().Add(helperMemory)}
	return auth, nil
}

// forget drops what helpers answered: a registry did not like some of it.
func (h *helpers) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.known)
}

// goodHelper: a name, never a path.
func goodHelper(s string) bool {
	for i := range len(s) {
		c := s[i]
		if plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'; !plain {
			return false
		}
	}
	return s != "" && len(s) < 128
}

func (h *helpers) run(parent context.Context, program, server string) (authn.AuthConfig, error) {
	failed := func(format string, args ...any) (authn.AuthConfig, error) {
		return authn.AuthConfig{}, within(program+" for "+server, reason.Retryf(reason.Denied, format, args...))
	}
	ctx, cancel := context.WithTimeout(parent, h.patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.WaitDelay = time.Second // what it started may hold on to the pipe
	out := &bounded{most: maxHelperAnswer}
	cmd.Stdout = out
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case parent.Err() != nil:
		return authn.AuthConfig{}, parent.Err()
	case out.over:
		return failed("an answer of more than %d bytes", maxHelperAnswer)
	case ctx.Err() != nil:
		return failed("no answer within %s", h.patience)
	case errors.Is(err, exec.ErrNotFound):
		return failed("not installed where this process runs; put it into the PATH, or set username and passwordFile for the registry")
	case errors.As(err, &exit) && bytes.Contains(out.kept, []byte("credentials not found")):
		return authn.AuthConfig{}, nil
	case errors.As(err, &exit):
		return failed("%s; run `echo %s | %s get` as the user of this process to see why", exit.ProcessState, server, program)
	case err != nil:
		return failed("%w", err)
	}
	return decodeHelper(out.kept, failed)
}

// decodeHelper reads a helper's answer.
func decodeHelper(answer []byte, failed func(string, ...any) (authn.AuthConfig, error)) (authn.AuthConfig, error) {
	var doc struct{ Username, Secret string }
	if json.Unmarshal(answer, &doc) != nil {
		return failed("its answer is not the JSON of a credential helper")
	}
	switch {
	case doc.Secret == "":
		return failed("its answer holds no secret")
	case doc.Username == "<token>":
		return authn.AuthConfig{IdentityToken: doc.Secret}, nil
	}
	return authn.AuthConfig{Username: doc.Username, Password: doc.Secret}, nil
}

// bounded keeps what is written, and fails the writer when it is too much. It embeds no buffer, whose
// ReadFrom knows no bound.
type bounded struct {
	kept []byte
	most int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.kept)+len(p) > b.most {
		b.over = true
		return 0, io.ErrShortBuffer
	}
	b.kept = append(b.kept, p...)
	return len(p), nil
}
