package alert

// Batch is what becomes stored as a whole or not at all. Each record that has a revision is written only
// if it still is the one that was read: the sequence that reading answered, 0 for none.
type Batch struct {
	Place         *Place
	PlaceRevision uint64
	Groups        []GroupWrite
	Members       []MemberWrite
	Out           *Notification
}

// GroupWrite puts or removes a group. With a Due, its timer is set.
type GroupWrite struct {
	Group    Group
	Revision uint64
	Remove   bool
	Timer    bool // set, or moved, to Group.Due
}

// MemberWrite puts an alert into a group, or takes it out.
type MemberWrite struct {
	Group, ID string
	Member    *Member // nil: it is taken out
}
