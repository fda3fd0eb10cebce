package render

import (
	"strconv"
	"time"
)

// Subscriber is one that may read findings, and how far it has read.
type Subscriber struct {
	Name, Class, Scopes string
	Severities          string // "": all
	Created             time.Time
	Unread              uint64    // deltas not acknowledged
	LastAck             time.Time // zero: never
}

// Subscribers lists them.
func (p Printer) Subscribers(subscribers []Subscriber, now time.Time) error {
	rows := make([][]cell, 0, len(subscribers))
	for _, s := range subscribers {
		severities, last := s.Severities, "never"
		if severities == "" {
			severities = "all"
		}
		if !s.LastAck.IsZero() {
			last = ago(now, s.LastAck)
		}
		rows = append(rows, []cell{
			text(s.Name), text(s.Class), text(s.Scopes), text(severities), text(ago(now, s.Created)), text(strconv.FormatUint(s.Unread, 10)), text(last),
		})
	}
	return p.table([]string{"NAME", "CLASS", "SCOPE", "SEVERITY", "ADDED", "UNREAD", "LAST READ"}, rows)
}
