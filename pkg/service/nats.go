package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/access"
)

// NATSConfig says how to reach NATS.
type NATSConfig struct {
	URL   string // "nats://host:4222" or "tls://…", several separated by commas
	Creds string // path of a .creds file; "" for none
	CA    string // path of a PEM file with the server's authority; "" for the system's
	Cert  string // client certificate and key, paths of PEM files; both or none
	Key   string
}

// Validate names every field that is wrong.
func (c NATSConfig) Validate() error {
	var errs []error
	for server := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(server))
		switch {
		case err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
			errs = append(errs, errors.New("url: want nats://host:4222 or tls://host:4222, several separated by commas"))
		case u.User != nil:
			errs = append(errs, errors.New("url: holds credentials, which logs would show; name a file in creds"))
		}
	}
	if (c.Cert == "") != (c.Key == "") {
		errs = append(errs, errors.New("cert: client certificate and key go together; set both or neither"))
	}
	return errors.Join(errs...)
}

// partNATS is the connection's name in Health.
const partNATS = "nats"

// ConnectNATS connects and stays connected: it returns although no server answers yet, and never gives
// up. health shows how it stands, until the connection is closed. name is shown by the server. Further
// options (an in-process server) go last.
func ConnectNATS(c NATSConfig, name string, health *Health, log *slog.Logger, more ...nats.Option) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(time.Second),
		nats.Timeout(5 * time.Second),
		nats.PingInterval(20 * time.Second),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			log.LogAttrs(context.Background(), slog.LevelWarn, "nats error", slog.String("subject", subject), slog.Any("error", err))
		}),
	}
	if c.Creds != "" {
		inbox, err := inboxOf(c.Creds)
		if err != nil {
			return nil, fmt.Errorf("nats: creds: %w", err)
		}
		opts = append(opts, nats.UserCredentials(c.Creds), nats.CustomInboxPrefix(inbox))
	}
	if c.CA != "" {
		opts = append(opts, nats.RootCAs(c.CA))
	}
	if (c.Cert == "") != (c.Key == "") {
		return nil, errors.New("nats: client certificate and key go together; set both or neither")
	}
	if c.Cert != "" {
		opts = append(opts, nats.ClientCert(c.Cert, c.Key))
	}
	nc, err := nats.Connect(c.URL, append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	watchNATS(nc, health, log)
	return nc, nil
}

// inboxOf reads under which prefix the credentials allow inboxes: one of their own, so that nobody reads
// another's answers. Credentials that say nothing of it get the usual one.
func inboxOf(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	inbox, err := access.InboxOf(b)
	if inbox == "" {
		inbox = strings.TrimSuffix(nats.InboxPrefix, ".")
	}
	return inbox, err
}

var errNATSAway = errors.New("not connected")

// watchNATS keeps health up to date by the connection's status rather than by its handlers, of which
// there is only one each: others may want to be told, too.
func watchNATS(nc *nats.Conn, health *Health, log *slog.Logger) {
	changed := nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	note := func() {
		if nc.IsConnected() {
			health.Set(partNATS, nil)
		} else {
			health.Set(partNATS, errNATSAway)
		}
	}
	note() // what happened before the subscription
	go func() {
		for status := range changed {
			note() // the present status: the channel drops what nobody fetched
			log.LogAttrs(context.Background(), slog.LevelInfo, "nats connection changed",
				slog.String("status", status.String()), slog.String("server", nc.ConnectedUrlRedacted()))
			if status == nats.CLOSED {
				return
			}
		}
	}()
}
