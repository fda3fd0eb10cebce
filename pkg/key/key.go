// Package key makes the names that must never change: SHA-256 over length-prefixed fields behind a
// recipe's name. Findings, jobs, facts and scans are told apart by such names, and subscribers store
// them; the vectors in proto/golden/ids.json freeze every recipe in use. Changing one is a migration:
// give the new recipe a new name.
package key

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
)

// Of hashes a recipe's name ("finding.v1") and its fields, in order, to 64 lower-case hex digits.
// Each is written as its length (8 bytes, big endian) and its bytes, so that no two lists of fields
// are written alike: ("ab", "c") is not ("a", "bc"), and an empty field is still a field.
func Of(recipe string, fields ...string) string {
	h := sha256.New()
	put := func(s string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		_, _ = h.Write(n[:]) // a hash never fails
		_, _ = io.WriteString(h, s)
	}
	put(recipe)
	for _, f := range fields {
		put(f)
	}
	return hex.EncodeToString(h.Sum(nil))
}
