package work

import "time"

// Cost is how long a kind of job takes a scanner's slot, as measured.
type Cost struct {
	Seconds float64 // mean
	Samples int     // that the mean rests on, at most costMemory
}

// costMemory is how many samples a mean remembers: it follows what changes, and does not jump.
const costMemory = 200

// Add merges two means.
func (c Cost) Add(o Cost) Cost {
	if o.Samples <= 0 {
		return c
	}
	n := min(max(c.Samples, 0), costMemory)
	c.Seconds = (c.Seconds*float64(n) + o.Seconds*float64(o.Samples)) / float64(n+o.Samples)
	c.Samples = min(n+o.Samples, costMemory)
	return c
}

// ClassMatch stands beside the cost classes of layers for matches, which all cost about the same. No job has
// it, so the schema does not know it.
const ClassMatch = Class("match")

// Guess is what a class is taken to cost before anybody has measured it.
func Guess(c Class) Cost {
	switch c {
	case XS:
		return Cost{Seconds: 0.5}
	case S:
		return Cost{Seconds: 2}
	case M:
		return Cost{Seconds: 10}
	case L:
		return Cost{Seconds: 60}
	default:
		return Cost{Seconds: 0.2}
	}
}

// Load is what the scanners of a pool have before them in one lane.
type Load struct {
	Pool    string
	Lane    Lane
	Seconds float64   // of one slot, to do all that is queued or begun
	Oldest  time.Time // when the oldest of these jobs was queued; zero when there is none
}
