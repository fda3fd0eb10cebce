package receiver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/alertmanager/notify/webhook"
	"github.com/prometheus/alertmanager/template"
	commoncfg "github.com/prometheus/common/config"
	"go.opentelemetry.io/otel/propagation"

	"github.com/pratique-sec/pratique/pkg/reason"
)

const (
	maxAnswer     = 64 << 10 // of a receiver that is read, in bytes
	maxSecret     = 64 << 10 // of a file that holds one
	maxRetryAfter = time.Hour
	payload       = "4" // version of Alertmanager's webhook payload
	userAgent     = "pratique-alertrouter"
)

type hook struct {
	conf   *webhook.WebhookConfig
	tmpl   *template.Template
	client *http.Client
}

func newWebhook(c *webhook.WebhookConfig, tmpl *template.Template) (func(context.Context, message) error, error) {
	client, err := commoncfg.NewClientFromConfig(*c.HTTPConfig, "webhook", commoncfg.WithUserAgent(userAgent))
	if err != nil {
		return nil, err
	}
	return hook{c, tmpl, client}.send, nil
}

func (h hook) send(ctx context.Context, m message) error {
	if h.conf.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.conf.Timeout)
		defer cancel()
	}
	request, err := h.request(ctx, m)
	if err != nil {
		return err
	}
	answer, err := h.client.Do(request)
	if err != nil {
		return reason.Retryf(reason.Undelivered, "post: %s", told(err))
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswer)) // that it answered says enough
	return outcome(answer, text)
}

func (h hook) request(ctx context.Context, m message) (*http.Request, error) {
	alerts, dropped := m.alerts, uint64(m.dropped)
	if most := h.conf.MaxAlerts; most != 0 && uint64(len(alerts)) > most {
		dropped += uint64(len(alerts)) - most
		alerts = alerts[:most]
	}
	data := h.tmpl.Data(m.receiver, m.group, m.route, m.reason.String(), alerts...)
	template.MarkRouteLabelsRendered(data)
	body, err := h.body(&webhook.Message{Data: data, Version: payload, GroupKey: m.groupKey, TruncatedAlerts: dropped})
	if err != nil {
		return nil, err
	}
	address, err := h.address(data)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, reason.Refusef(reason.Undelivered, "url: is none")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", userAgent)
	request.Header.Set("Idempotency-Key", m.key)
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(request.Header))
	return request, nil
}

func (h hook) body(m *webhook.Message) ([]byte, error) {
	var v any = m
	if h.conf.Payload != nil {
		rendered, err := template.DeepCopyWithTemplate(h.conf.Payload, func(s string) (string, error) {
			return h.tmpl.ExecuteTextString(s, m.Data)
		})
		if err != nil {
			return nil, reason.Refusef(reason.Undelivered, "payload: %s", told(err))
		}
		v = rendered
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, reason.Refusef(reason.Undelivered, "payload: %s", told(err))
	}
	return append(b, '\n'), nil
}

// address is read anew each time, as Alertmanager does, so that a secret can be rotated.
func (h hook) address(data *template.Data) (string, error) {
	written := string(h.conf.URL)
	if written == "" {
		var err error
		if written, err = readSecret(h.conf.URLFile); err != nil {
			return "", reason.Retryf(reason.Undelivered, "url_file: %w", err)
		}
	}
	address, err := h.tmpl.ExecuteTextString(written, data)
	if err != nil || address == "" {
		return "", reason.Refusef(reason.Undelivered, "url: its template gives none") // the error would quote it
	}
	return address, nil
}

func readSecret(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// outcome decides by the status: the sender of a request that is refused can do nothing about it.
func outcome(answer *http.Response, text []byte) error {
	code := answer.StatusCode
	if code/100 == 2 {
		return nil
	}
	why := fmt.Errorf("answered %d: %s", code, told(errors.New(strconv.Quote(clip(without(string(text), sentWith(answer.Request)...))))))
	e := &reason.Error{Kind: reason.Refuse, Code: reason.Undelivered, Err: why}
	if code/100 == 5 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code == http.StatusTooEarly {
		e.Kind, e.RetryAfter = reason.Retry, retryAfter(answer)
	}
	return e
}

// sentWith is what of a request is a secret, or may be: the URL's path and query, and the credentials.
func sentWith(r *http.Request) []string {
	_, password, _ := r.BasicAuth()
	_, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return []string{r.URL.RequestURI(), r.URL.Path, r.URL.RawQuery, credentials, password}
}

// clip cuts an answer to what is worth telling.
func clip(s string) string { return s[:min(len(s), maxError)] }

// retryAfter reads the header; 0 when it is absent or says nothing.
func retryAfter(answer *http.Response) time.Duration {
	v := answer.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(v); err == nil {
		return min(max(time.Duration(min(seconds, int(maxRetryAfter/time.Second)))*time.Second, 0), maxRetryAfter)
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	from := time.Now()
	if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		from = date // its own clock
	}
	return min(max(at.Sub(from), 0), maxRetryAfter)
}
