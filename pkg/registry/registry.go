// Package registry reads from registries: manifests, configs and blobs, each verified by digest, under
// a policy that keeps events, which are hostile, from choosing whom we talk to.
//
// The policy: a host must be configured, or nothing is sent. Loopback and private addresses are only
// for hosts that are configured by name, checked on the address that is connected to. Redirects and
// token realms lead to the host itself or to hosts configured for that registry (presets know those of
// the public ones); credentials go to the registry and its realms and nowhere else, and nowhere by a
// redirect to another host. A proxy is used where it is configured, never because the environment has one.
//
// All errors carry a decision (pkg/reason): registry away or slow, 429, 5xx: retry; denied, not found,
// wrong bytes, forbidden hosts: refuse. It does not retry by itself, cache content, push, or list.
package registry

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// Bounds of what is read whole, in bytes.
const (
	MaxManifest = 4 << 20
	MaxConfig   = 8 << 20
)

const (
	requestTimeout = time.Minute // of what is read whole
	defaultStall   = time.Minute // without a byte of a blob
	maxHeader      = 64 << 10
)

// accept lists what a manifest may be. Docker's schema 1 is not there: it lists no layers by digest
// that could be verified.
var accept = strings.Join([]string{
	"application/vnd.oci.image.index.v1+json",
	"application/vnd.docker.distribution.manifest.list.v2+json",
	"application/vnd.oci.image.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.v2+json",
}, ", ")

// Options are what a client is given beside its configuration.
type Options struct {
	Now   func() time.Time // nil: time.Now
	Stall time.Duration    // how long a blob may send nothing; 0: a minute
	// Registerer gets the metrics; nil: nobody sees them. Clients that share one share the metrics.
	Registerer prometheus.Registerer
}

// Client reads from registries. Safe for concurrent use.
type Client struct {
	cfg        Config
	transports *transports
	helpers    *helpers
	metrics    *metrics
	now        func() time.Time
	stall      time.Duration
	sessions   sessions
}

// Descriptor is what a tag points to.
type Descriptor struct {
	Digest    image.Digest
	MediaType string // "" when the registry does not say
	Size      int64  // bytes of the manifest
}

// New checks the configuration, every problem of which is in the error, and reads its certificates. It
// sends nothing.
func New(cfg Config, opts Options) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	m, err := newMetrics(opts.Registerer)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	c := &Client{
		cfg: cfg, metrics: m, helpers: newHelpers(), now: opts.Now, stall: opts.Stall,
		sessions: sessions{entries: map[string]*entry{}},
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.stall == 0 {
		c.stall = defaultStall
	}
	d := &dialer{named: map[string]bool{}}
	for name, h := range cfg.Hosts {
		for _, n := range slices.Concat([]string{name, h.Endpoint}, h.Realms, h.Blobs) {
			if n != "" && !isPattern(n) {
				d.named[n] = true
			}
		}
	}
	for _, n := range proxies(cfg.Proxy) {
		d.named[n] = true
	}
	c.transports = &transports{dial: d, ca: cfg.CA, proxy: proxyOf(cfg.Proxy, d), kept: map[trust]*kept{}}
	var errs []error
	if _, err := c.transports.of(trust{}); err != nil {
		errs = append(errs, err)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Hosts)) {
		if _, err := c.guard(newPolicy(name, name, cfg.Hosts[name])); err != nil {
			errs = append(errs, fmt.Errorf("hosts[%s].%w", name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return c, nil
}

// guard is the lowest transport to a registry, with the certificates as they are now.
func (c *Client) guard(p *policy) (*guard, error) {
	g := &guard{policy: p, metrics: c.metrics, now: c.now}
	for _, t := range []struct {
		to   *http.RoundTripper
		with trust
	}{
		{&g.own, trust{p.host.Insecure, p.host.CA, p.host.Cert, p.host.Key}},
		{&g.named, trust{p.host.Insecure, p.host.CA, "", ""}},
		{&g.others, trust{}},
	} {
		var err error
		if *t.to, err = c.transports.of(t.with); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// Allowed tells, without sending anything, whether the policy lets us talk to a host: nil, or a refusal
// with host-not-allowed (malformed when it is no host at all).
func (c *Client) Allowed(host string) error {
	_, err := c.policy(host)
	return err
}

func (c *Client) policy(host string) (*policy, error) {
	if err := image.CheckHost(host); err != nil {
		return nil, reason.Refusef(reason.Malformed, "%w", err)
	}
	h, under, ok := c.cfg.lookup(host)
	if !ok {
		return nil, reason.Refusef(reason.HostNotAllowed, "registry %s is not configured; add it to the registry hosts", host)
	}
	return newPolicy(host, under, h), nil
}

// Resolve asks where a tag points now. A tag that is gone is reason.NotFound.
func (c *Client) Resolve(ctx context.Context, host, repository, tag string) (d Descriptor, err error) {
	ref := image.Reference{Host: host, Repository: repository, Tag: tag}
	what := "tag " + ref.String()
	ctx, done := span(ctx, "registry.Client.Resolve", host)
	defer func() { done(err) }()
	if err := image.CheckTag(tag); err != nil {
		return Descriptor{}, reason.Refusef(reason.Malformed, "%s: %w", clip(what), err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := c.request(ctx, what, host, repository)
	if err != nil {
		return Descriptor{}, err
	}
	resp, err := r.send(ctx, http.MethodHead, "manifests/"+tag)
	if err != nil {
		return Descriptor{}, err
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		digest, derr := image.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
		if derr == nil {
			return Descriptor{Digest: digest, MediaType: mediaType(resp), Size: max(resp.ContentLength, 0)}, nil
		}
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return Descriptor{}, r.status(resp)
	}
	// A registry that has no HEAD, or says no digest there: the manifest itself tells.
	body, mt, err := r.whole(ctx, "manifests/"+tag, MaxManifest)
	if err != nil {
		return Descriptor{}, err
	}
	return Descriptor{Digest: image.DigestOf(body), MediaType: manifestType(body, mt), Size: int64(len(body))}, nil
}

// Manifest reads a manifest or index, at most MaxManifest bytes, verified by digest. The media type is
// the one that the verified body states, else the registry's; "" when neither says.
func (c *Client) Manifest(ctx context.Context, host, repository string, d image.Digest) (body []byte, mediaType string, err error) {
	what := "manifest " + image.Reference{Host: host, Repository: repository, Digest: d}.String()
	ctx, done := span(ctx, "registry.Client.Manifest", host)
	defer func() { done(err) }()
	if _, err := image.ParseDigest(string(d)); err != nil {
		return nil, "", reason.Refusef(reason.Malformed, "%s: %w", clip(what), err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := c.request(ctx, what, host, repository)
	if err != nil {
		return nil, "", err
	}
	body, header, err := r.whole(ctx, "manifests/"+string(d), MaxManifest)
	if err != nil {
		return nil, "", err
	}
	if got := image.DigestOf(body); got != d {
		return nil, "", reason.Refusef(reason.DigestMismatch, "%s: the bytes have the digest %s", what, got)
	}
	return body, manifestType(body, header), nil
}

// Config reads an image's config, at most MaxConfig bytes, verified by digest and by the size that the
// manifest states. One that is not there is reason.BlobMissing.
func (c *Client) Config(ctx context.Context, host, repository string, d image.Digest, size int64) ([]byte, error) {
	if size > MaxConfig {
		return nil, reason.Refusef(reason.OverBound, "config %s: %d bytes, at most %d are read", d, size, int64(MaxConfig))
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := c.Blob(ctx, host, repository, d, size)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r) // the reader stops at size, and its error carries the reason
}

// HasBlob asks whether this repository holds a blob.
func (c *Client) HasBlob(ctx context.Context, host, repository string, d image.Digest) (has bool, err error) {
	what := "blob " + image.Reference{Host: host, Repository: repository, Digest: d}.String()
	ctx, done := span(ctx, "registry.Client.HasBlob", host)
	defer func() { done(err) }()
	if _, err := image.ParseDigest(string(d)); err != nil {
		return false, reason.Refusef(reason.Malformed, "%s: %w", clip(what), err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := c.request(ctx, what, host, repository)
	if err != nil {
		return false, err
	}
	resp, err := r.send(ctx, http.MethodHead, "blobs/"+string(d))
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	// Storage behind a redirect may deny a HEAD to a URL that is signed for GET: ask with GET then, and
	// leave at the first byte.
	at, _ := r.s.policy.role(resp.Request.URL)
	if found := resp.StatusCode == http.StatusOK; !found && at != self || resp.StatusCode == http.StatusMethodNotAllowed {
		if resp, err = r.send(ctx, http.MethodGet, "blobs/"+string(d)); err != nil {
			return false, err
		}
		resp.Body.Close()
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	}
	return false, r.status(resp)
}

// Blob opens a blob as it is stored (compressed). The reader verifies size and digest: its last Read
// returns io.EOF only when both were right, else digest-mismatch or size-mismatch (refuse), or
// unreachable (retry) when the stream was cut off or stalled. Close it, at the end or before.
// A blob that is not there is reason.BlobMissing.
func (c *Client) Blob(ctx context.Context, host, repository string, d image.Digest, size int64) (rc io.ReadCloser, err error) {
	what := "blob " + image.Reference{Host: host, Repository: repository, Digest: d}.String()
	spanned, done := span(ctx, "registry.Client.Blob", host)
	defer func() { done(err) }()
	if _, err := image.ParseDigest(string(d)); err != nil {
		return nil, reason.Refusef(reason.Malformed, "%s: %w", clip(what), err)
	}
	if size < 0 {
		return nil, reason.Refusef(reason.Malformed, "%s: size %d", what, size)
	}
	r, err := c.request(spanned, what, host, repository)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(spanned)
	resp, err := r.send(ctx, http.MethodGet, "blobs/"+string(d))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	fail := func(err error) (io.ReadCloser, error) {
		cancel(nil)
		resp.Body.Close()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		err := r.status(resp)
		if e := reason.Of(err); e.Code == reason.NotFound {
			e.Code = reason.BlobMissing
		}
		return fail(err)
	}
	if resp.ContentLength >= 0 && resp.ContentLength != size {
		return fail(reason.Refusef(reason.SizeMismatch, "%s: %d bytes, the manifest says %d", what, resp.ContentLength, size))
	}
	exact := resp.ContentLength >= 0 || len(resp.TransferEncoding) > 0 || resp.ProtoMajor >= 2
	return newBlobReader(ctx, cancel, what, resp.Body, d, size, exact, c.stall), nil
}

// VerifyBlob reads a blob to its end and keeps nothing of it: nil when this repository really has these
// bytes, else as Blob and its reader. A registry that says it has a blob may lie; one that sends it does
// not.
func (c *Client) VerifyBlob(ctx context.Context, host, repository string, d image.Digest, size int64) error {
	r, err := c.Blob(ctx, host, repository, d, size)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// request is one thing that is asked of a repository.
type request struct {
	c                *Client
	s                *session
	what, repository string
	key              string
}

func (c *Client) request(ctx context.Context, what, host, repository string) (*request, error) {
	if err := image.CheckRepository(repository); err != nil {
		return nil, reason.Refusef(reason.Malformed, "%s: %w", clip(what), err)
	}
	s, err := c.session(ctx, what, host, repository)
	if err != nil {
		return nil, err
	}
	return &request{c: c, s: s, what: what, repository: repository, key: host + "/" + repository}, nil
}

// send returns any answer that is not "later". rest is of verified parts.
func (r *request) send(ctx context.Context, method, rest string) (*http.Response, error) {
	u := url.URL{Scheme: r.s.scheme, Host: r.s.policy.endpoint, Path: "/v2/" + r.repository + "/" + rest}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, reason.Refusef(reason.Malformed, "%s: %w", r.what, err)
	}
	req.Header.Set("User-Agent", "pratique")
	if strings.HasPrefix(rest, "manifests/") {
		req.Header.Set("Accept", accept)
	}
	resp, err := r.s.client.Do(req)
	if err != nil {
		r.forget(err)
		return nil, r.s.policy.failed(ctx, r.what, err)
	}
	return resp, nil
}

// status is the error of an answer that is not a success.
func (r *request) status(resp *http.Response) error {
	text := ""
	if resp.Request.Method != http.MethodHead {
		text = detail(resp)
	}
	err := r.s.policy.status(r.what, resp.StatusCode, text)
	r.forget(err)
	return err
}

// forget drops the login after a denial: the next attempt reads the credentials again.
func (r *request) forget(err error) {
	if reason.Of(err).Code == reason.Denied {
		r.c.sessions.drop(r.key, r.s)
		r.c.helpers.forget()
	}
}

// whole reads a body of at most most bytes.
func (r *request) whole(ctx context.Context, rest string, most int64) (body []byte, header string, err error) {
	resp, err := r.send(ctx, http.MethodGet, rest)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, "", r.status(resp)
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, "", reason.Retryf(reason.Unreachable, "%s: truncated after %d bytes: %w", r.what, len(body), err)
	}
	if int64(len(body)) > most {
		return nil, "", reason.Refusef(reason.OverBound, "%s: more than %d bytes", r.what, most)
	}
	return body, mediaType(resp), nil
}

// mediaType is the answer's content type without parameters; "" when it says nothing.
func mediaType(resp *http.Response) string {
	mt, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return mt
}

// manifestType prefers what the body states, which its digest covers, to what a header claims.
func manifestType(body []byte, header string) string {
	var m struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(body, &m) == nil && m.MediaType != "" && len(m.MediaType) <= 255 {
		return m.MediaType
	}
	return header
}

func digestOf(h hash.Hash) image.Digest {
	return image.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// span starts a span below the caller's, with the caller's provider: no trace, no span.
func span(ctx context.Context, name, host string) (context.Context, func(error)) {
	tracer := trace.SpanFromContext(ctx).TracerProvider().Tracer("github.com/pratique-sec/pratique/pkg/registry")
	ctx, s := tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("server.address", host)))
	return ctx, func(err error) {
		if err != nil {
			s.SetStatus(codes.Error, string(reason.Of(err).Code))
		}
		s.End()
	}
}
