package registry

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// errPlain is why plain HTTP was not tried. It is no refusal by itself: a TLS registry that is down
// must not be refused because the client library tried HTTP next.
var errPlain = errors.New("plain HTTP is not allowed for this host; set plain (--insecure) for it")

// role is what a host is to a registry.
type role int

const (
	stranger role = iota
	self
	realm
	blobs
)

// policy says where one registry may send us.
type policy struct {
	name     string // as in references
	under    string // what it is configured under: the name, or a pattern
	endpoint string // host that serves it
	host     Host
	preset   preset
}

func newPolicy(name, under string, h Host) *policy {
	p := &policy{name: name, under: under, host: h, preset: presetOf(name)}
	p.endpoint = cmp.Or(h.Endpoint, p.preset.endpoint, name)
	return p
}

// role tells what u's host is to the registry, and whether the operator named it for this registry
// (rather than a preset or a pattern).
func (p *policy) role(u *url.URL) (r role, named bool) {
	host := hostOf(u)
	if image.CheckHost(host) != nil {
		return stranger, false
	}
	if host == hostOf(&url.URL{Scheme: u.Scheme, Host: p.endpoint}) {
		return self, true
	}
	of := func(r role, own, known []string) (role, bool, bool) {
		for _, pat := range own {
			if matches(pat, host) {
				return r, !isPattern(pat), true
			}
		}
		for _, pat := range known {
			if matches(pat, host) {
				return r, false, true
			}
		}
		return stranger, false, false
	}
	if r, named, ok := of(realm, p.host.Realms, p.preset.realms); ok {
		return r, named
	}
	if r, named, ok := of(blobs, p.host.Blobs, p.preset.blobs); ok {
		return r, named
	}
	return stranger, false
}

// hostOf is u's host and port as configuration writes it: lower case, a scheme's own port left out.
func hostOf(u *url.URL) string {
	h := strings.ToLower(u.Host)
	switch u.Scheme {
	case "https":
		return strings.TrimSuffix(h, ":443")
	case "http":
		return strings.TrimSuffix(h, ":80")
	}
	return h
}

// refuse is the answer to a host that the registry has no business with.
func (p *policy) refuse(u *url.URL) error {
	return reason.Refusef(reason.HostNotAllowed,
		"registry %s sends us to %q, which is not configured for it; add it to the registry's realms (a token server) or blobs (storage)",
		p.name, clip(hostOf(u)))
}

// guard is the lowest transport of one registry: nothing reaches the network but through it. It turns
// away strangers, keeps credentials where they belong, and turns the answers that mean "later" into
// errors, since only here their Retry-After can be seen for logins too.
type guard struct {
	policy  *policy
	own     http.RoundTripper // to the registry and its named realms: with the client certificate
	named   http.RoundTripper // to its other named hosts
	others  http.RoundTripper
	metrics *metrics
	now     func() time.Time
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	r, named := g.policy.role(req.URL)
	moved := redirected(req)
	var err error
	switch {
	case r == stranger:
		err = g.policy.refuse(req.URL)
	case (r == blobs || moved) && req.Method != http.MethodGet && req.Method != http.MethodHead:
		err = g.policy.refuse(req.URL) // a body may hold a refresh token
	case req.URL.Scheme == "http" && !g.policy.host.Plain:
		err = errPlain
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		err = g.policy.refuse(req.URL)
	}
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	if r == blobs || moved || req.Header.Get("Referer") != "" {
		req = req.Clone(req.Context())
		req.Header.Del("Referer")
		if r == blobs || moved {
			req.Header.Del("Authorization")
		}
	}
	next := g.others
	switch {
	case named && r != blobs && !moved:
		next = g.own
	case named:
		next = g.named
	}
	resp, err := next.RoundTrip(req)
	g.metrics.answered(g.policy.under, resp, err)
	if err != nil {
		return nil, err
	}
	if err := g.later(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// redirected tells whether a request follows a redirect that began at another host.
func redirected(req *http.Request) bool {
	first := req
	for first.Response != nil && first.Response.Request != nil {
		first = first.Response.Request
	}
	return hostOf(first.URL) != hostOf(req.URL)
}

// later is the error of an answer that asks to come back; nil for every other. 501 is not one: it says
// "I never will", and Resolve has another way then.
func (g *guard) later(resp *http.Response) error {
	var e *reason.Error
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		e = reason.Retryf(reason.RateLimited, "%s answered 429 to %s", hostOf(resp.Request.URL), resp.Request.Method)
	case resp.StatusCode >= 500 && resp.StatusCode != http.StatusNotImplemented:
		e = reason.Retryf(reason.Unreachable, "%s answered %d to %s", hostOf(resp.Request.URL), resp.StatusCode, resp.Request.Method)
	default:
		return nil
	}
	e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), g.now())
	return e
}
