package access

import (
	"errors"
	"strings"

	"github.com/nats-io/jwt/v2"
)

// Subscription names what one subscriber may read: its consumers, which only an administrator makes, since
// who may make a consumer may read every team. Their names hold a random part: what was once handed out
// names nothing any more when they are deleted.
type Subscription struct {
	Root     string   // "" is the default one
	State    string   // consumer of STATE
	Findings string   // consumer of FINDINGS
	Core     []string // subjects of core NATS, for those with nothing but `nats sub`; usually none
}

// ForSubscriber answers what a subscriber may do: look at its two consumers, pull from them, acknowledge, and
// move them back to where they began, which is taking the snapshot again. The requests are those of the
// JetStream domain that is called like the root, since the account has no JetStream of its own: see Domain.
func ForSubscriber(s Subscription) Permissions {
	g := newGrants(s.Root)
	for _, of := range []struct{ stream, consumer string }{{"STATE", s.State}, {"FINDINGS", s.Findings}} {
		for _, request := range subscriberRequests {
			g.publish(domainPrefix(g.root) + request + "." + g.name(of.stream) + "." + of.consumer)
		}
		g.publish("$JS.ACK." + g.name(of.stream) + "." + of.consumer + ".>")
	}
	g.subscribe(s.Core...)
	return g.permissions()
}

// subscriberRequests are those of JetStream's API that a subscriber makes of its consumers.
var subscriberRequests = []string{"CONSUMER.INFO", "CONSUMER.MSG.NEXT", "CONSUMER.RESET"}

// Domain is the JetStream domain in which subscribers find their consumers.
func Domain(root string) string { return newGrants(root).root }

func domainPrefix(root string) string { return "$JS." + root + ".API." }

// bridge is a subject of the streams' account that can be reached from that of the subscribers, and what it
// is called there.
type bridge struct {
	subject, local string
	kind           jwt.ExportType
}

// bridges are all there are. Which consumer is whose, the users' permissions say.
func bridges(root string) []bridge {
	g := newGrants(root)
	mirror := g.root + ".json.>"
	all := []bridge{{mirror, mirror, jwt.Stream}}
	for _, stream := range []string{g.name("STATE"), g.name("FINDINGS")} {
		for _, request := range subscriberRequests {
			rest := request + "." + stream + ".*"
			all = append(all, bridge{"$JS.API." + rest, domainPrefix(g.root) + rest, jwt.Service})
		}
		ack := "$JS.ACK." + stream + ".>"
		all = append(all, bridge{ack, ack, jwt.Service})
	}
	return all
}

// StreamName is a stream's name in the installation with this root.
func StreamName(root, stream string) string { return newGrants(root).name(stream) }

// ErrNoSubscriber: the credentials are not those of a subscriber.
var ErrNoSubscriber = errors.New("access: not a subscriber's credentials")

// SubscriptionOf reads from the content of a .creds file which consumers its subscriber may pull from.
func SubscriptionOf(creds []byte) (Subscription, error) {
	claims, err := userOf(creds)
	if err != nil {
		return Subscription{}, err
	}
	var s Subscription
	for _, subject := range claims.Pub.Allow {
		// $JS.<root>.API.CONSUMER.MSG.NEXT.<stream>.<consumer>
		t := strings.Split(subject, ".")
		if len(t) != 8 || !strings.HasPrefix(subject, domainPrefix(t[1])+"CONSUMER.MSG.NEXT.") {
			continue
		}
		switch t[6] {
		case StreamName(t[1], "STATE"):
			s.Root, s.State = t[1], t[7]
		case StreamName(t[1], "FINDINGS"):
			s.Root, s.Findings = t[1], t[7]
		}
	}
	if s.State == "" || s.Findings == "" {
		return Subscription{}, ErrNoSubscriber
	}
	return s, nil
}
