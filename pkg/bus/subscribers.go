package bus

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
)

// Everything is the scope of who may read all of a class.
const Everything = "*"

// Subscription is what a subscriber may read.
type Subscription struct {
	Name  string // lower-case letters, digits and "-", at most 40
	Class finding.Class
	// Scopes are "registry/prefix", of class psa "cluster/namespace", or just the first of the two. They
	// end at a slash: "registry/team-a" is the repository team-a and all below it, and not team-ab.
	// Everything alone is all of the class.
	Scopes []string
	// Severities are those of the deltas, where a delta has the higher one of before and after; none: all.
	// STATE holds an asset's findings of all severities, whatever is chosen here.
	Severities []report.Severity
	// Mirror lets it listen to the JSON mirror of its scopes, too; see MirrorSubjects.
	Mirror bool
}

// Subscriber is a subscription and its two consumers.
type Subscriber struct {
	Subscription
	Created  time.Time
	State    string // consumer of STATE
	Findings string // consumer of FINDINGS

	// How it gets on with FINDINGS.
	Pending        uint64    // not handed out yet
	Unacknowledged int       // handed out
	LastAck        time.Time // zero: never
}

// ErrExists: a subscriber has this name.
var ErrExists = errors.New("bus: a subscriber has this name")

// Metadata of a subscriber's consumers.
const (
	metadataSubscriber = "pratique-subscriber"
	metadataClass      = "pratique-class"
	metadataScopes     = "pratique-scopes"
	metadataSeverities = "pratique-severities"
	metadataMirror     = "pratique-mirror"
)

const (
	subscriberPrefix  = "sub-"
	maxSubscriberName = 40
	randomLength      = 16
	// subscriberAckWait is long for a person with a terminal, short for a service: a subscriber sends no
	// heartbeats unless it wants to.
	subscriberAckWait = time.Minute
	// maxFilters bounds scopes times severities.
	maxFilters = 100
)

// AddSubscriber makes the consumers of a subscriber. That of FINDINGS begins at the end of the stream, which
// is noted before anything else, and that of STATE gives all there is afterwards: what changes meanwhile
// comes by both, with the same revisions. ErrExists, or reason.Refuse for a subscription that can not be.
func (b *Bus) AddSubscriber(ctx context.Context, s Subscription) (Subscriber, error) {
	there, err := b.Subscriber(ctx, s.Name)
	if err == nil {
		return there, fmt.Errorf("%w: %q, added %s", ErrExists, s.Name, there.Created.Format(time.DateOnly))
	}
	if !errors.Is(err, ErrNotFound) {
		return Subscriber{}, err
	}
	end, err := b.LastDelta(ctx)
	if err != nil {
		return Subscriber{}, err
	}
	return b.makeSubscriber(ctx, s, end+1)
}

// RotateSubscriber makes new consumers for a subscriber, which go on where it has acknowledged to, and
// answers both. The old ones are still there, for as long as the new credentials are on their way: drop them
// with DropSubscriber. ErrNotFound.
func (b *Bus) RotateSubscriber(ctx context.Context, name string) (next, old Subscriber, err error) {
	old, err = b.Subscriber(ctx, name)
	if err != nil {
		return Subscriber{}, Subscriber{}, err
	}
	state, findings, err := b.floors(ctx, old)
	if err != nil {
		return Subscriber{}, Subscriber{}, err
	}
	next, err = b.makeSubscriber(ctx, old.Subscription, findings+1)
	if err != nil {
		return Subscriber{}, Subscriber{}, err
	}
	// Moved, not begun there: whoever lost what it knew may then still go back to the beginning.
	err = b.do(ctx, "reset consumer", func(ctx context.Context) error {
		_, err := b.js.ResetConsumerToSequence(ctx, b.name(streamState), next.State, state+1)
		return err
	})
	if err != nil {
		return Subscriber{}, Subscriber{}, errors.Join(storeError("move consumer "+next.State, err), b.DropSubscriber(ctx, next))
	}
	return next, old, nil
}

// floors are up to where a subscriber has acknowledged everything, in STATE and FINDINGS.
func (b *Bus) floors(ctx context.Context, s Subscriber) (state, findings uint64, err error) {
	c, err := b.js.Consumer(ctx, b.name(streamState), s.State)
	if err != nil {
		return 0, 0, storeError("read consumer "+s.State, err)
	}
	state = c.CachedInfo().AckFloor.Stream
	if c, err = b.js.Consumer(ctx, b.name(streamFindings), s.Findings); err != nil {
		return 0, 0, storeError("read consumer "+s.Findings, err)
	}
	// One that has acknowledged nothing stands where it began.
	info := c.CachedInfo()
	return state, max(info.AckFloor.Stream, info.Config.OptStartSeq-1), nil
}

// makeSubscriber makes both consumers, or none.
func (b *Bus) makeSubscriber(ctx context.Context, s Subscription, from uint64) (Subscriber, error) {
	if err := s.check(); err != nil {
		return Subscriber{}, err
	}
	// Nobody can tell the next name from the last: credentials that were handed out name nothing when their
	// consumers are gone.
	name := subscriberPrefix + s.Name + "-" + strings.ToLower(rand.Text()[:randomLength])
	made := Subscriber{Subscription: s, Created: b.now().UTC(), State: name, Findings: name}
	findings := b.subscriberConsumer(made, b.findingFilters(s))
	findings.DeliverPolicy, findings.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from
	// One message a subject is all that STATE keeps, so "all" is "the last of each"; and only a consumer that
	// begins at the beginning may be moved back to it.
	state := b.subscriberConsumer(made, b.stateFilters(s))
	state.DeliverPolicy = jetstream.DeliverAllPolicy
	if err := b.createConsumer(ctx, b.name(streamFindings), findings); err != nil {
		return Subscriber{}, storeError("create consumer "+name, err)
	}
	if err := b.createConsumer(ctx, b.name(streamState), state); err != nil {
		return Subscriber{}, errors.Join(storeError("create consumer "+name, err), b.DropSubscriber(ctx, made))
	}
	return made, nil
}

func (b *Bus) subscriberConsumer(s Subscriber, filters []string) jetstream.ConsumerConfig {
	severities := make([]string, len(s.Severities))
	for i, severity := range s.Severities {
		severities[i] = severity.String()
	}
	c := jetstream.ConsumerConfig{
		Durable: s.State, AckPolicy: jetstream.AckExplicitPolicy, AckWait: subscriberAckWait, MaxDeliver: -1,
		Description: "subscriber " + s.Name,
		Metadata: map[string]string{
			metadataSubscriber: s.Name, metadataClass: string(s.Class), metadataScopes: strings.Join(s.Scopes, " "),
			metadataSeverities: strings.Join(severities, " "), metadataMirror: strconv.FormatBool(s.Mirror),
		},
	}
	if len(filters) == 1 {
		c.FilterSubject = filters[0]
	} else {
		c.FilterSubjects = filters
	}
	return c
}

// scopeTokens are the subject tokens of a scope.
func scopeTokens(scope string) []string {
	tokens := strings.Split(scope, "/")
	for i, t := range tokens {
		tokens[i] = Token(t)
	}
	return tokens
}

// below are all subjects below a prefix that are in a scope. At least two tokens follow it, track and platform
// or kind and name: with one, the scope registry/app/main would let its reader have the track main of the
// repository app.
func (s Subscription) below(prefix string) []string {
	if slices.Equal(s.Scopes, []string{Everything}) {
		return []string{prefix + ".>"}
	}
	all := make([]string, len(s.Scopes))
	for i, scope := range s.Scopes {
		all[i] = prefix + "." + strings.Join(scopeTokens(scope), ".") + ".*.>"
	}
	return all
}

func (b *Bus) stateFilters(s Subscription) []string {
	return s.below(b.subject("state", "v1", string(s.Class)))
}

func (b *Bus) findingFilters(s Subscription) []string {
	return s.deltas(b.subject("finding", "v1"))
}

// MirrorSubjects are those of core NATS on which the JSON mirror publishes what is in a subscription: deltas of
// its severities, and of class vuln all scans.
func (b *Bus) MirrorSubjects(s Subscription) []string {
	all := s.deltas(b.subject(mirrorToken, "finding", "v1"))
	if s.Class == finding.ClassVuln {
		all = append(all, s.below(b.subject(mirrorToken, "scan", "v1", "*"))...)
	}
	return all
}

func (s Subscription) deltas(prefix string) []string {
	if len(s.Severities) == 0 {
		return s.below(prefix + "." + string(s.Class) + ".*.*")
	}
	var all []string
	for _, severity := range s.Severities {
		all = append(all, s.below(prefix+"."+string(s.Class)+".*."+severity.String())...)
	}
	return all
}

// check names what is wrong with a subscription, as a reason.Refuse.
func (s Subscription) check() error {
	refuse := func(format string, args ...any) error { return reason.Refusef(reason.Malformed, format, args...) }
	if !validSubscriberName(s.Name) {
		return refuse("name %q: want lower-case letters, digits and \"-\", at most %d", s.Name, maxSubscriberName)
	}
	if s.Class != finding.ClassVuln && s.Class != finding.ClassPSA {
		return refuse("class %q: want %s or %s", s.Class, finding.ClassVuln, finding.ClassPSA)
	}
	if len(s.Scopes) == 0 {
		return refuse("scope: none; %q is everything", Everything)
	}
	for i, scope := range s.Scopes {
		if err := checkScope(s.Class, scope); err != nil && !slices.Equal(s.Scopes, []string{Everything}) {
			return refuse("scope %q: %w", scope, err)
		}
		for _, other := range s.Scopes[:i] {
			if within(scope, other) || within(other, scope) {
				return refuse("scope: %q and %q: one is in the other; leave it out", other, scope)
			}
		}
	}
	for i, severity := range s.Severities {
		if slices.Contains(s.Severities[:i], severity) {
			return refuse("severity %s: twice", severity)
		}
	}
	if n := len(s.Scopes) * max(1, len(s.Severities)); n > maxFilters {
		return refuse("scopes times severities: %d, at most %d", n, maxFilters)
	}
	return nil
}

func validSubscriberName(s string) bool {
	ok := strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	return s != "" && len(s) <= maxSubscriberName && ok
}

func checkScope(class finding.Class, scope string) error {
	first, rest, more := strings.Cut(scope, "/")
	if class == finding.ClassPSA {
		if first == "" || more && (rest == "" || strings.Contains(rest, "/")) {
			return errors.New("want cluster or cluster/namespace")
		}
		return nil
	}
	if err := image.CheckHost(first); err != nil {
		return fmt.Errorf("want registry or registry/prefix: %w", err)
	}
	if more {
		if err := image.CheckRepository(rest); err != nil {
			return fmt.Errorf("want registry or registry/prefix: %w", err)
		}
	}
	return nil
}

// within tells that a scope is another one or a part of it.
func within(scope, whole string) bool {
	return scope == whole || strings.HasPrefix(scope, whole+"/")
}

// Subscriber reads one by its name. ErrNotFound. While its credentials are rotated there are two: then the
// newer one.
func (b *Bus) Subscriber(ctx context.Context, name string) (Subscriber, error) {
	all, err := b.Subscribers(ctx)
	if err != nil {
		return Subscriber{}, err
	}
	for _, s := range slices.Backward(all) {
		if s.Name == name {
			return s, nil
		}
	}
	return Subscriber{}, fmt.Errorf("bus: subscriber %q: %w", name, ErrNotFound)
}

// Subscribers lists them by name, and the older ones first. One that lost a consumer is listed too: without
// it, it could not be dropped.
func (b *Bus) Subscribers(ctx context.Context) ([]Subscriber, error) {
	found := map[string]*Subscriber{}
	for _, stream := range []string{streamState, streamFindings} {
		err := b.eachConsumer(ctx, b.name(stream), func(c *jetstream.ConsumerInfo) error {
			s, ok := found[c.Name]
			if !ok {
				if s, ok = subscriberOf(c); !ok {
					return nil
				}
				found[c.Name] = s
			}
			if stream == streamFindings {
				s.Pending, s.Unacknowledged = c.NumPending, c.NumAckPending
				if c.AckFloor.Last != nil {
					s.LastAck = c.AckFloor.Last.UTC()
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	all := make([]Subscriber, 0, len(found))
	for _, s := range found {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(x, y Subscriber) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), x.Created.Compare(y.Created), cmp.Compare(x.State, y.State))
	})
	return all, nil
}

// eachConsumer calls fn with what the server says of each consumer of a stream.
func (b *Bus) eachConsumer(ctx context.Context, stream string, fn func(*jetstream.ConsumerInfo) error) error {
	s, err := b.stream(ctx, stream)
	if err != nil {
		return storeError("open "+stream, err)
	}
	list := s.ListConsumers(ctx)
	var failed error
	for c := range list.Info() {
		if failed == nil { // the list is read to its end: its goroutine waits
			failed = fn(c)
		}
	}
	if failed != nil {
		return failed
	}
	return wrapped("list consumers of "+stream, list.Err())
}

// subscriberOf reads a subscriber from one of its consumers; false when it is none's.
func subscriberOf(c *jetstream.ConsumerInfo) (*Subscriber, bool) {
	m := c.Config.Metadata
	if m[metadataSubscriber] == "" {
		return nil, false
	}
	s := &Subscriber{
		Subscription: Subscription{Name: m[metadataSubscriber], Class: finding.Class(m[metadataClass]), Scopes: strings.Fields(m[metadataScopes]), Mirror: m[metadataMirror] == "true"},
		Created:      c.Created.UTC(), State: c.Name, Findings: c.Name,
	}
	for _, text := range strings.Fields(m[metadataSeverities]) {
		if severity, ok := report.ParseSeverity(text); ok {
			s.Severities = append(s.Severities, severity)
		}
	}
	return s, true
}

// DropSubscriber deletes a subscriber's consumers: from then on its credentials open nothing. What is gone
// already is no error.
func (b *Bus) DropSubscriber(ctx context.Context, s Subscriber) error {
	var errs []error
	for _, of := range []struct{ stream, consumer string }{{streamState, s.State}, {streamFindings, s.Findings}} {
		err := b.do(ctx, "delete consumer", func(ctx context.Context) error {
			return b.js.DeleteConsumer(ctx, b.name(of.stream), of.consumer)
		})
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			errs = append(errs, storeError("delete consumer "+of.consumer, err))
		}
	}
	return errors.Join(errs...)
}
