// Package track maps tags to the tracks that assets live on, and holds the record that says where a
// track is now. A track is a tag, or a family of tags that follow each other ("main-<sha>").
package track

import (
	"time"

	"github.com/pratique-sec/pratique/pkg/image"
)

// Record is the compare-and-set record of one track: where it points and how often that changed.
type Record struct {
	Host, Repository, Track string
	Tag                     string       // the family's newest member; equal to Track on a plain tag
	Digest                  image.Digest // what Tag pointed to when the planner asked; "" when it is gone
	Generation              uint64       // grows by one with each change of Digest
	Sequence                uint64       // EVENTS sequence of the newest event seen: orders the members of a family
	Updated                 time.Time

	// Platforms are those that were ever judged on the track: each is an asset whose findings must be
	// judged again when the track moves, and closed when the platform or the whole track is gone.
	Platforms []image.Platform
}
