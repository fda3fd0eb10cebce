package cmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/services/pratique/allinone"
)

// defaultState is where `up` keeps its state and the other commands look for it.
const defaultState = ".pratique"

// connectTimeout bounds the wait for a NATS server's answer.
const connectTimeout = 10 * time.Second

// busFlags say which installation a command talks to.
type busFlags struct {
	State string `help:"State folder of a running 'pratique up'." placeholder:"DIR" default:"${state}"`
	NATS  string `name:"nats" help:"Talk to this NATS server instead, as in nats://host:4222." placeholder:"URL" env:"PRATIQUE_NATS_URL"`
	Creds string `help:"Credentials file for --nats." placeholder:"FILE" env:"PRATIQUE_NATS_CREDS"`
}

// open connects, and returns the bus and how to leave.
func (f busFlags) open(r *runner) (*bus.Bus, func(), error) {
	nc, err := f.connect(r)
	if err != nil {
		return nil, nil, err
	}
	b, err := bus.New(nc, bus.Config{}, bus.Options{Logger: r.log, Now: r.Now})
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return b, nc.Close, nil
}

func (f busFlags) connect(r *runner) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name("pratique command line"), nats.Timeout(connectTimeout),
		// A watch outlives its server, and says so: without a word, silence would look like no news.
		nats.MaxReconnects(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				_ = r.err().Linef("pratique: connection lost (%v); waiting for the server", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { _ = r.err().Linef("pratique: connected again") }),
	}
	if f.NATS != "" {
		if f.Creds != "" {
			creds, err := withCreds(f.Creds)
			if err != nil {
				return nil, usagef("--creds: %w", err)
			}
			options = append(options, creds...)
		}
		nc, err := nats.Connect(f.NATS, options...)
		if err != nil {
			return nil, fmt.Errorf("--nats %s: %w; is the server there, and do --creds let you in?", f.NATS, err)
		}
		return nc, nil
	}
	if f.Creds != "" {
		return nil, usagef("--creds: goes with --nats URL; a state folder has credentials of its own")
	}
	endpoint, err := allinone.Find(f.State)
	if errors.Is(err, allinone.ErrNotRunning) {
		return nil, usagef("--state %s: nobody runs there; start 'pratique up --state %s', or name a server with --nats URL", f.State, f.State)
	}
	if err != nil {
		return nil, usagef("--state: %w", err)
	}
	creds, err := withCreds(endpoint.Creds)
	if err != nil {
		return nil, usagef("--state: credentials: %w", err)
	}
	nc, err := nats.Connect(endpoint.NATS, append(append(options, creds...), nats.SetCustomDialer(stateDialer(f.State)))...)
	if err != nil {
		return nil, fmt.Errorf("--state %s: %w; did 'pratique up' die there? Start it again", f.State, err)
	}
	return nc, nil
}

// withCreds are the options of credentials, and of the inboxes that they allow.
func withCreds(file string) ([]nats.Option, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	inbox, err := access.InboxOf(b)
	if err != nil {
		return nil, err
	}
	options := []nats.Option{nats.UserCredentials(file)}
	if inbox != "" {
		options = append(options, nats.CustomInboxPrefix(inbox))
	}
	return options, nil
}

// stateDialer goes where the installation in a state folder listens now, whatever it is asked for: after a
// restart that is another port.
type stateDialer string

func (d stateDialer) Dial(network, _ string) (net.Conn, error) {
	endpoint, err := allinone.Find(string(d))
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(endpoint.NATS)
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w", string(d), err)
	}
	dialer := net.Dialer{Timeout: connectTimeout}
	return dialer.DialContext(context.Background(), network, u.Host) // the client has no context to give
}

// output is how results are written.
type output string

const (
	asTable output = "table"
	asJSON  output = "json"
)

// printLine writes one JSON object on a line.
func (r *runner) printLine(b []byte, err error) error {
	if err != nil {
		return err
	}
	_, err = r.Stdout.Write(append(b, '\n'))
	return err
}
