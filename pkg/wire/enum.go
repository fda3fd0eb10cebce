package wire

import (
	"strconv"
	"strings"
)

// unrecognized begins the domain form of an enum value that this schema does not have.
const unrecognized = "unrecognized-"

// An enum maps a domain vocabulary to a wire enum.
type enum[D ~string, W ~int32] struct {
	wire   map[D]W
	domain map[W]D
}

func newEnum[D ~string, W ~int32](wire map[D]W) enum[D, W] {
	domain := make(map[W]D, len(wire))
	for d, w := range wire {
		domain[w] = d
	}
	return enum[D, W]{wire, domain}
}

// encode refuses a word that the schema has no value for: it would arrive as something else.
func (n enum[D, W]) encode(e *encoder, field string, d D) W {
	if d == "" {
		return 0
	}
	if w, ok := n.wire[d]; ok {
		return w
	}
	if number, ok := strings.CutPrefix(string(d), unrecognized); ok {
		if w, err := strconv.ParseInt(number, 10, 32); err == nil && n.decode(W(w)) == d {
			return W(w)
		}
	}
	e.fail(field, "%q has no value in the schema", clip(string(d)))
	return 0
}

func (n enum[D, W]) decode(w W) D {
	if w == 0 {
		return ""
	}
	if d, ok := n.domain[w]; ok {
		return d
	}
	return D(unrecognized + strconv.Itoa(int(w)))
}
