package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

const digestPrefix = "sha256:"

// ParseDigest accepts "sha256:" and 64 lower-case hex digits, nothing else.
func ParseDigest(s string) (Digest, error) {
	h, ok := strings.CutPrefix(s, digestPrefix)
	if !ok {
		return "", fmt.Errorf("digest %q: want sha256:<64 hex digits>", clip(s))
	}
	if len(h) != 2*sha256.Size {
		return "", fmt.Errorf("digest %q: %d hex digits, want 64", clip(s), len(h))
	}
	for i := range len(h) {
		if c := h[i]; !digit(c) && (c < 'a' || c > 'f') {
			return "", fmt.Errorf("digest %q: not lower-case hex", clip(s))
		}
	}
	return Digest(s), nil
}

// DigestOf is the digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest(digestPrefix + hex.EncodeToString(sum[:]))
}

// Hex is the digest without its algorithm; "" of the zero value.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), digestPrefix) }

// clip keeps hostile input from flooding an error message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
func lower(c byte) bool { return c >= 'a' && c <= 'z' }
func upper(c byte) bool { return c >= 'A' && c <= 'Z' }
