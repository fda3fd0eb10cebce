package cmd

import (
	"context"
	"encoding/json/v2"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/services/pratique/allinone"
	"github.com/pratique-sec/pratique/services/pratique/render"
)

type subscriberCmd struct {
	Add    subscriberAddCmd    `cmd:"" help:"Let somebody read the findings of a scope: makes two consumers, and credentials that open them and nothing else."`
	List   subscriberListCmd   `cmd:"" help:"List subscribers and how far they have read (read-only)."`
	Rotate subscriberRotateCmd `cmd:"" help:"Make new credentials for a subscriber, which go on where the old ones stopped, and end the old ones."`
	Remove subscriberRemoveCmd `cmd:"" help:"Delete a subscriber's consumers: its credentials open nothing any more."`
}

// signerFlag says with which key credentials are made, and where they go.
type signerFlag struct {
	Signer string `name:"signing-key" help:"The file subscribers.signer that 'credentials init' wrote (default: that of the state folder)." placeholder:"FILE"`
	Out    string `help:"File to write the credentials to; none is overwritten (default: NAME.creds)." placeholder:"FILE"`
}

// open reads the signer and makes sure that the credentials can be written, before anything is made for them.
func (s *signerFlag) open(f busFlags, name string) (*access.Issuer, error) {
	if s.Signer == "" {
		if f.NATS != "" {
			return nil, usagef("--signing-key: name the file %s that 'pratique credentials init' wrote", access.SubscriberSignerFile)
		}
		endpoint, err := allinone.Find(f.State)
		if err != nil {
			return nil, usagef("--state: %w", err)
		}
		s.Signer = endpoint.Signer
	}
	issuer, err := access.ReadIssuer(s.Signer)
	if err != nil {
		return nil, usagef("--signing-key: %w", err)
	}
	if s.Out == "" {
		s.Out = name + ".creds"
	}
	if _, err := os.Lstat(s.Out); err == nil {
		return nil, usagef("--out %s: there is one already; name another, or remove it", s.Out)
	}
	return issuer, nil
}

// issue writes a subscriber's credentials.
func (s *signerFlag) issue(r *runner, b *bus.Bus, issuer *access.Issuer, made bus.Subscriber) error {
	subscription := access.Subscription{State: made.State, Findings: made.Findings}
	if made.Mirror {
		subscription.Core = b.MirrorSubjects(made.Subscription)
	}
	creds, err := issuer.Issue(access.User{Name: made.State, Permissions: access.ForSubscriber(subscription)})
	if err != nil {
		return err
	}
	if err := r.writeCreds(s.Out, creds); err != nil {
		return err
	}
	return r.err().Linef("consumers of STATE and FINDINGS: %s, in the JetStream domain %q; inbox prefix: %s; how to read them: docs/subscribing.md",
		made.State, access.Domain(""), access.Inbox(made.State))
}

type subscriberAddCmd struct {
	busFlags
	signerFlag
	Name     string   `arg:"" help:"Lower-case letters, digits and \"-\"."`
	Scope    []string `help:"What it may read: REGISTRY or REGISTRY/PREFIX, with --class psa CLUSTER or CLUSTER/NAMESPACE; '*' is everything (repeatable)." required:""`
	Class    string   `help:"Of vulnerabilities (vuln) or Pod Security (psa)." enum:"vuln,psa" default:"vuln"`
	Severity []string `help:"Only changes to or from these severities: unknown, low, medium, high, critical (repeatable, or separated by commas; default: all)." placeholder:"SEVERITY"`
	JSON     bool     `name:"json" help:"Let it listen to the JSON mirror of its scope, too."`
}

func (c *subscriberAddCmd) Run(ctx context.Context, r *runner) error {
	s := bus.Subscription{Name: c.Name, Class: finding.Class(c.Class), Scopes: c.Scope, Mirror: c.JSON}
	for _, text := range c.Severity {
		severity, ok := report.ParseSeverity(text)
		if !ok {
			return usagef("--severity %q: want unknown, low, medium, high or critical", text)
		}
		s.Severities = append(s.Severities, severity)
	}
	issuer, err := c.signerFlag.open(c.busFlags, c.Name)
	if err != nil {
		return err
	}
	b, leave, err := c.busFlags.open(r)
	if err != nil {
		return err
	}
	defer leave()
	made, err := b.AddSubscriber(ctx, s)
	switch {
	case errors.Is(err, bus.ErrExists):
		return usagef("NAME: there is a subscriber %q since %s; 'subscriber rotate' makes new credentials for it", c.Name, made.Created.Format(time.DateOnly))
	case reason.Of(err).Kind == reason.Refuse:
		return usagef("%w", err)
	case err != nil:
		return err
	}
	if err := c.issue(r, b, issuer, made); err != nil {
		return errors.Join(err, b.DropSubscriber(context.WithoutCancel(ctx), made))
	}
	return nil
}

type subscriberRotateCmd struct {
	busFlags
	signerFlag
	Name string `arg:"" help:"The subscriber."`
}

func (c *subscriberRotateCmd) Run(ctx context.Context, r *runner) error {
	issuer, err := c.signerFlag.open(c.busFlags, c.Name)
	if err != nil {
		return err
	}
	b, leave, err := c.busFlags.open(r)
	if err != nil {
		return err
	}
	defer leave()
	next, _, err := b.RotateSubscriber(ctx, c.Name)
	if err != nil {
		return noSubscriber(err, c.Name)
	}
	if err := c.issue(r, b, issuer, next); err != nil {
		return errors.Join(err, b.DropSubscriber(context.WithoutCancel(ctx), next))
	}
	return dropNamed(ctx, b, c.Name, next.State)
}

type subscriberRemoveCmd struct {
	busFlags
	Name string `arg:"" help:"The subscriber."`
}

func (c *subscriberRemoveCmd) Run(ctx context.Context, r *runner) error {
	b, leave, err := c.open(r)
	if err != nil {
		return err
	}
	defer leave()
	if _, err := b.Subscriber(ctx, c.Name); err != nil {
		return noSubscriber(err, c.Name)
	}
	if err := dropNamed(ctx, b, c.Name, ""); err != nil {
		return err
	}
	return r.err().Linef("%s removed", c.Name)
}

// dropNamed drops every subscriber of a name but the one with a consumer: a rotation that was cut short
// leaves two.
func dropNamed(ctx context.Context, b *bus.Bus, name, but string) error {
	all, err := b.Subscribers(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Name == name && s.State != but {
			err = errors.Join(err, b.DropSubscriber(ctx, s))
		}
	}
	return err
}

func noSubscriber(err error, name string) error {
	if errors.Is(err, bus.ErrNotFound) {
		return usagef("NAME: there is no subscriber %q; 'subscriber list' shows them", name)
	}
	return err
}

type subscriberListCmd struct {
	busFlags
	Output output `short:"o" help:"table or json (an object a line)." enum:"table,json" default:"table"`
}

// subscriberJSON is a subscriber as a line of JSON.
type subscriberJSON struct {
	Name           string    `json:"name"`
	Class          string    `json:"class"`
	Scopes         []string  `json:"scopes"`
	Severities     []string  `json:"severities,omitempty"`
	JSON           bool      `json:"json,omitzero"`
	Created        time.Time `json:"created"`
	Consumer       string    `json:"consumer"`
	Pending        uint64    `json:"pending"`
	Unacknowledged int       `json:"unacknowledged"`
	LastAck        time.Time `json:"lastAck,omitzero"`
}

func (c *subscriberListCmd) Run(ctx context.Context, r *runner) error {
	b, leave, err := c.open(r)
	if err != nil {
		return err
	}
	defer leave()
	all, err := b.Subscribers(ctx)
	if err != nil {
		return err
	}
	if len(all) == 0 && c.Output == asTable {
		return r.err().Linef("no subscribers")
	}
	rows := make([]render.Subscriber, len(all))
	for i, s := range all {
		var severities []string
		for _, severity := range s.Severities {
			severities = append(severities, severity.String())
		}
		if c.Output == asJSON {
			if err := r.printLine(json.Marshal(subscriberJSON{
				Name: s.Name, Class: string(s.Class), Scopes: s.Scopes, Severities: severities, JSON: s.Mirror, Created: s.Created,
				Consumer: s.Findings, Pending: s.Pending, Unacknowledged: s.Unacknowledged, LastAck: s.LastAck,
			})); err != nil {
				return err
			}
			continue
		}
		rows[i] = render.Subscriber{
			Name: s.Name, Class: string(s.Class), Scopes: strings.Join(s.Scopes, " "), Severities: strings.Join(severities, " "),
			Created: s.Created, Unread: s.Pending + uint64(max(s.Unacknowledged, 0)), LastAck: s.LastAck,
		}
	}
	if c.Output == asJSON {
		return nil
	}
	return r.out().Subscribers(rows, r.Now())
}
