package receiver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"time"

	"github.com/prometheus/alertmanager/config"
	amreceiver "github.com/prometheus/alertmanager/config/receiver"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/template"
	commoncfg "github.com/prometheus/common/config"

	"github.com/pratique-sec/pratique/pkg/reason"
)

// dialTimeout bounds connecting to Slack, or to the proxy before it.
const dialTimeout = 10 * time.Second

// newSlack is Alertmanager's integration as it is. It reads answers without a bound and tells no headers:
// the bound is put on its connections, one for each message, and a Retry-After is not seen.
func newSlack(r config.Receiver, index int, tmpl *template.Template) (func(context.Context, message) error, error) {
	c := *r.SlackConfigs[index]
	c.UpdateMessage = false
	built, err := amreceiver.BuildReceiverIntegrations(
		config.Receiver{Name: r.Name, SlackConfigs: []*config.SlackConfig{&c}}, tmpl, nil,
		commoncfg.WithDialContextFunc(dialBounded), commoncfg.WithKeepAlivesDisabled(), commoncfg.WithUserAgent(userAgent))
	if err != nil {
		return nil, err
	}
	integration := &built[0]
	return func(ctx context.Context, m message) error {
		again, err := integration.Notify(notifyContext(ctx, m), m.alerts...)
		if err == nil {
			return nil
		}
		var why *notify.ErrorWithReason
		if errors.As(err, &why) && why.Reason == notify.RateLimitedReason {
			again = true
		}
		e := &reason.Error{Kind: reason.Refuse, Code: reason.Undelivered, Err: errors.New(told(errors.New(without(err.Error(), slackSecrets(&c)...))))}
		if again {
			e.Kind = reason.Retry
		}
		return e
	}, nil
}

// slackSecrets are what its messages are sent with, as it stands now.
func slackSecrets(c *config.SlackConfig) []string {
	var secrets []string
	add := func(s, file string) {
		if file != "" {
			s, _ = readSecret(file) // it could be read a moment ago, or nothing was sent
		}
		secrets = append(secrets, s)
		if u, err := url.Parse(s); err == nil {
			secrets = append(secrets, u.RequestURI(), u.Path)
		}
	}
	if c.APIURL != nil {
		add(c.APIURL.String(), "")
	}
	add("", c.APIURLFile)
	add(string(c.AppToken), c.AppTokenFile)
	if h := c.HTTPConfig; h != nil && h.Authorization != nil {
		add(string(h.Authorization.Credentials), h.Authorization.CredentialsFile)
	}
	return secrets
}

// maxConnection bounds what is read from one connection, handshake and headers included.
const maxConnection = 1 << 20

func dialBounded(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &boundedConn{c, io.LimitReader(c, maxConnection)}, nil
}

type boundedConn struct {
	net.Conn
	r io.Reader
}

func (c *boundedConn) Read(b []byte) (int, error) { return c.r.Read(b) }
