// Package source turns what senders post into events: one file per sender, all of them in one table.
// Bodies are hostile, and often malformed in good faith: a parser keeps what is usable, says in the
// event what was not, counts what it drops, and never fails on one element because of another.
package source

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pratique-sec/pratique/pkg/event"
)

// Source is one kind of sender; its events are posted to /v1/events/<Name>.
type Source struct {
	Name    string // short, for paths, subjects and metrics
	MaxBody int64  // bytes
	// Parse reads one body that arrived at received. Its error is a reason.BadRequest or reason.OverBound
	// refusal that names what is wrong; it means that the body as a whole makes no sense.
	Parse func(body []byte, received time.Time) (Batch, error)
}

// All lists every sender that is understood.
var All = []Source{distribution}

// Drop is why an element of a body became no event.
type Drop string

// The values are metric labels.
const (
	DropPull     Drop = "pull"     // nothing changed
	DropMount    Drop = "mount"    // a blob was linked; its manifest has an event of its own
	DropBlob     Drop = "blob"     // a layer or config; the same
	DropAction   Drop = "action"   // an action that nobody knows
	DropUnusable Drop = "unusable" // nothing left that names something: see Batch.Problems
)

// Batch is what a body held.
type Batch struct {
	Events   []event.Event // in the body's order
	Dropped  map[Drop]int
	Problems []string // why elements were unusable, "events[3]: …"; at most maxProblems
}

const maxProblems = 10

func (b *Batch) drop(why Drop) {
	if b.Dropped == nil {
		b.Dropped = map[Drop]int{}
	}
	b.Dropped[why]++
}

func (b *Batch) unusable(problem string) {
	b.drop(DropUnusable)
	if len(b.Problems) < maxProblems {
		b.Problems = append(b.Problems, problem)
	}
}

// maxSkew is how far ahead of ours a sender's clock may be.
const maxSkew = time.Hour

// claimed reads a sender's RFC 3339 time; why is not "" when it is not usable.
func claimed(s string, received time.Time) (t time.Time, why string) {
	if s == "" {
		return time.Time{}, ""
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	switch {
	case err != nil:
		return time.Time{}, "not an RFC 3339 time"
	case t.Year() < 1970:
		return time.Time{}, "before 1970"
	case t.After(received.Add(maxSkew)):
		return time.Time{}, "in the future"
	}
	return t.UTC(), ""
}

// clip bounds free text that is kept for people, and makes it valid UTF-8.
func clip(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
