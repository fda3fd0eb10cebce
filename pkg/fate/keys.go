package fate

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pratique-sec/pratique/pkg/image"
)

// RequestKey is a submission's key in the bucket: "id.<request id>".
func RequestKey(id string) string { return "id." + token(id) }

// ReferenceKey is a reference's key in the bucket: "ref.<host>.<component>….<tag, else digest>". A tag
// hides the digest: what became of a tag is one record, whatever it points to.
func ReferenceKey(r image.Reference) string {
	leaf := r.Tag
	if leaf == "" {
		leaf = string(r.Digest)
	}
	var b strings.Builder
	b.WriteString("ref." + token(r.Host))
	for c := range strings.SplitSeq(r.Repository, "/") {
		b.WriteString("." + token(c))
	}
	b.WriteString("." + token(leaf))
	return b.String()
}

// token writes one part of a key with the characters that a key-value bucket allows, one to one:
// everything but A-Z a-z 0-9 - _ becomes =XX (a subject's percent sign is not allowed in keys), and
// nothing becomes "=".
func token(s string) string {
	if s == "" {
		return "="
	}
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

// eventDigits is how much of the event's id a request id repeats: enough that a guessed number does
// not open somebody else's submission.
const eventDigits = 16

// RequestID names a submission: where its event is in EVENTS, and the beginning of the event's id.
func RequestID(sequence uint64, eventID string) string {
	return strconv.FormatUint(sequence, 10) + "-" + eventID[:min(len(eventID), eventDigits)]
}

// ParseRequestID takes a request id apart. The caller compares prefix with the id of the event at
// sequence.
func ParseRequestID(s string) (sequence uint64, prefix string, err error) {
	number, prefix, found := strings.Cut(s, "-")
	if !found || len(prefix) != eventDigits || strings.Trim(prefix, "0123456789abcdef") != "" {
		return 0, "", fmt.Errorf("request id: want <number>-<%d hex digits>", eventDigits)
	}
	sequence, err = strconv.ParseUint(number, 10, 64)
	if err != nil || sequence == 0 || strconv.FormatUint(sequence, 10) != number {
		return 0, "", fmt.Errorf("request id: want <number>-<%d hex digits>", eventDigits)
	}
	return sequence, prefix, nil
}
