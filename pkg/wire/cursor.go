package wire

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pratique-sec/pratique/pkg/image"
)

// A cursor knows where in a message a conversion is and keeps the first thing wrong there, so that
// conversions read as plain assignments. The path is text only once something fails.
type cursor struct {
	path []step
	err  error
}

// A step is a field, or an element of a repeated one.
type step struct {
	field string
	index int // -1: the field itself
}

func (c *cursor) enter(field string, index int) { c.path = append(c.path, step{field, index}) }

func (c *cursor) leave() { c.path = c.path[:len(c.path)-1] }

func (c *cursor) fail(field, format string, args ...any) {
	if c.err != nil {
		return
	}
	var at strings.Builder
	for _, s := range slices.Concat(c.path, []step{{field, -1}}) {
		if at.Len() > 0 {
			at.WriteByte('.')
		}
		at.WriteString(s.field)
		if s.index >= 0 {
			at.WriteString("[" + strconv.Itoa(s.index) + "]")
		}
	}
	c.err = fmt.Errorf("%s: %s", at.String(), fmt.Sprintf(format, args...))
}

// required refuses an absent value.
func (c *cursor) required(field, value string) {
	if value == "" {
		c.fail(field, "is required")
	}
}

// digest refuses a value that is neither absent nor a digest.
func (c *cursor) digest(field string, d image.Digest) {
	if d == "" {
		return
	}
	if _, err := image.ParseDigest(string(d)); err != nil {
		c.fail(field, "%v", err)
	}
}

// one converts a message field that may be absent.
func one[In, Out any](c *cursor, field string, in *In, convert func(*In) *Out) *Out {
	if in == nil {
		return nil
	}
	c.enter(field, -1)
	defer c.leave()
	return convert(in)
}

// the converts a message field.
func the[In, Out any](c *cursor, field string, in In, convert func(In) Out) Out {
	c.enter(field, -1)
	defer c.leave()
	return convert(in)
}

// each converts a repeated message field.
func each[In, Out any](c *cursor, field string, in []In, convert func(In) Out) []Out {
	if len(in) == 0 {
		return nil
	}
	out := make([]Out, len(in))
	for i, v := range in {
		c.enter(field, i)
		out[i] = convert(v)
		c.leave()
	}
	return out
}

// clip bounds hostile text in errors.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
