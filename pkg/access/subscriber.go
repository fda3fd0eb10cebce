package access

// Subscription names what one subscriber may read: its consumers, which only an administrator makes, since
// who may make a consumer may read every team. Their names hold a random part: what was once handed out
// names nothing any more when they are deleted.
type Subscription struct {
	Root     string   // "" is the default one
	State    string   // consumer of STATE
	Findings string   // consumer of FINDINGS
	Core     []string // subjects of core NATS, for those with nothing but `nats sub`; usually none
}

// ForSubscriber answers what a subscriber may do: look at its two consumers, pull from them, and
// acknowledge.
func ForSubscriber(s Subscription) Permissions {
	g := &grants{root: s.Root}
	if s.Root == "" {
		g.root = DefaultRoot
	}
	for _, of := range []struct{ stream, consumer string }{{"STATE", s.State}, {"FINDINGS", s.Findings}} {
		g.api("CONSUMER.INFO.*."+of.consumer, g.name(of.stream))
		g.api("CONSUMER.MSG.NEXT.*."+of.consumer, g.name(of.stream))
		g.publish("$JS.ACK." + g.name(of.stream) + "." + of.consumer + ".>")
	}
	g.subscribe(s.Core...)
	return g.permissions()
}
