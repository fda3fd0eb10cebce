// Package access says who may do what on NATS, and makes the credentials that say so to the server.
//
// A service's permissions are data: the subjects that its part of ARCHITECTURE.md needs, JetStream's API
// included, and nothing else. A subscriber's are its own two consumers. Everybody has an inbox prefix of his
// own: who could listen to "_INBOX.>" would read the answers that others get.
//
// Credentials are those of NATS's operator mode: the server knows the operator and the accounts, and
// believes every user whose token the account's signing key has signed. So a new user needs no change of
// the server; it can not be withdrawn before it expires either, but it can be left with nothing to read:
// a subscriber's consumers are deleted.
package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pratique-sec/pratique/pkg/work"
)

// Role is a kind of process that talks to NATS.
type Role string

// Roles of the services, of the people who operate them (Admin: everything in the account), and of what
// only looks at numbers (Monitor: streams and consumers, no message).
const (
	Ingest      Role = "ingest"
	LayerCache  Role = "layercache"
	Scanner     Role = "scanner"
	PSAAuditor  Role = "psaauditor"
	AlertRouter Role = "alertrouter"
	Admin       Role = "admin"
	Monitor     Role = "monitor"
)

// Roles lists all of them.
var Roles = []Role{Ingest, LayerCache, Scanner, PSAAuditor, AlertRouter, Admin, Monitor}

// DefaultRoot is the first token of every subject where nobody chose another.
const DefaultRoot = "pratique"

// Permissions are subjects in NATS's notation. What is not allowed is denied; Deny takes away from what
// Publish allows.
type Permissions struct {
	Publish   []string
	Deny      []string
	Subscribe []string
}

// ErrRole: no role has this name.
var ErrRole = errors.New("no such role")

// Of answers what a role may do in the installation with this root ("" is the default one). It may
// subscribe below its inbox prefix too; see Inbox.
func Of(root string, r Role) (Permissions, error) {
	g := newGrants(root)
	grant, ok := roles[r]
	if !ok {
		return Permissions{}, fmt.Errorf("access: %w: %q; there are %s", ErrRole, r, names(Roles))
	}
	grant(g)
	if r != Admin && r != Monitor {
		g.keys("settings") // is the installation provisioned?
	}
	return g.permissions(), nil
}

// roles is the table of who may do what.
var roles = map[Role]func(*grants){
	Ingest: func(g *grants) {
		g.send("event.>")
		g.streamInfo("EVENTS", "REPORTS", "KV_sources")
		g.read("EVENTS", "REPORTS")
		g.keys("fates")
		g.objects("reports")
	},
	LayerCache: func(g *grants) {
		g.provision()
		g.consume("EVENTS", "layercache")
		g.listen("wake.event.>", "notice.*")
		g.jobs("image")
		g.send("work.*.image.*", "work.*.layer.>", "work.*.match.*")
		g.send("scan.v1.>", "report.v1.>", "system.v1.*", "deadletter.layercache.*")
		g.read("REPORTS")
		g.storeObjects("reports")
		g.keys("facts")
		g.change("facts", "blobs", "failures", "tracks", "images", "sources", "fates", "attempts", "settings", "breakers")
		g.follow("tracks", "images", "settings", "breakers")
		g.objects("facts")
		g.api("CONSUMER.LIST.*", g.name("EVENTS"), g.name("WORK"), g.name("STATE"), g.name("FINDINGS"))
		g.read("FINDINGS") // how old is what a subscriber has not read?
		g.send("json.>")
		for _, s := range []string{"FINDINGS", "SCANS", "SYSTEM"} {
			g.consume(s, "mirror")
		}
	},
	Scanner: func(g *grants) {
		g.jobs("layer", "match")
		g.send("work.*.image.*", "notice.*", "report.v1.>", "state.v1.>", "finding.v1.>", "scan.v1.>", "system.v1.*", "deadletter.scanner.*")
		g.streamInfo("REPORTS", "STATE")
		g.read("REPORTS", "STATE")
		g.change("facts", "blobs", "failures", "fates", "attempts", "settings", "breakers")
		g.follow("settings", "breakers")
		g.storeObjects("reports", "facts")
		g.objects("vulndb")
	},
	PSAAuditor: func(g *grants) {
		g.consume("EVENTS", "psaauditor")
		g.listen("wake.event.>")
		g.send("state.v1.psa.>", "finding.v1.psa.>", "scan.v1.>", "system.v1.*", "deadletter.psaauditor.*")
		g.streamInfo("STATE")
		g.read("STATE")
		g.change("fates")
	},
	AlertRouter: func(g *grants) {
		g.consume("FINDINGS", "alertrouter")
		g.consume("SYSTEM", "alertrouter")
		g.listen("live.>", "wake.alert.>")
		g.send("alert.>", "system.v1.*", "deadletter.alertrouter.*")
		g.streamInfo("ALERTS")
		g.read("ALERTS")
		g.api("STREAM.MSG.DELETE.*", g.name("ALERTS"))
		g.ownConsumers("ALERTS")
	},
	// The commands of the command line: it provisions, loads databases, drives letters again, makes
	// subscribers, and reads whatever there is.
	Admin: func(g *grants) {
		g.publish("$JS.API.>", "$JS.ACK.>", "$KV.>", "$O.>", g.root+".>")
		g.subscribe(g.root+".>", "$JS.EVENT.ADVISORY.>")
	},
	Monitor: func(g *grants) {
		g.publish("$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.*",
			"$JS.API.CONSUMER.NAMES.*", "$JS.API.CONSUMER.LIST.*", "$JS.API.CONSUMER.INFO.*.*")
	},
}

// grants collects permissions in the words of the table above.
type grants struct {
	root string
	p    Permissions
}

func newGrants(root string) *grants {
	if root == "" {
		root = DefaultRoot
	}
	return &grants{root: root}
}

func (g *grants) permissions() Permissions {
	for _, list := range []*[]string{&g.p.Publish, &g.p.Deny, &g.p.Subscribe} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return g.p
}

func (g *grants) publish(subjects ...string)   { g.p.Publish = append(g.p.Publish, subjects...) }
func (g *grants) subscribe(subjects ...string) { g.p.Subscribe = append(g.p.Subscribe, subjects...) }

// name is a stream's or bucket's in this installation, as the bus names it.
func (g *grants) name(n string) string {
	if g.root == DefaultRoot {
		return n
	}
	return n + "_" + g.root
}

// send publishes on subjects below the root.
func (g *grants) send(subjects ...string) {
	for _, s := range subjects {
		g.publish(g.root + "." + s)
	}
}

// listen is core NATS below the root.
func (g *grants) listen(subjects ...string) {
	for _, s := range subjects {
		g.subscribe(g.root + "." + s)
	}
}

// api allows one request of JetStream's API about each stream: the * of the request is the stream.
func (g *grants) api(request string, streams ...string) {
	for _, s := range streams {
		g.publish("$JS.API." + strings.Replace(request, "*", s, 1))
	}
}

// streamInfo is what opening a stream asks.
func (g *grants) streamInfo(streams ...string) {
	for _, s := range streams {
		g.api("STREAM.INFO.*", g.name(s))
	}
}

// read reads single messages.
func (g *grants) read(streams ...string) {
	for _, s := range streams {
		g.api("STREAM.MSG.GET.*", g.name(s))
	}
}

// consume takes from a service's own durable consumer, and makes it when it is gone.
func (g *grants) consume(stream, consumer string) {
	g.api("CONSUMER.CREATE.*."+consumer, g.name(stream))
	g.api("CONSUMER.CREATE.*."+consumer+".>", g.name(stream))
	g.api("CONSUMER.INFO.*."+consumer, g.name(stream))
	g.api("CONSUMER.MSG.NEXT.*."+consumer, g.name(stream))
	g.publish("$JS.ACK." + g.name(stream) + "." + consumer + ".>")
}

// ownConsumers are all consumers of a stream that nobody else reads.
func (g *grants) ownConsumers(stream string) {
	for _, request := range []string{"CREATE.*.>", "INFO.*.*", "MSG.NEXT.*.*", "DELETE.*.*"} {
		g.api("CONSUMER."+request, g.name(stream))
	}
	g.publish("$JS.ACK." + g.name(stream) + ".>")
}

// jobs works on jobs of some kinds on WORK. Each kind has a consumer for each lane, and layers for each class
// and pool too. Those of a kind that can be listed are; of layers, all are allowed and the others taken away.
func (g *grants) jobs(kinds ...string) {
	stream := g.name("WORK")
	g.streamInfo("WORK")
	g.read("WORK")                       // is this job still the newest on its key?
	g.api("STREAM.MSG.DELETE.*", stream) // the job that a higher lane replaced
	g.api("CONSUMER.INFO.*.*", stream)   // has that one been handed out?
	for _, kind := range kinds {
		g.api("CONSUMER.CREATE.*.*."+g.root+".work.*."+kind+".>", stream)
		g.listen("wake.work.*." + kind + ".>")
	}
	take := func(consumer string) []string {
		return []string{"$JS.API.CONSUMER.MSG.NEXT." + stream + "." + consumer, "$JS.ACK." + stream + "." + consumer + ".>"}
	}
	layers := slices.Contains(kinds, "layer")
	if layers {
		g.publish(take("*")...)
	}
	for _, kind := range []string{"image", "match"} {
		for _, lane := range work.Lanes {
			switch subjects := take(kind + "-" + string(lane)); {
			case slices.Contains(kinds, kind) && !layers:
				g.publish(subjects...)
			case !slices.Contains(kinds, kind) && layers:
				g.p.Deny = append(g.p.Deny, subjects...)
			}
		}
	}
}

// keys reads key-value buckets.
func (g *grants) keys(buckets ...string) {
	for _, b := range buckets {
		stream := "KV_" + g.name(b)
		g.api("STREAM.INFO.*", stream)
		g.api("DIRECT.GET.*.>", stream)
	}
}

// change reads and writes them; removing a key is a purge of its subject.
func (g *grants) change(buckets ...string) {
	g.keys(buckets...)
	for _, b := range buckets {
		g.publish("$KV." + g.name(b) + ".>")
		g.api("STREAM.PURGE.*", "KV_"+g.name(b))
	}
}

// follow lists and watches keys, with a consumer that lives as long.
func (g *grants) follow(buckets ...string) {
	for _, b := range buckets {
		stream := "KV_" + g.name(b)
		for _, request := range []string{"CREATE.*.>", "INFO.*.*", "MSG.NEXT.*.*", "DELETE.*.*"} {
			g.api("CONSUMER."+request, stream)
		}
		g.api("DIRECT.GET.*", stream)
	}
}

// objects reads object stores.
func (g *grants) objects(stores ...string) {
	for _, o := range stores {
		stream := "OBJ_" + g.name(o)
		g.api("STREAM.INFO.*", stream)
		g.api("DIRECT.GET.*", stream)
		g.api("DIRECT.GET.*.>", stream)
	}
}

// storeObjects reads and writes them.
func (g *grants) storeObjects(stores ...string) {
	g.objects(stores...)
	for _, o := range stores {
		g.publish("$O." + g.name(o) + ".>")
		g.api("STREAM.PURGE.*", "OBJ_"+g.name(o))
	}
}

// provision makes what is missing and updates what an older release made: streams, buckets, and the
// services' consumers. Who may make a stream may have it copy another: this role is trusted.
func (g *grants) provision() {
	g.publish("$JS.API.STREAM.INFO.*", "$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*")
	for _, of := range []struct{ stream, consumer string }{
		{"EVENTS", "*"}, {"WORK", "*"}, {"ALERTS", "*"}, {"FINDINGS", "alertrouter"}, {"SYSTEM", "alertrouter"},
	} {
		for _, request := range []string{"CREATE.*.", "INFO.*.", "DELETE.*."} {
			g.api("CONSUMER."+request+of.consumer, g.name(of.stream))
		}
		g.api("CONSUMER.CREATE.*."+of.consumer+".>", g.name(of.stream))
	}
}

func names[S ~string](all []S) string {
	var b strings.Builder
	for i, s := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(s))
	}
	return b.String()
}
