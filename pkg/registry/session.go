package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/pratique-sec/pratique/pkg/reason"
)

const (
	loginTimeout  = time.Minute
	sessionAge    = 10 * time.Minute // credentials are read again then; tokens are renewed by themselves
	maxSessions   = 4096
	maxSecret     = 64 << 10
	maxRedirects  = 5
	maxPing       = 64 << 10
	maxConfigFile = 1 << 20
	maxPEM        = 1 << 20
)

// session is a login at one registry for pulling from one repository.
type session struct {
	policy *policy
	client *http.Client
	scheme string
	made   time.Time
}

// sessions keeps logins. The zero value is not usable.
type sessions struct {
	mu      sync.Mutex
	entries map[string]*entry
}

// entry is one login's place: whoever holds its token logs in, the others wait for that.
type entry struct {
	token   chan struct{}
	session *session
}

func (s *sessions) entry(key string) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil {
		if len(s.entries) >= maxSessions { // rare; logging in again costs little
			clear(s.entries)
		}
		e = &entry{token: make(chan struct{}, 1)}
		s.entries[key] = e
	}
	return e
}

func (s *sessions) drop(key string, old *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil && e.session == old {
		delete(s.entries, key)
	}
}

// session returns the login for a repository, making it when there is none or it is old.
func (c *Client) session(ctx context.Context, what, host, repository string) (*session, error) {
	p, err := c.policy(host)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	e := c.sessions.entry(host + "/" + repository)
	select {
	case e.token <- struct{}{}:
		defer func() { <-e.token }()
	case <-ctx.Done():
		return nil, p.failed(ctx, what, ctx.Err())
	}
	c.sessions.mu.Lock()
	s := e.session
	c.sessions.mu.Unlock()
	if s != nil && c.now().Sub(s.made) < sessionAge {
		return s, nil
	}
	s, err = c.login(ctx, p, repository)
	if err != nil {
		err = p.failed(ctx, what, err)
		if reason.Of(err).Code == reason.Denied {
			c.helpers.forget()
		}
		return nil, err
	}
	c.sessions.mu.Lock()
	e.session = s
	c.sessions.mu.Unlock()
	return s, nil
}

// login asks the registry how it wants to be talked to, and gets a token where it wants one.
func (c *Client) login(ctx context.Context, p *policy, repository string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	var opts []name.Option
	if p.host.Plain {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(p.endpoint, opts...)
	if err != nil {
		return nil, reason.Refusef(reason.Malformed, "host %q: %w", p.endpoint, err)
	}
	auth, err := c.credentials(ctx, p, repository)
	if err != nil {
		return nil, err
	}
	rt, err := c.guard(p)
	if err != nil {
		return nil, reason.Retryf(reason.Denied, "certificates of %s: %w", p.name, err)
	}
	challenge, err := transport.Ping(ctx, reg, capped{rt})
	if err != nil {
		return nil, err
	}
	token := &transport.Token{}
	if strings.EqualFold(challenge.Scheme, "bearer") {
		if token, err = c.token(ctx, p, reg, auth, rt, repository, challenge); err != nil {
			return nil, err
		}
	}
	authorized, err := transport.FromToken(reg, auth, rt, challenge, token)
	if err != nil {
		return nil, err
	}
	s := &session{policy: p, scheme: "https", made: c.now(), client: &http.Client{Transport: authorized, CheckRedirect: fewRedirects}}
	if challenge.Insecure {
		s.scheme = "http"
	}
	return s, nil
}

// token exchanges credentials (or none) for a token, at a realm that the policy knows.
func (c *Client) token(ctx context.Context, p *policy, reg name.Registry, auth authn.Authenticator, rt http.RoundTripper, repository string, challenge *transport.Challenge) (*transport.Token, error) {
	u, err := url.Parse(challenge.Parameters["realm"])
	if err != nil || u.Host == "" {
		return nil, reason.Refusef(reason.HostNotAllowed, "registry %s names the token realm %q, which is no URL", p.name, clip(challenge.Parameters["realm"]))
	}
	if r, _ := p.role(u); r != self && r != realm {
		return nil, p.refuse(u)
	}
	cfg, err := authn.Authorization(ctx, auth)
	if err != nil {
		return nil, err
	}
	if cfg.RegistryToken != "" {
		return &transport.Token{Token: cfg.RegistryToken}, nil
	}
	t, err := transport.Exchange(ctx, reg, auth, rt, []string{"repository:" + repository + ":pull"}, challenge)
	if err != nil {
		return nil, err
	}
	if t.Token == "" {
		t.Token = t.AccessToken
	}
	return t, nil
}

// credentials are the repository's or host's own, else those of the Docker configuration, else none.
func (c *Client) credentials(ctx context.Context, p *policy, repository string) (authn.Authenticator, error) {
	if own := p.host.credentials(repository); own.Username != "" {
		b, err := readBounded(own.PasswordFile, maxSecret)
		if err != nil {
			return nil, reason.Retryf(reason.Denied, "password file of %s: %w", p.name, err)
		}
		return &authn.Basic{Username: own.Username, Password: strings.TrimSpace(string(b))}, nil
	}
	if c.cfg.DockerConfig == "" {
		return authn.Anonymous, nil
	}
	found, err := c.dockerCredentials(ctx, p.name, repository)
	if err != nil {
		return nil, within("docker config "+c.cfg.DockerConfig, err)
	}
	if found == (authn.AuthConfig{}) {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(found), nil
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, most)
	}
	return b, nil
}

func fewRedirects(_ *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return reason.Refusef(reason.HostNotAllowed, "more than %d redirects", maxRedirects)
	}
	return nil
}

// capped cuts bodies: what asks /v2/ reads to the end whatever comes.
type capped struct{ next http.RoundTripper }

func (t capped) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = cut{io.LimitReader(resp.Body, maxPing), resp.Body}
	return resp, nil
}

type cut struct {
	io.Reader
	io.Closer
}
