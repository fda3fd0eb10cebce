package access_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/access/accesstest"
)

// TestCrossing: the server refuses a service what belongs to another.
func TestCrossing(t *testing.T) {
	s := accesstest.Start(t)
	for role, subjects := range map[access.Role][]string{
		access.Ingest: {
			"pratique.work.push.image.x", "pratique.finding.v1.x", "pratique.state.v1.x", "$JS.API.STREAM.DELETE.EVENTS",
			"$JS.API.CONSUMER.CREATE.STATE.mine", "$JS.API.CONSUMER.MSG.NEXT.EVENTS.layercache", "$JS.ACK.EVENTS.layercache.1.1.1.1.0",
			"$KV.settings.vulndb", "$O.vulndb.C.x", "$JS.API.STREAM.CREATE.MINE",
		},
		access.LayerCache: {
			"pratique.finding.v1.x", "pratique.state.v1.x", "pratique.event.push.x.y", "$O.vulndb.C.x", "$JS.API.STREAM.DELETE.WORK",
			"$JS.API.CONSUMER.MSG.NEXT.WORK.layer-push-xs-default", "$JS.API.CONSUMER.MSG.NEXT.WORK.match-push", "$JS.ACK.WORK.match-push.1.1.1.1.0",
		},
		access.Scanner: {
			"pratique.event.push.x.y", "pratique.work.push.layer.default.xs.k", "pratique.work.push.match.k", "$JS.API.STREAM.CREATE.MINE",
			"$JS.API.CONSUMER.MSG.NEXT.WORK.image-push", "$JS.ACK.WORK.image-push.1.1.1.1.0", "$KV.tracks.x", "$KV.images.x", "$O.vulndb.C.x",
			"$JS.API.CONSUMER.CREATE.FINDINGS.mine", "$JS.API.CONSUMER.CREATE.WORK.mine.pratique.work.push.image.>",
		},
		access.PSAAuditor: {
			"pratique.state.v1.container.x", "pratique.finding.v1.vulnerability.x", "pratique.work.push.image.x", "$JS.API.CONSUMER.MSG.NEXT.WORK.image-push",
		},
		access.AlertRouter: {"pratique.state.v1.psa.x", "pratique.finding.v1.psa.x", "pratique.event.push.x.y", "$KV.settings.vulndb"},
		access.Monitor:     {"pratique.system.v1.x", "$JS.API.STREAM.MSG.GET.STATE", "$JS.API.CONSUMER.CREATE.STATE.mine", "$JS.API.STREAM.PURGE.STATE"},
	} {
		t.Run(string(role), func(t *testing.T) {
			nc := s.Connect(t, role)
			for _, subject := range subjects {
				if got := refusedPublish(t, nc, subject); !got {
					t.Errorf("may publish on %s", subject)
				}
			}
			for _, subject := range []string{">", "pratique.>", "pratique.finding.>", "_INBOX.>", "_INBOX_*.>", "$JS.>", "$KV.>", "$SYS.>"} {
				if !refusedSubscribe(t, nc, subject) {
					t.Errorf("may subscribe to %s", subject)
				}
			}
		})
	}
}

// TestTokensFitTheControlLine: a client sends its token as one line. Half of what our server takes leaves
// room for another release's permissions.
func TestTokensFitTheControlLine(t *testing.T) {
	in, err := access.NewInstallation("test", "")
	must(t, err)
	for _, r := range access.Roles {
		creds, err := in.Issuer.IssueRole("", r)
		must(t, err)
		if token := strings.Split(string(creds), "\n")[1]; len(token) > access.MaxControlLine/2 {
			t.Errorf("%s: token of %d bytes", r, len(token))
		}
	}
}

func TestUnknownRole(t *testing.T) {
	if _, err := access.Of("", "nobody"); !errors.Is(err, access.ErrRole) {
		t.Fatal(err)
	}
}

func TestRootsAreApart(t *testing.T) {
	for _, r := range access.Roles {
		if r == access.Admin || r == access.Monitor {
			continue // the account's
		}
		p, err := access.Of("other", r)
		must(t, err)
		for _, s := range slices.Concat(p.Publish, p.Subscribe, p.Deny) {
			if !strings.Contains(s, "other") && s != "$JS.API.STREAM.INFO.*" && s != "$JS.API.STREAM.CREATE.*" && s != "$JS.API.STREAM.UPDATE.*" {
				t.Errorf("%s of root other: %s", r, s)
			}
		}
	}
}

// refusedPublish publishes and answers whether the server told that it may not.
func refusedPublish(t *testing.T, nc *nats.Conn, subject string) bool {
	t.Helper()
	return refused(t, nc, fmt.Sprintf("Publish to %q", subject), func() error { return nc.Publish(subject, nil) })
}

func refusedSubscribe(t *testing.T, nc *nats.Conn, subject string) bool {
	t.Helper()
	return refused(t, nc, fmt.Sprintf("Subscription to %q", subject), func() error {
		_, err := nc.SubscribeSync(subject)
		return err
	})
}

func refused(t *testing.T, nc *nats.Conn, what string, do func() error) bool {
	t.Helper()
	must(t, do())
	must(t, nc.Flush()) // the refusal comes before the answer to the flush
	err := nc.LastError()
	return err != nil && strings.Contains(err.Error(), "Permissions Violation for "+what)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
