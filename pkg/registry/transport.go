package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/pratique-sec/pratique/pkg/reason"
)

// trust is what a TLS connection is made with: paths of PEM files. Each has a transport of its own, so
// that no connection is used for what it was not made for.
type trust struct {
	insecure      bool
	ca, cert, key string
}

// transports makes and keeps one transport for each trust. Files that changed make a new one.
type transports struct {
	dial  *dialer
	ca    string                                // of all
	proxy func(*http.Request) (*url.URL, error) // nil: none

	mu   sync.Mutex
	kept map[trust]*kept
}

type kept struct {
	state     [4]fileState
	transport *http.Transport
}

type fileState struct {
	size     int64
	modified time.Time
}

// of answers the transport for a trust. Its errors name the field whose file can not be used.
func (t *transports) of(k trust) (http.RoundTripper, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var state [4]fileState
	for i, path := range []string{t.ca, k.ca, k.cert, k.key} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil {
			state[i] = fileState{info.Size(), info.ModTime()}
		}
	}
	old := t.kept[k]
	if old != nil && old.state == state {
		return old.transport, nil
	}
	c, err := t.config(k)
	if err != nil {
		return nil, err
	}
	t.kept[k] = &kept{state, t.make(c)}
	if old != nil {
		old.transport.CloseIdleConnections()
	}
	return t.kept[k].transport, nil
}

func (t *transports) config(k trust) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: k.insecure} // asked for by the operator, for named hosts
	if t.ca != "" || k.ca != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool() // there is no system's: what is configured is all
		}
		for _, path := range []string{t.ca, k.ca} {
			if path == "" {
				continue
			}
			pem, err := readBounded(path, maxPEM)
			if err != nil {
				return nil, fmt.Errorf("ca: %w", err)
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("ca: %s holds no certificate", path)
			}
		}
		c.RootCAs = pool
	}
	if k.cert == "" {
		return c, nil
	}
	cert, err := readBounded(k.cert, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	key, err := readBounded(k.key, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("cert: %s with the key %s: %w", k.cert, k.key, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

func (t *transports) make(c *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:                  t.proxy,
		OnProxyConnectResponse: connected,
		DialContext:            t.dial.DialContext,
		TLSClientConfig:        c,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // digests are of the bytes as they are
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  30 * time.Second,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    16,
		MaxResponseHeaderBytes: maxHeader,
	}
}

// proxyOf is the proxy for each request; nil when there is none. The dialer sees the proxy's address only,
// so an address that stands in the URL itself is judged here; a name is the proxy's to judge.
func proxyOf(p Proxy, d *dialer) func(*http.Request) (*url.URL, error) {
	if !p.used() {
		return nil
	}
	settings := httpproxy.FromEnvironment()
	if !p.FromEnvironment {
		settings = &httpproxy.Config{HTTPProxy: p.URL, HTTPSProxy: p.URL, NoProxy: strings.Join(p.NoProxy, ",")}
	}
	of := settings.ProxyFunc()
	return func(req *http.Request) (*url.URL, error) {
		u, err := of(req.URL)
		if u == nil || err != nil {
			return nil, err
		}
		host, port := req.URL.Hostname(), portOf(req.URL)
		if a, err := netip.ParseAddr(host); err == nil {
			if err := checkAddress(host, netip.AddrPortFrom(a, 0).String(), d.isNamed(host, port)); err != nil {
				return nil, err
			}
		}
		if p.Username == "" {
			return u, nil
		}
		secret, err := readBounded(p.PasswordFile, maxSecret)
		if err != nil {
			return nil, reason.Retryf(reason.Denied, "proxy.passwordFile: %w", err)
		}
		with := *u
		with.User = url.UserPassword(p.Username, strings.TrimSpace(string(secret)))
		return &with, nil
	}
}

// connected names the proxy in what it refuses: its answer alone reads like the registry's.
func connected(_ context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired:
		return reason.Retryf(reason.Denied, "proxy %s asks for credentials that it takes; check proxy.username and proxy.passwordFile", proxy.Host)
	}
	return reason.Retryf(reason.Unreachable, "proxy %s answered %d to a connection to %s", proxy.Host, resp.StatusCode, req.Host)
}

// proxies lists the hosts of proxies, "host:port": the operator named them, wherever they are.
func proxies(p Proxy) []string {
	urls := []string{p.URL}
	if p.FromEnvironment {
		env := httpproxy.FromEnvironment()
		urls = []string{env.HTTPProxy, env.HTTPSProxy}
	}
	var hosts []string
	for _, s := range urls {
		if s == "" {
			continue
		}
		if !strings.Contains(s, "://") {
			s = "http://" + s // as variables are often written
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" {
			continue
		}
		host := strings.ToLower(u.Hostname())
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		hosts = append(hosts, host+":"+portOf(u))
	}
	return hosts
}

// portOf is the port that a URL leads to.
func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
}
