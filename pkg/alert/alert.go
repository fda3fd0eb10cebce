// Package alert is what somebody may have to act on, and the records that take it to them: groups, their
// members, what is to be sent and what was tried. It holds values only; how they change is decided by the
// alert router, and where they are kept by the bus.
package alert

import "time"

// Alert is one finding, or one of Pratique's own troubles, as routes and receivers see it.
type Alert struct {
	ID          string // the finding's or notice's
	Revision    uint64 // the finding's; 1 of a notice
	Labels      map[string]string
	Annotations map[string]string
	Starts      time.Time
	Ends        time.Time // zero while it fires
	Once        bool      // it is news rather than a state: told once, never resolved
	Trace       string    // W3C traceparent of what it came from; "" when there is none
}

// Firing tells whether it has not ended.
func (a Alert) Firing() bool { return a.Ends.IsZero() }

// Place is where an alert is: it makes a revision that was applied do nothing when it comes again, and
// finds the groups of an alert that ends, whatever the configuration says by then.
type Place struct {
	ID       string
	Revision uint64    // the last that was applied
	Cause    string    // of the transition that was alerted first
	Starts   time.Time // when it began
	Groups   []string  // ids of the groups in which it fires, sorted
}

// Timing is when a group is told, as its route says.
type Timing struct {
	Wait     time.Duration // before the first notification
	Interval time.Duration // between notifications of news, at least
	Repeat   time.Duration // after which what still fires is told again
}

// Group is alerts that are told together by one integration of one receiver. Its members are kept beside
// it: an alert that comes costs the same however many are there.
type Group struct {
	ID          string // hash of receiver, integration and labels: independent of the rest of the configuration
	Receiver    string
	Integration string // kind and position, "webhook/0"
	Labels      map[string]string
	RouteLabels map[string]string
	Timing
	Mute, Active []string  // names of time intervals
	Due          time.Time // when to look what is to be told; zero while Sending
	Flushed      time.Time // when something was told last; zero: never
	Mark         uint64    // members with a sequence up to this one were told
	Untold       bool      // there may be something that was not told
	Firing       int       // after the last notification
	Sending      string    // id of the notification that is on its way; "": none
}

// Member is an alert in a group.
type Member struct {
	Alert Alert
	Told  bool // an earlier revision was told as firing
}

// Held is a member as it is stored. Its sequence says whether it was told: see Group.Mark.
type Held struct {
	Member
	Sequence uint64
}

// Due says that it is time to look into a group.
type Due struct{ Group string }

// Told is an alert as a notification tells it.
type Told struct {
	Alert    Alert
	Sequence uint64 // of the member that it was
}

// Reasons of notifications.
const (
	ReasonFirst    = "first"
	ReasonNew      = "new"      // alerts were added, or changed
	ReasonResolved = "resolved" // alerts ended, and none was added
	ReasonRepeat   = "repeat"
)

// Notification is what is to be sent. At most one of a group is on its way, so that what a receiver gets
// last is how things are.
type Notification struct {
	ID          string // the Idempotency-Key: the same however often it is sent, never that of another
	Group       string
	Receiver    string
	Integration string
	Labels      map[string]string // the group's
	RouteLabels map[string]string
	Reason      string
	Alerts      []Told
	Truncated   int // how many more fire
	Created     time.Time
}

// Attempt is what was tried with a notification, as noted before each attempt and after each failure.
type Attempt struct {
	ID    string // the notification's
	Tries int
	Open  bool   // the last one was not seen to end: the receiver may have taken it
	Error string // how the last one failed; "" when none did
	At    time.Time
}
