package registry

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/pratique-sec/pratique/pkg/reason"
)

// longestWait bounds what a registry may ask for: a hostile or confused one must not park work for ever.
const longestWait = 6 * time.Hour

// retryAfter reads a Retry-After header, seconds or a date; 0 when there is none or it makes no sense.
func retryAfter(h string, now time.Time) time.Duration {
	if h == "" {
		return 0
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(h), 10, 32); err == nil {
		return min(max(time.Duration(n)*time.Second, 0), longestWait)
	}
	if t, err := http.ParseTime(h); err == nil {
		return min(max(t.Sub(now), 0), longestWait)
	}
	return 0
}

// failed decides what an error of a request or a login means. what says what was asked for, as in
// "manifest host/repo@sha256:…".
func (p *policy) failed(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return reason.Retryf(reason.Unreachable, "%s: %w", what, ctx.Err())
	}
	var re *reason.Error
	if errors.As(err, &re) {
		return within(what, re)
	}
	var te *transport.Error // of the login only
	if errors.As(err, &te) {
		if te.StatusCode == http.StatusNotFound { // no registry there; it says nothing about the tag or blob
			return reason.Retryf(reason.Unreachable, "%s: login answered 404: no registry at %s", what, p.endpoint)
		}
		return p.status(what+": login", te.StatusCode, "")
	}
	// What was asked for says more than the URL, which may hold a signature.
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if !p.host.Plain && errors.Is(err, http.ErrSchemeMismatch) {
		return reason.Refusef(reason.HostNotAllowed, "%s: the host speaks plain HTTP only: %w", what, errPlain)
	}
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	if errors.As(err, &authority) || errors.As(err, &hostname) {
		return reason.Refusef(reason.HostNotAllowed, "%s: %w; set ca for the host to the authority that its certificate is from, or insecure to accept any", what, err)
	}
	return reason.Retryf(reason.Unreachable, "%s: %w", what, err)
}

// within says where an error came up, and leaves its decision as it is.
func within(where string, err error) error {
	var re *reason.Error
	if !errors.As(err, &re) {
		return fmt.Errorf("%s: %w", where, err)
	}
	with := *re
	with.Err = fmt.Errorf("%s: %w", where, re.Err)
	return &with
}

// status decides what an answer that is neither success nor "later" means.
func (p *policy) status(what string, code int, detail string) error {
	if detail != "" {
		detail = ": " + detail
	}
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return reason.Refusef(reason.Denied, "%s: registry answered %d%s; check the credentials configured for %s", what, code, detail, p.name)
	case http.StatusNotFound, http.StatusGone:
		return reason.Refusef(reason.NotFound, "%s: registry answered %d%s", what, code, detail)
	}
	err := reason.Retryf(reason.Unreachable, "%s: registry answered %d%s", what, code, detail)
	err.Answered = code < http.StatusInternalServerError && code != http.StatusRequestTimeout
	return err
}

// detail is the first error of a registry's error body, cut to a line that is safe to print; "" when it repeats
// the credentials that it was sent.
func detail(resp *http.Response) string {
	const most = 16 << 10
	b, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return ""
	}
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(b, &doc) != nil || len(doc.Errors) == 0 {
		return ""
	}
	text := strings.TrimSpace(doc.Errors[0].Code + " " + doc.Errors[0].Message)
	if repeats(text, resp.Request) {
		return ""
	}
	return clip(text)
}

// repeats tells whether a text holds what a request was authorized with: debugging proxies show requests.
func repeats(text string, req *http.Request) bool {
	_, secret, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	_, password, _ := req.BasicAuth()
	return secret != "" && strings.Contains(text, secret) || password != "" && strings.Contains(text, password)
}

// clip keeps hostile text from flooding or faking a log line.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
}
