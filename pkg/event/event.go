// Package event is what happened in a registry or to a cluster's manifests, normalised: every source's
// body becomes this one value before anything else looks at it.
package event

import (
	"time"

	"github.com/pratique-sec/pratique/pkg/image"
)

// Kind is the world an event comes from.
type Kind string

const (
	KindImage    Kind = "image"    // a registry's repositories, tags and manifests
	KindManifest Kind = "manifest" // manifests of a cluster's objects, as somebody posted them
)

// Action is what was done.
type Action string

const (
	Push    Action = "push"    // a manifest was stored, tagged or not
	Delete  Action = "delete"  // a manifest, tag or repository was removed
	Request Action = "request" // somebody asks for a scan
)

// Cause is why an image is evaluated. It travels with every job and every finding, so that a
// subscriber can tell news from a re-match.
type Cause string

const (
	CausePush    Cause = "push"
	CauseCrawl   Cause = "crawl"
	CauseRematch Cause = "rematch"
	CauseRequest Cause = "request"
	CauseDelete  Cause = "delete"
)

// Event is one normalised event.
type Event struct {
	ID        string // the source's event identity, hashed: the same event sent twice has the same ID
	Kind      Kind
	Source    string // the source's short name: "distribution", "api"
	Action    Action
	Cause     Cause
	Reference image.Reference  // KindImage; on a repository delete, neither Tag nor Digest
	MediaType string           // of the manifest, when the event says it
	Platforms []image.Platform // asked for; empty: the configured ones
	Actor     string
	Claimed   time.Time // when the source says it happened; zero when it does not or lies
	Received  time.Time // when ingest got it
	Unusable  []string  // fields that could not be used, and why ("target.digest: 65 hex digits")
	Manifests Manifests // KindManifest
}

// Manifests are what was posted for a cluster.
type Manifests struct {
	Cluster   string // as whoever posted calls it
	Namespace string // of the objects that name none
	Body      []byte // YAML documents, or JSON objects one after the other
}
