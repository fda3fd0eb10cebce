// Package receiver tells receivers what a notification holds, and says of a failure whether the same may
// succeed later. Slack is told by Alertmanager's own integration; webhooks get exactly Alertmanager's
// version 4 payload from here, since each message carries an Idempotency-Key of its own.
//
// Receivers are the operator's choice, so their hosts are trusted; what they answer is bounded, and what
// they are told with is never repeated in an error.
package receiver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/common/model"

	pratique "github.com/pratique-sec/pratique/pkg/alert"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/services/alertrouter/route"
)

// Options of sending. All are required.
type Options struct {
	ExternalURL string        // what templates link to
	Timeout     time.Duration // of one attempt
	Backoff     time.Duration // after the first failure of a receiver; doubles
	MaxBackoff  time.Duration
}

// Set is the receivers of a configuration. Safe for concurrent use.
type Set struct {
	senders map[string]*sender
	opts    Options
	tmpl    *template.Template
}

// sender is one integration of one receiver, and how it has been doing.
type sender struct {
	kind string
	gate gate
	send func(ctx context.Context, m message) error
}

// message is a notification as Alertmanager's packages want it.
type message struct {
	key      string // Idempotency-Key
	groupKey string
	receiver string
	group    model.LabelSet
	route    model.LabelSet
	reason   notify.NotifyReason
	alerts   []*alert.Alert
	dropped  int
}

// New builds the receivers of a table. The error joins everything that is wrong.
func New(t *route.Table, o Options) (*Set, error) {
	tmpl, err := template.FromGlobs(t.Templates)
	if err != nil {
		return nil, fmt.Errorf("templates: %w", err)
	}
	if tmpl.ExternalURL, err = url.Parse(o.ExternalURL); err != nil {
		return nil, errors.New("externalURL: is no URL")
	}
	s := &Set{senders: map[string]*sender{}, opts: o, tmpl: tmpl}
	var errs []error
	for i, r := range t.Receivers {
		for _, integration := range route.Integrations(r) {
			send, err := s.build(r, integration)
			if err != nil {
				errs = append(errs, fmt.Errorf("receivers[%d] (%s).%s_configs[%d]: %s", i, r.Name, integration.Kind, integration.Index, route.Redact(err.Error()))) // its text may hold a secret
				continue
			}
			s.senders[senderKey(r.Name, integration.Name())] = &sender{kind: integration.Kind, send: send}
		}
	}
	return s, errors.Join(errs...)
}

func senderKey(receiver, integration string) string { return receiver + "\x00" + integration }

func (s *Set) build(r config.Receiver, i route.Integration) (func(context.Context, message) error, error) {
	if i.Kind == "slack" {
		return newSlack(r, i.Index, s.tmpl)
	}
	return newWebhook(r.WebhookConfigs[i.Index], s.tmpl)
}

// ErrGone: the configuration no longer has this receiver, or not this way to tell it.
var ErrGone = errors.New("no such receiver in the configuration")

// Send tells a receiver, after attempt was called, whose error is returned as it is. Every other error is a
// reason.Error: of kind Retry when the same may succeed later, not before its RetryAfter, with the code
// ReceiverPaused when it was not tried; of kind Refuse when it will not succeed.
func (s *Set) Send(ctx context.Context, n pratique.Notification, now time.Time, attempt func(context.Context) error) error {
	to, ok := s.senders[senderKey(n.Receiver, n.Integration)]
	if !ok {
		return &reason.Error{Kind: reason.Refuse, Code: reason.Undelivered, Err: fmt.Errorf("%s of %q: %w", n.Integration, n.Receiver, ErrGone)}
	}
	if wait := to.gate.enter(now); wait > 0 {
		return &reason.Error{Kind: reason.Retry, Code: reason.ReceiverPaused, RetryAfter: wait, Err: fmt.Errorf("%s of %q fails, or is busy", n.Integration, n.Receiver)}
	}
	if err := attempt(ctx); err != nil {
		to.gate.leave(now, true, 0)
		return err
	}
	err := s.post(ctx, to, n, now)
	if err == nil {
		to.gate.leave(now, true, 0)
		return nil
	}
	e := reason.Of(err)
	failed := &reason.Error{Kind: e.Kind, Code: reason.Undelivered, Err: fmt.Errorf("%s of %q: %w", n.Integration, n.Receiver, e.Err)}
	if e.Kind != reason.Retry { // it answered: it is well
		to.gate.leave(now, true, 0)
		return failed
	}
	failed.RetryAfter = to.gate.leave(now, false, s.pause(to, e.RetryAfter))
	return failed
}

// pause is how long a receiver that failed is left alone.
func (s *Set) pause(to *sender, asked time.Duration) time.Duration {
	d := s.opts.Backoff
	for range to.gate.failed() {
		if d *= 2; d >= s.opts.MaxBackoff {
			d = s.opts.MaxBackoff
			break
		}
	}
	return max(d, asked)
}

func (s *Set) post(ctx context.Context, to *sender, n pratique.Notification, now time.Time) (err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	defer func() { // a template is the operator's, and the text in it is anybody's
		if p := recover(); p != nil {
			err = reason.Refusef(reason.Undelivered, "a template panics")
		}
	}()
	m := messageOf(n, now)
	m.route = s.render(m)
	return to.send(ctx, m)
}

func messageOf(n pratique.Notification, now time.Time) message {
	m := message{
		key: n.ID, groupKey: "pratique/" + n.Group, receiver: n.Receiver,
		group: labelSet(n.Labels), route: labelSet(n.RouteLabels), dropped: n.Truncated,
	}
	firing := false
	for _, t := range n.Alerts {
		ends := t.Alert.Ends
		if ends.After(now) { // by another's clock: in the future it would count as firing
			ends = now
		}
		firing = firing || t.Alert.Firing()
		m.alerts = append(m.alerts, &alert.Alert{
			Alert: model.Alert{
				Labels: labelSet(t.Alert.Labels), Annotations: labelSet(t.Alert.Annotations),
				StartsAt: t.Alert.Starts, EndsAt: ends, GeneratorURL: t.Alert.Annotations["url"],
			},
			UpdatedAt: n.Created,
		})
	}
	slices.SortStableFunc(m.alerts, func(a, b *alert.Alert) int {
		switch {
		case a.Labels.Before(b.Labels):
			return -1
		case b.Labels.Before(a.Labels):
			return 1
		default:
			return 0
		}
	})
	m.reason = reasons[n.Reason]
	if n.Reason == pratique.ReasonResolved && !firing {
		m.reason = notify.ReasonAllAlertsResolved
	}
	return m
}

var reasons = map[string]notify.NotifyReason{
	pratique.ReasonFirst:    notify.ReasonFirstNotification,
	pratique.ReasonNew:      notify.ReasonNewAlertsInGroup,
	pratique.ReasonResolved: notify.ReasonNewResolvedAlerts,
	pratique.ReasonRepeat:   notify.ReasonRepeatIntervalElapsed,
}

func labelSet(m map[string]string) model.LabelSet {
	set := make(model.LabelSet, len(m))
	for k, v := range m {
		set[model.LabelName(k)] = model.LabelValue(v)
	}
	return set
}

// render executes the templates in a route's labels, as Alertmanager's dispatcher does. One that fails
// stays as it is written.
func (s *Set) render(m message) model.LabelSet {
	if len(m.route) == 0 {
		return nil
	}
	data := s.tmpl.Data(m.receiver, m.group, m.route, m.reason.String(), m.alerts...)
	render := s.tmpl.RouteLabelRenderer(data)
	rendered := make(model.LabelSet, len(m.route))
	for name, written := range m.route {
		rendered[name] = written
		if v, err := render(string(name)); err == nil {
			rendered[name] = model.LabelValue(v)
		}
	}
	return rendered
}

// notifyContext is what Alertmanager's integrations read a notification's particulars from.
func notifyContext(ctx context.Context, m message) context.Context {
	ctx = notify.WithGroupKey(ctx, m.groupKey)
	ctx = notify.WithReceiverName(ctx, m.receiver)
	ctx = notify.WithGroupLabels(ctx, m.group)
	ctx = notify.WithRouteLabels(ctx, m.route)
	return notify.WithNotificationReason(ctx, m.reason)
}

// without takes out of a text what a request was sent with: some receivers repeat it, as in "Cannot POST /path".
func without(text string, sent ...string) string {
	for _, s := range sent {
		if len(s) > 1 { // not the path of a URL without one
			text = strings.ReplaceAll(text, s, "<redacted>")
		}
	}
	return text
}

// maxError bounds what a failure says, in bytes.
const maxError = 512

// told is an error's text for logs and dead letters: bounded, and without URLs.
func told(err error) string {
	s := route.Redact(err.Error())
	if len(s) > maxError {
		s = s[:maxError] + "…"
	}
	return s
}
