// Package client speaks ingest's HTTP API: it asks for scans, waits for what became of them and
// fetches reports. It bounds every answer and needs no NATS.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/wire"
)

// Bounds of an answer, in bytes. A report holds every package and every advisory's description.
const (
	maxAnswer = 1 << 20
	maxReport = 512 << 20
)

// Config says where the API is.
type Config struct {
	URL       string // "https://pratique.example"
	Token     string // sent as a bearer token; "" for none
	UserAgent string
	Poll      time.Duration // how often an undecided scan is asked for; 0: 500 ms
}

// Client is safe for concurrent use.
type Client struct {
	base *url.URL
	cfg  Config
	http *http.Client
}

// New checks the configuration; it talks to nobody.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("%q: want http://host or https://host", cfg.URL)
	}
	if cfg.Poll == 0 {
		cfg.Poll = 500 * time.Millisecond
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second}
	c := &Client{base: base, cfg: cfg, http: &http.Client{Timeout: 2 * time.Minute, Transport: transport}}
	// A token goes to the server that was named, and nowhere else.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// Close lets go of connections. A server that drains waits for those that were opened and never used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Scan asks for a scan and returns the id to ask for it by. The request is stored when it returns.
func (c *Client) Scan(ctx context.Context, r wire.ScanRequest) (string, error) {
	body, err := wire.ScanRequestJSON(r)
	if err != nil {
		return "", err
	}
	answer, err := c.do(ctx, http.MethodPost, "/v1/scans", nil, body, maxAnswer)
	if err != nil {
		return "", fmt.Errorf("ask for a scan of %s: %w", r.Reference, err)
	}
	accepted, err := wire.ScanAcceptedFromJSON(answer)
	if err != nil {
		return "", fmt.Errorf("ask for a scan of %s: %w", r.Reference, err)
	}
	return accepted.ID, nil
}

// Fate asks what became of a scan.
func (c *Client) Fate(ctx context.Context, id string) (fate.Fate, error) {
	answer, err := c.do(ctx, http.MethodGet, "/v1/scans/"+url.PathEscape(id), nil, nil, maxAnswer)
	if err != nil {
		return fate.Fate{}, fmt.Errorf("ask for scan %s: %w", id, err)
	}
	f, err := wire.FateFromJSON(answer)
	if err != nil {
		return fate.Fate{}, fmt.Errorf("ask for scan %s: %w", id, err)
	}
	return f, nil
}

// Wait asks until a scan is decided, and calls news with each fate that it sees. A server that is away
// for a moment (reason.Retry) is asked again until ctx ends.
func (c *Client) Wait(ctx context.Context, id string, news func(fate.Fate)) (fate.Fate, error) {
	tick := time.NewTicker(c.cfg.Poll)
	defer tick.Stop()
	var last error
	for {
		f, err := c.Fate(ctx, id)
		switch {
		case err == nil:
			last = nil
			news(f)
			if f.Stage == fate.Decided {
				return f, nil
			}
		case reason.Of(err).Kind != reason.Retry:
			return fate.Fate{}, err
		default:
			last = err
		}
		select {
		case <-ctx.Done():
			return fate.Fate{}, errors.Join(context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

// Report fetches the report of one platform's image. reason.NotFound when there is none.
func (c *Client) Report(ctx context.Context, d image.Digest, p image.Platform) (*report.Report, error) {
	query := url.Values{}
	if p != (image.Platform{}) {
		query.Set("platform", p.String())
	}
	answer, err := c.do(ctx, http.MethodGet, "/v1/reports/"+url.PathEscape(string(d)), query, nil, maxReport)
	if err != nil {
		return nil, fmt.Errorf("fetch report of %s: %w", d, err)
	}
	r, err := wire.ReportFromJSON(answer)
	if err != nil {
		return nil, fmt.Errorf("fetch report of %s: %w", d, err)
	}
	return r, nil
}

// do makes one call. Its errors carry the server's reason and a decision.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body []byte, limit int64) ([]byte, error) {
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, u, err)
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return nil, reason.Retryf(reason.Unreachable, "%w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err != nil {
		return nil, reason.Retryf(reason.Unreachable, "%s: %w", c.base.Host, err)
	}
	if int64(len(text)) > limit {
		return nil, reason.Refusef(reason.OverBound, "%s answered more than %d bytes", c.base.Host, limit)
	}
	if answer.StatusCode/100 != 2 {
		return nil, c.problem(answer, text)
	}
	return text, nil
}

// problem turns a refusal into a decision: what the server can not do now is tried again, what it will
// not do is not.
func (c *Client) problem(answer *http.Response, text []byte) error {
	detail := fmt.Sprintf("%s answered %s", c.base.Host, answer.Status)
	code := reason.BadRequest
	if p, err := wire.ProblemFromJSON(text); err == nil && p.Code != "" { // else somebody else's answer, a proxy's
		code, detail = p.Code, p.Message
	}
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return reason.Retryf(code, "%s", detail)
	default:
		return reason.Refusef(code, "%s", detail)
	}
}
