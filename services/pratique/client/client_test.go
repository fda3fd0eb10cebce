package client

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/wire"
)

func newClient(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := New(Config{URL: s.URL, Token: "secret", Poll: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestScanUntilDecided(t *testing.T) {
	d := image.DigestOf([]byte("x"))
	stages := []fate.Stage{fate.Accepted, fate.Waiting, fate.Decided}
	polls := 0
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("authorization %q", r.Header.Get("Authorization"))
		}
		var answer []byte
		var err error
		switch r.Method + " " + r.URL.Path {
		case "POST /v1/scans":
			body, readErr := io.ReadAll(r.Body)
			req, jsonErr := wire.ScanRequestFromJSON(body)
			if readErr != nil || jsonErr != nil || req.Reference != "r.example/a:1" || len(req.Platforms) != 1 {
				t.Errorf("%s: %v %v", body, readErr, jsonErr)
			}
			w.WriteHeader(http.StatusAccepted)
			answer, err = wire.ScanAcceptedJSON(wire.ScanAccepted{ID: "7-0123456789abcdef"})
		case "GET /v1/scans/7-0123456789abcdef":
			polls++
			if polls == 2 { // away for a moment
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			answer, err = wire.FateJSON(fate.Fate{
				Request: "7-0123456789abcdef", Stage: stages[min(polls, 3)-1],
				Reference: image.Reference{Host: "r.example", Repository: "a", Tag: "1"},
			})
		case "GET /v1/reports/" + string(d):
			if got := r.URL.Query().Get("platform"); got != "linux/arm64" {
				t.Errorf("platform %q", got)
			}
			answer, err = wire.ReportJSON(&report.Report{Outcome: report.Clean, Image: image.Image{
				Reference: image.Reference{Host: "r.example", Repository: "a", Digest: d}, Platform: image.Platform{OS: "linux", Architecture: "arm64"},
			}})
		default:
			t.Errorf("%s %s", r.Method, r.URL)
		}
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(answer)
	})

	id, err := c.Scan(t.Context(), wire.ScanRequest{Reference: "r.example/a:1", Platforms: []string{"linux/arm64"}})
	if err != nil {
		t.Fatal(err)
	}
	news := 0
	f, err := c.Wait(t.Context(), id, func(fate.Fate) { news++ })
	if err != nil || f.Stage != fate.Decided || news != 2 {
		t.Fatalf("%+v, %d news, %v", f, news, err)
	}
	r, err := c.Report(t.Context(), d, image.Platform{OS: "linux", Architecture: "arm64"})
	if err != nil || r.Outcome != report.Clean {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestRefusalsCarryTheirReason(t *testing.T) {
	c := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"code":"unauthorized","message":"token: unknown","traceId":""}`)
	})
	_, err := c.Wait(t.Context(), "1-0123456789abcdef", func(fate.Fate) {})
	if e := reason.Of(err); e.Code != reason.Unauthorized || e.Kind != reason.Refuse || !strings.Contains(err.Error(), "token: unknown") {
		t.Errorf("%v", err)
	}
}

func TestWaitTellsWhyItGaveUp(t *testing.T) {
	c := newClient(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := c.Wait(ctx, "1-0123456789abcdef", func(fate.Fate) {})
	if err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("%v", err)
	}
}

func TestTokenStaysWithTheNamedServer(t *testing.T) {
	stranger := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("followed a redirect") }))
	defer stranger.Close()
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, stranger.URL, http.StatusFound) })
	if _, err := c.Fate(t.Context(), "1-0123456789abcdef"); err == nil {
		t.Error("no error")
	}
}

func TestNewNamesABadURL(t *testing.T) {
	for _, s := range []string{"", "host:80", "ftp://x", "://"} {
		if _, err := New(Config{URL: s}); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}
