package receiver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/services/alertrouter/receiver"
	"github.com/pratique-sec/pratique/services/alertrouter/route"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func options() receiver.Options {
	return receiver.Options{ExternalURL: "https://pratique.example", Timeout: 30 * time.Second, Backoff: time.Second, MaxBackoff: 5 * time.Second}
}

// set builds the receivers of a configuration whose one route leads to "team"; secrets are files beside it.
func set(t *testing.T, receivers string, secrets map[string]string) *receiver.Set {
	t.Helper()
	dir := t.TempDir()
	for name, text := range secrets {
		write(t, filepath.Join(dir, name), text)
	}
	path := filepath.Join(dir, "alertmanager.yml")
	write(t, path, "route: {receiver: team}\nreceivers:\n"+receivers)
	table, err := route.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := receiver.New(table, options())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func notification() alert.Notification {
	return alert.Notification{
		ID: "n1", Group: "g1", Receiver: "team", Integration: "webhook/0", Reason: alert.ReasonNew, Truncated: 3, Created: now,
		Labels: map[string]string{"repository": "team/api"}, RouteLabels: map[string]string{"owner": "team of {{ .GroupLabels.repository }}"},
		Alerts: []alert.Told{
			{Alert: alert.Alert{
				ID: "f2", Labels: map[string]string{"alertname": "Vulnerability", "vulnerability": "CVE-2"},
				Annotations: map[string]string{"summary": "two", "url": "https://avd.example/CVE-2"}, Starts: now.Add(-time.Hour), Ends: now.Add(time.Hour),
			}},
			{Alert: alert.Alert{ID: "f1", Labels: map[string]string{"alertname": "Vulnerability", "vulnerability": "CVE-1"}, Starts: now.Add(-time.Hour)}},
		},
	}
}

func send(t *testing.T, s *receiver.Set, n alert.Notification, at time.Time) *reason.Error {
	t.Helper()
	err := s.Send(t.Context(), n, at, func(context.Context) error { return nil })
	if err == nil {
		return nil
	}
	var e *reason.Error
	if !errors.As(err, &e) {
		t.Fatalf("Send = %v, want a reason", err)
	}
	return e
}

type request struct {
	header http.Header
	path   string
	body   []byte
}

// serve answers every request by answer, and keeps it.
func serve(t *testing.T, answer http.HandlerFunc) (url string, got <-chan request) {
	t.Helper()
	c := make(chan request, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		c <- request{r.Header, r.URL.Path, body}
		answer(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, c
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestWebhookIsAlertmanagersVersion4(t *testing.T) {
	url, got := serve(t, status(204))
	s := set(t, `- {name: team, webhook_configs: [{url_file: url, http_config: {authorization: {credentials_file: token}}}]}`,
		map[string]string{"url": url + "/hook?for={{ .GroupLabels.repository }}\n", "token": "very-secret\n"})
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	err := s.Send(trace.ContextWithSpanContext(t.Context(), span), notification(), now, func(context.Context) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	r := <-got
	for name, want := range map[string]string{
		"Idempotency-Key": "n1", "Content-Type": "application/json", "Authorization": "Bearer very-secret",
		"Traceparent": "00-01000000000000000000000000000000-0200000000000000-01",
	} {
		if r.header.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, r.header.Get(name), want)
		}
	}
	var m map[string]any
	if err := json.Unmarshal(r.body, &m); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]any{
		"version": "4", "groupKey": "pratique/g1", "truncatedAlerts": 3.0, "status": "firing", "receiver": "team",
		"externalURL": "https://pratique.example", "groupLabels.repository": "team/api", "commonLabels.alertname": "Vulnerability",
		"routeLabels.owner": "team of team/api", "notification_reason": "new alerts added",
		"alerts.0.status": "firing", "alerts.0.labels.vulnerability": "CVE-1", "alerts.0.endsAt": "0001-01-01T00:00:00Z",
		// Its end is in the future by our clock, and yet it has ended.
		"alerts.1.status": "resolved", "alerts.1.endsAt": "2026-05-01T12:00:00Z", "alerts.1.generatorURL": "https://avd.example/CVE-2",
	} {
		if got := at(m, path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if at(m, "alerts.0.fingerprint") == "" || at(m, "alerts.2") != nil {
		t.Errorf("alerts are %v", at(m, "alerts"))
	}
}

func at(v any, path string) any {
	for step := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[step]
		case []any:
			var i int
			if _, err := fmt.Sscan(step, &i); err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

func TestWebhookWithAPayloadOfItsOwn(t *testing.T) {
	url, got := serve(t, status(200))
	s := set(t, `- {name: team, webhook_configs: [{url: '`+url+`', max_alerts: 1, payload: {text: 'is {{ .Status }}', count: ['{{ len .Alerts }}']}}]}`, nil)
	if err := send(t, s, notification(), now); err != nil {
		t.Fatal(err)
	}
	if r := <-got; string(r.body) != `{"count":[1],"text":"is firing"}`+"\n" {
		t.Errorf("posted %s", r.body)
	}
}

func TestAnswersDecide(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		kind   reason.Kind
		after  time.Duration
	}{
		{"500", status(500), reason.Retry, time.Second},
		{"503 for a while", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, reason.Retry, 2 * time.Minute},
		{"429 until a time", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", "Fri, 01 May 2026 12:00:00 GMT")
			w.Header().Set("Retry-After", "Fri, 01 May 2026 12:00:30 GMT")
			w.WriteHeader(http.StatusTooManyRequests)
		}, reason.Retry, 30 * time.Second},
		{"429 for ever", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "99999999999")
			w.WriteHeader(http.StatusTooManyRequests)
		}, reason.Retry, time.Hour},
		{"503 for nonsense", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "-soon")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, reason.Retry, time.Second},
		{"cut off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, reason.Retry, time.Second},
		{"400", status(400), reason.Refuse, 0},
		{"401", status(401), reason.Refuse, 0},
		{"404", status(404), reason.Refuse, 0},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, reason.Refuse, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, _ := serve(t, c.answer)
			s := set(t, `- {name: team, webhook_configs: [{url: '`+url+`/very-secret'}]}`, nil)
			e := send(t, s, notification(), now)
			if e == nil || e.Kind != c.kind || e.RetryAfter != c.after || e.Code != reason.Undelivered {
				t.Fatalf("Send = %+v, want kind %v after %v", e, c.kind, c.after)
			}
			if strings.Contains(e.Error(), "very-secret") || len(e.Error()) > 2000 {
				t.Errorf("says %q", e.Error())
			}
		})
	}
}

func TestErrorsShowNoSecret(t *testing.T) {
	url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "http://%s%s failed", r.Host, r.URL.Path)
	})
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, hook := range map[string]string{
		"echoed": url + "/very-secret", "unreachable": gone.URL + "/very-secret", "template": "http://{{ very-secret }}/", "no host": "http://very-secret\x7f/",
		"empty": "{{ if false }}very-secret{{ end }}",
	} {
		t.Run(name, func(t *testing.T) {
			s := set(t, `- {name: team, webhook_configs: [{url_file: url}]}`, map[string]string{"url": hook})
			e := send(t, s, notification(), now)
			if e == nil {
				t.Fatal("sent")
			}
			if strings.Contains(e.Error(), "very-secret") {
				t.Errorf("says %q", e.Error())
			}
		})
	}
}

func TestSlack(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	url, got := serve(t, func(w http.ResponseWriter, r *http.Request) { answer(w, r) })
	s := set(t, `- {name: team, slack_configs: [{api_url_file: url, channel: '#sec', title: '{{ .Status }} in {{ .GroupLabels.repository }}', text: '{{ range .Alerts }}{{ .Labels.vulnerability }} {{ end }}'}]}`,
		map[string]string{"url": url + "/very-secret"})
	n := notification()
	n.Integration = "slack/0"
	if err := send(t, s, n, now); err != nil {
		t.Fatal(err)
	}
	r := <-got
	if r.path != "/very-secret" || !strings.Contains(string(r.body), `"title":"firing in team/api"`) || !strings.Contains(string(r.body), "CVE-1 CVE-2") {
		t.Errorf("posted %s to %s", r.body, r.path)
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		kind   reason.Kind
	}{
		{"500", status(500), reason.Retry},
		{"429", status(429), reason.Retry},
		{"404", status(404), reason.Refuse},
		{"no_channel", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "no_channel") }, reason.Refuse},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, reason.Retry},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer = c.answer
			e := send(t, s, n, now.Add(time.Hour))
			now = now.Add(2 * time.Hour) // no pause of the last one
			if e == nil || e.Kind != c.kind {
				t.Fatalf("Send = %+v, want kind %v", e, c.kind)
			}
			if strings.Contains(e.Error(), "very-secret") || len(e.Error()) > 2000 {
				t.Errorf("says %q", e.Error())
			}
		})
	}
}

// One that hangs is tried by one message at a time, and left alone in between.
func TestAFailingReceiverIsLeftAlone(t *testing.T) {
	url, _ := serve(t, status(500))
	s := set(t, `- {name: team, webhook_configs: [{url: '`+url+`'}]}`, nil)
	at := now
	for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
		e := send(t, s, notification(), at)
		if e == nil || e.Code != reason.Undelivered || e.RetryAfter != want {
			t.Fatalf("Send = %+v, want again after %v", e, want)
		}
		if e := send(t, s, notification(), at.Add(e.RetryAfter/2)); e == nil || e.Code != reason.ReceiverPaused || e.RetryAfter != want/2 {
			t.Fatalf("Send in the pause = %+v", e)
		}
		at = at.Add(e.RetryAfter)
	}
}

func TestBusyReceiver(t *testing.T) {
	release := make(chan struct{})
	url, got := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	s := set(t, `- {name: team, webhook_configs: [{url: '`+url+`'}]}`, nil)
	done := make(chan error, 4)
	for range 4 {
		go func() {
			done <- s.Send(context.WithoutCancel(t.Context()), notification(), now, func(context.Context) error { return nil })
		}()
	}
	for range 4 {
		<-got
	}
	if e := send(t, s, notification(), now); e == nil || e.Code != reason.ReceiverPaused {
		t.Errorf("Send = %+v", e)
	}
	close(release)
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := send(t, s, notification(), now); err != nil {
		t.Error(err)
	}
}

func TestReceiverThatIsGone(t *testing.T) {
	n := notification()
	n.Integration = "webhook/7"
	e := send(t, set(t, `- {name: team}`, nil), n, now)
	if e == nil || e.Kind != reason.Refuse || !errors.Is(e, receiver.ErrGone) {
		t.Errorf("Send = %+v", e)
	}
}

func TestAttemptThatCanNotBeNotedIsNotMade(t *testing.T) {
	url, got := serve(t, status(200))
	s := set(t, `- {name: team, webhook_configs: [{url: '`+url+`'}]}`, nil)
	failed := errors.New("no bus")
	if err := s.Send(t.Context(), notification(), now, func(context.Context) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("Send = %v", err)
	}
	if len(got) > 0 {
		t.Error("posted")
	}
}
