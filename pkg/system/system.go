// Package system is Pratique's own troubles, and the letters it could not deliver.
package system

import (
	"time"

	"github.com/pratique-sec/pratique/pkg/reason"
)

// Kind names a trouble; it is the last token of its subject.
type Kind string

const (
	DatabaseLoaded        Kind = "database-loaded"        // another database is current
	DatabaseStale         Kind = "database-stale"         // the current one is old
	DeadLettered          Kind = "dead-letter"            // a message was refused or poisonous
	StreamFull            Kind = "stream-full"            // a stream or bucket is at its size limit: it drops its oldest or refuses
	RegistryPaused        Kind = "registry-paused"        // one fails, and is left alone
	RegistryResumed       Kind = "registry-resumed"       // it has been well again for a while
	SubscriberBehind      Kind = "subscriber-behind"      // what one has not read expires soon
	ConsumerMisconfigured Kind = "consumer-misconfigured" // somebody changed a consumer so that jobs get lost
)

// Notice is one trouble, told once: ID is deterministic.
type Notice struct {
	ID      string
	Kind    Kind
	Subject string // what it is about: a registry host, a database digest, a stream
	Message string // for people, with the way out
	At      time.Time
}

// DeadLetter is a message that was refused or poisonous, whole, so that it can be driven again.
type DeadLetter struct {
	ID       string // deterministic: the same refusal of the same message is one letter
	Service  string
	Reason   reason.Code
	Detail   string
	Subject  string // the original's
	Headers  map[string][]string
	Data     []byte
	Verdicts []string // keys of remembered verdicts that a re-drive forgets
	Attempts int
	TraceID  string
	At       time.Time
}
