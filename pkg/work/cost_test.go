package work

import (
	"math"
	"testing"
)

func TestCostsFollow(t *testing.T) {
	var c Cost
	if c = c.Add(Cost{}); c != (Cost{}) {
		t.Errorf("nothing added: %+v", c)
	}
	c = c.Add(Cost{Seconds: 2, Samples: 3}).Add(Cost{Seconds: 6, Samples: 1})
	if c.Seconds != 3 || c.Samples != 4 {
		t.Errorf("3 of 2 s and 1 of 6 s: %+v", c)
	}
	for range 1000 {
		c = c.Add(Cost{Seconds: 1, Samples: 10})
	}
	if c.Samples != costMemory || math.Abs(c.Seconds-1) > 0.001 {
		t.Errorf("after many of 1 s: %+v", c)
	}
	before := c.Seconds
	if c = c.Add(Cost{Seconds: 100, Samples: 1}); c.Seconds > before+0.6 {
		t.Errorf("one of 100 s: %+v", c)
	}
	if got := c.Add(Cost{Seconds: 5, Samples: -1}); got != c {
		t.Errorf("less than nothing: %+v", got)
	}
	for _, class := range append([]Class{ClassMatch}, Classes...) {
		if Guess(class).Seconds <= 0 {
			t.Errorf("class %s costs nothing", class)
		}
	}
}
