package bus

import "testing"

func TestLowerLanesLeaveRoom(t *testing.T) {
	s := newSlots(10, 4, []int{100, 80, 50, 25})
	fill := func(lane int) (n int) {
		for s.room(lane) {
			s.take(lane)
			n++
		}
		return n
	}
	for _, c := range []struct{ lane, want int }{
		{3, 2}, {2, 3}, {3, 0}, {1, 3}, {2, 0}, {0, 2}, {0, 0},
	} {
		if got := fill(c.lane); got != c.want {
			t.Fatalf("lane %d took %d, want %d: %v", c.lane, got, c.want, s.held)
		}
	}
	s.give(2)
	select {
	case <-s.freed:
	default:
		t.Error("nobody is told of the room")
	}
	if !s.room(2) || !s.room(0) {
		t.Errorf("no room where one was given back: %v", s.held)
	}
	// A higher lane takes what a lower one gave back.
	if got := fill(0); got != 1 || s.room(2) {
		t.Errorf("the highest lane took %d: %v", got, s.held)
	}
	one := newSlots(1, 4, []int{100, 80, 50, 25})
	if !one.room(3) {
		t.Error("the lowest lane of a single slot gets nothing, ever")
	}
	all := newSlots(2, 2, nil)
	all.take(1)
	if !all.room(1) {
		t.Error("without shares a lane may have all")
	}
	all.give(1)
	select {
	case <-all.freed:
		t.Error("told of room where there always was some")
	default:
	}
}
