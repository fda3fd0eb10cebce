package bus

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/work"
)

// schema is the number of the layout below. A stream or consumer in the server carries the number it
// was made with, and is updated only by a higher one: an old replica must not undo a new one's work.
// Raise it with every change of the tables.
const schema = 2

// Names of streams, buckets and object stores, before Bus.name.
const (
	streamEvents      = "EVENTS"
	streamWork        = "WORK"
	streamReports     = "REPORTS"
	streamState       = "STATE"
	streamFindings    = "FINDINGS"
	streamScans       = "SCANS"
	streamSystem      = "SYSTEM"
	streamDeadLetters = "DEADLETTER"
	streamAlerts      = "ALERTS"

	bucketFacts    = "facts"
	bucketBlobs    = "blobs"
	bucketFailures = "failures"
	bucketTracks   = "tracks"
	bucketImages   = "images"
	bucketSources  = "sources"
	bucketFates    = "fates"
	bucketAttempts = "attempts"
	bucketSettings = "settings"
	bucketBreakers = "breakers"

	objectsDatabases = "vulndb"
	objectsReports   = "reports"
	objectsFacts     = "facts"
)

const (
	day    = 24 * time.Hour
	window = day // of duplicates, wherever a message carries an id

	refuses    = jetstream.DiscardNew // when full
	dropOldest = jetstream.DiscardOld
)

// stream is one row of the table of streams. Its subjects are <root>.<subject>.>.
type stream struct {
	name, subject string
	full          jetstream.DiscardPolicy
	maxBytes      int64         // 0: Config.MaxBytes
	maxAge        time.Duration // 0: kept
	ids           bool          // messages carry a Msg-Id
	latest        bool          // one message per subject
	queue         bool          // work queue: an acknowledged message is gone
	live          string        // "": not; stored messages are RePublished to <root>.<live>.>
	headersOnly   bool          // RePublished without their bodies
	outbox        bool          // atomic batches, schedules, messages with a lifetime of their own
}

// Waking subscribers need no bodies: EVENTS and WORK are republished to tell idle consumers. The
// expected-sequence guard needs no ids on WORK, REPORTS and STATE; an id on WORK would outlive its job
// and swallow a legitimate repeat in silence.
var streams = []stream{
	{name: streamEvents, subject: "event", full: refuses, maxAge: 7 * day, ids: true, live: "wake.event", headersOnly: true},
	{name: streamWork, subject: "work", full: refuses, latest: true, queue: true, live: "wake.work", headersOnly: true},
	{name: streamReports, subject: "report.v1", full: dropOldest, latest: true},
	{name: streamState, subject: "state.v1", full: dropOldest, latest: true},
	{name: streamFindings, subject: "finding", full: dropOldest, maxAge: 30 * day, ids: true, live: "live"},
	{name: streamScans, subject: "scan.v1", full: dropOldest, maxAge: 30 * day, ids: true},
	{name: streamSystem, subject: "system.v1", full: dropOldest, maxBytes: 64 << 20, maxAge: 30 * day, ids: true},
	{name: streamDeadLetters, subject: "deadletter", full: dropOldest, maxBytes: 1 << 30, ids: true},
	// A stream with schedules can not refuse: the alert router takes nothing more before it is full.
	{name: streamAlerts, subject: "alert", full: dropOldest, latest: true, outbox: true, live: "wake.alert", headersOnly: true},
}

// bucket is one row of the tables of key-value buckets and object stores.
type bucket struct {
	name     string
	full     jetstream.DiscardPolicy
	maxBytes int64         // 0: Config.MaxBytes
	maxAge   time.Duration // 0: kept
}

// What can be made again is a cache and drops its oldest when full. What can not (tracks, known
// images, settings) refuses, as a bucket made by the client library does.
var buckets = []bucket{
	{name: bucketFacts, full: dropOldest},
	{name: bucketBlobs, full: dropOldest, maxBytes: 1 << 30},
	{name: bucketFailures, full: dropOldest, maxBytes: 256 << 20, maxAge: 6 * time.Hour},
	{name: bucketTracks, full: refuses, maxBytes: 1 << 30},
	{name: bucketImages, full: refuses},
	{name: bucketSources, full: dropOldest, maxBytes: 1 << 30},
	{name: bucketFates, full: dropOldest, maxBytes: 1 << 30, maxAge: 7 * day},
	{name: bucketAttempts, full: dropOldest, maxBytes: 64 << 20, maxAge: day},
	{name: bucketSettings, full: refuses, maxBytes: 16 << 20},
	{name: bucketBreakers, full: dropOldest, maxBytes: 16 << 20, maxAge: day},
}

// An object loses its oldest chunks first when its store drops: a reader finds it damaged and treats
// it as absent.
var objectStores = []bucket{
	{name: objectsDatabases, full: refuses},
	{name: objectsReports, full: dropOldest},
	{name: objectsFacts, full: dropOldest},
}

// consumer is a durable pull consumer. One per lane (and class) instead of one with several filters:
// its numbers are then the backlog of that lane, and asking one lane does not touch the others.
type consumer struct {
	stream, name string
	filter       string // below the root
	fresh        bool   // begins with what is stored after it was made
}

// Consumers of EVENTS, one for each kind of event, named for who takes from them.
const (
	consumerEvents    = "layercache"
	consumerManifests = "psaauditor"
)

func consumers(pools []string) []consumer {
	all := []consumer{
		{stream: streamEvents, name: consumerEvents, filter: "event." + string(event.KindImage) + ".>"},
		{stream: streamEvents, name: consumerManifests, filter: "event." + string(event.KindManifest) + ".>"},
	}
	all = append(all, alertConsumers...)
	for _, lane := range work.Lanes {
		all = append(all,
			consumer{stream: streamWork, name: imageConsumer(lane), filter: "work." + string(lane) + ".image.*"},
			consumer{stream: streamWork, name: matchConsumer(lane), filter: "work." + string(lane) + ".match.*"})
		for _, pool := range pools {
			for _, class := range work.Classes {
				all = append(all, consumer{stream: streamWork, name: layerConsumer(lane, class, pool),
					filter: "work." + string(lane) + ".layer." + Token(pool) + "." + string(class) + ".*"})
			}
		}
	}
	return all
}

func imageConsumer(l work.Lane) string { return "image-" + string(l) }
func matchConsumer(l work.Lane) string { return "match-" + string(l) }
func layerConsumer(l work.Lane, c work.Class, pool string) string {
	return "layer-" + string(l) + "-" + string(c) + "-" + Token(pool)
}

// streamConfigs lists everything the server keeps for this installation: streams, buckets, objects.
func (b *Bus) streamConfigs() []jetstream.StreamConfig {
	var all []jetstream.StreamConfig
	for _, s := range streams {
		all = append(all, b.streamConfig(s))
	}
	for _, k := range buckets {
		all = append(all, b.bucketConfig(k))
	}
	for _, o := range objectStores {
		all = append(all, b.objectStoreConfig(o))
	}
	return all
}

func (b *Bus) streamConfig(s stream) jetstream.StreamConfig {
	all := b.subject(s.subject, ">")
	c := b.limits(bucket{full: s.full, maxBytes: s.maxBytes, maxAge: s.maxAge})
	c.Name, c.Subjects = b.name(s.name), []string{all}
	if s.ids {
		c.Duplicates = window
	}
	if s.latest {
		c.MaxMsgsPerSubject = 1
	}
	if s.queue {
		// The second lock of single flight: were a publisher to forget its guard, the server would
		// still refuse a second job on the same subject.
		c.Retention, c.DiscardNewPerSubject = jetstream.WorkQueuePolicy, true
	}
	if s.outbox {
		c.AllowAtomicPublish, c.AllowMsgSchedules, c.AllowMsgTTL = true, true, true
		c.AllowRollup = true // a timer that is set again replaces itself
	}
	if s.live != "" {
		c.RePublish = &jetstream.RePublish{Source: all, Destination: b.subject(s.live, ">"), HeadersOnly: s.headersOnly}
	}
	return c
}

// bucketConfig is what the client library makes for a key-value bucket, but for Discard: the library
// knows only "new", with which a full cache would take nothing any more instead of forgetting.
func (b *Bus) bucketConfig(k bucket) jetstream.StreamConfig {
	c := b.limits(k)
	c.Name = "KV_" + b.name(k.name)
	c.Subjects = []string{"$KV." + b.name(k.name) + ".>"}
	c.MaxMsgsPerSubject = 1
	c.AllowRollup, c.AllowDirect, c.DenyDelete = true, true, true
	c.AllowMsgTTL = true // a purge may leave a marker that goes away by itself
	return c
}

// objectStoreConfig, likewise, of an object store.
func (b *Bus) objectStoreConfig(o bucket) jetstream.StreamConfig {
	c := b.limits(o)
	c.Name = "OBJ_" + b.name(o.name)
	c.Subjects = []string{"$O." + b.name(o.name) + ".C.>", "$O." + b.name(o.name) + ".M.>"}
	c.AllowRollup, c.AllowDirect = true, true
	return c
}

func (b *Bus) limits(k bucket) jetstream.StreamConfig {
	size := b.cfg.MaxBytes
	if k.maxBytes != 0 {
		size = min(size, k.maxBytes)
	}
	return jetstream.StreamConfig{
		Storage: jetstream.FileStorage, Replicas: b.cfg.Replicas, MaxBytes: size, MaxAge: k.maxAge, Discard: k.full,
		MaxMsgs: -1, MaxConsumers: -1, MaxMsgSize: -1, MaxMsgsPerSubject: -1,
		Metadata: metadata(),
	}
}

func (b *Bus) consumerConfig(c consumer) jetstream.ConsumerConfig {
	from := jetstream.DeliverAllPolicy
	if c.fresh {
		from = jetstream.DeliverNewPolicy
	}
	return jetstream.ConsumerConfig{
		Durable: c.name, FilterSubject: b.subject(c.filter),
		AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: from, AckWait: b.cfg.AckWait,
		// An exhausted MaxDeliver leaves its message undelivered and its key blocked for good: poison is
		// counted by attempts instead.
		MaxDeliver: -1,
		// Messages handed back with a delay count too; at the default of 1,000 they would stop the lane.
		MaxAckPending: 100_000,
		// Can not be changed later.
		MaxWaiting: 10_000,
		Metadata:   metadata(),
	}
}
