// The program example prints findings as they come and go: what a subscriber of one's own may start from.
//
//	go run ./pkg/subscriber/example nats://127.0.0.1:4222 team-a.creds
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/subscriber"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: example NATS-URL CREDENTIALS")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := follow(ctx, os.Stdout, os.Args[1], os.Args[2])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// follow prints until ctx ends.
func follow(ctx context.Context, w io.Writer, url, creds string, options ...nats.Option) error {
	s, err := subscriber.Connect(url, creds, subscriber.Config{}, options...)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Run(ctx, printer{w})
}

type printer struct{ w io.Writer }

func (p printer) Snapshot(_ context.Context, s finding.State) error {
	for _, f := range s.Open {
		if _, err := fmt.Fprintf(p.w, "open      %-8s %s %s %s\n", f.Severity, f.Vulnerability, f.Package, name(s.Asset)); err != nil {
			return err
		}
	}
	return nil
}

func (p printer) Delta(_ context.Context, d finding.Delta) error {
	_, err := fmt.Fprintf(p.w, "%-9s %-8s %s %s %s\n", d.Transition, d.Finding.Severity, d.Finding.Vulnerability, d.Finding.Package, name(d.Asset))
	return err
}

func name(a finding.Asset) string {
	if a.Host == "" {
		w := a.Workload
		return w.Cluster + "/" + w.Namespace + "/" + w.Kind + "/" + w.Name
	}
	return a.Host + "/" + a.Repository + ":" + a.Track + " " + a.Platform.String()
}
