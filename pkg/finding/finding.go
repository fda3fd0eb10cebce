// Package finding is the life of what is wrong with an asset: identities that survive rebuilds,
// transitions with revisions, and the fold that turns deltas into state and back.
package finding

import (
	"time"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
)

// Class is a kind of finding, and a token of its subject.
type Class string

const (
	ClassVuln Class = "vuln" // a known vulnerability in an installed package
	ClassPSA  Class = "psa"  // a check of the Pod Security Standards that a workload fails
)

// Asset is what a person would name: one track of one repository on one platform, or a workload.
type Asset struct {
	Host, Repository string
	Track            string // a tag, a family of tags ("main-*"), or a digest that somebody asked for
	Platform         image.Platform
	Workload         Workload // class psa, where all of the above is empty; zero otherwise
}

// Transition is a step in a finding's life.
type Transition string

const (
	Opened   Transition = "opened"
	Changed  Transition = "changed"
	Resolved Transition = "resolved"
)

// Resolution says why a finding is no more.
type Resolution string

const (
	Fixed     Resolution = "fixed"     // the package is there in a version that is not affected; the check passes
	Removed   Resolution = "removed"   // the package is gone
	Withdrawn Resolution = "withdrawn" // same package and version; the database (or policy) says otherwise now
	Deleted   Resolution = "deleted"   // the image is gone from the registry
)

// Finding is one open finding of an asset.
type Finding struct {
	ID            string // ID(...): stable over versions, layers and databases
	Revision      uint64 // grows by one with each transition, also over a re-opening; 1 at first
	Class         Class
	Vulnerability string   // the canonical id, see Canonical
	Aliases       []string // all other ids, sorted
	Type          string   // "debian", "gobinary", …
	Package       string
	Versions      []string // installed, sorted; usually one
	Path          string   // of the package, the installed version in it written "*" (StablePath); "" for OS packages
	Fixed         string
	Status        string
	Severity      report.Severity
	Title         string
	URL           string
	Layer         image.Digest // diffID
	CreatedBy     string
	FirstSeen     time.Time
	Changed       time.Time   // of the last transition
	PodSecurity   PodSecurity // class psa, which has neither vulnerability nor package; zero otherwise
}

// Delta is one transition, as subscribers get it.
type Delta struct {
	EventID    string // EventID(finding id, revision)
	Asset      Asset
	Transition Transition
	Finding    Finding    // after the transition; when RESOLVED, as it last was
	Old        *Finding   // CHANGED: before it
	Resolution Resolution // RESOLVED only
	Cause      event.Cause
	Image      image.Digest
	Database   report.Database
	Engine     report.Engine
	At         time.Time
}

// State is the one compare-and-set record of an asset: what is open, and which deltas are still to be
// published.
type State struct {
	Asset      Asset
	Image      image.Digest // what the findings were judged on; "" when closed
	Generation uint64       // of the track; class psa: the sequence of the event that was judged
	Database   report.Database
	Open       []Finding         // sorted by ID
	Resolved   map[string]uint64 // last revision of findings that were open once, so that a re-opening continues
	Forgotten  uint64            // highest last revision that was dropped from Resolved; what is not there continues after it
	Pending    []Delta           // decided, maybe not yet published; in order
	Outcome    report.Outcome
	Updated    time.Time
}

// Scan is the outcome of one evaluation, clean and failed ones too.
type Scan struct {
	ID                        string // deterministic: one evaluation has one id
	Reference                 image.Reference
	Asset                     *Asset
	Platform                  image.Platform
	Outcome                   report.Outcome
	Reason                    reason.Code
	Detail                    string
	Counts                    report.Counts
	Opened, Changed, Resolved int
	Generation                uint64
	Cause                     event.Cause
	Request                   string
	Database                  report.Database
	Engine                    report.Engine
	Layers                    LayerCounts
	Received                  time.Time // the event
	Finished                  time.Time
}

// LayerCounts say what the dedup cache did for an image.
type LayerCounts struct {
	Seen     int // layers listed by the manifest
	Known    int // facts were there already
	Waited   int // somebody else's job was in flight
	Analysed int // this image's plan queued the job
}
