package wire

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pratique-sec/pratique/pkg/image"
)

// An encoder turns domain values into messages. Its methods are named for the value.
type encoder struct{ cursor }

// text makes s valid UTF-8, as protobuf demands of a string.
func text[S ~string](s S) string { return strings.ToValidUTF8(string(s), "\uFFFD") }

func texts[S ~string](in []S) []string {
	if len(in) == 0 {
		return nil
	}
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = text(s)
	}
	return out
}

// digest checks before anybody depends on it; a bad digest is the producer's bug.
func (e *encoder) digest(field string, d image.Digest) string {
	e.cursor.digest(field, d)
	return text(d)
}

// stamp says a time, and nothing for one that is zero or that protobuf can not say.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	ts := timestamppb.New(t)
	if !ts.IsValid() {
		return nil
	}
	return ts
}

// count saturates: these are numbers for people.
func count(n int) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }

// entries converts a map. Keys are taken in order: should making them UTF-8 join two, it does so the
// same way each time.
func entries[K ~string, In, Out any](in map[K]In, convert func(In) Out) map[string]Out {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]Out, len(in))
	for _, k := range slices.Sorted(maps.Keys(in)) {
		out[text(k)] = convert(in[k])
	}
	return out
}
