package access

import "github.com/nats-io/jwt/v2"

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
