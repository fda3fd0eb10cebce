package door

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// Tokens are the secrets that open the door. The zero value knows none.
type Tokens struct{ sums [][sha256.Size]byte }

const (
	maxTokenFile = 1 << 20
	minToken     = 16 // bytes; shorter ones are guessed
)

// ReadTokens reads files with one token a line; empty lines and those that begin with # are skipped.
func ReadTokens(paths []string) (Tokens, error) {
	var t Tokens
	for _, path := range paths {
		if err := t.read(path); err != nil {
			return Tokens{}, fmt.Errorf("token file %s: %w", path, err)
		}
	}
	return t, nil
}

func (t *Tokens) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	before := len(t.sums)
	lines := bufio.NewScanner(io.LimitReader(f, maxTokenFile))
	for n := 1; lines.Scan(); n++ {
		s := strings.TrimSpace(lines.Text())
		if s == "" || s[0] == '#' {
			continue
		}
		if len(s) < minToken {
			return fmt.Errorf("line %d: token is shorter than %d characters", n, minToken)
		}
		t.sums = append(t.sums, sha256.Sum256([]byte(s)))
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if len(t.sums) == before {
		return fmt.Errorf("holds no token; write one a line")
	}
	return nil
}

// None tells that no token is known.
func (t Tokens) None() bool { return len(t.sums) == 0 }

// Admit tells whether a request carries one of the tokens, as "Authorization: Bearer <token>", or bare,
// as registries made from Distribution are often configured. All tokens are compared, each in constant
// time.
func (t Tokens) Admit(r *http.Request) bool {
	h := r.Header.Get("Authorization")
	if scheme, rest, found := strings.Cut(h, " "); found && strings.EqualFold(scheme, "bearer") {
		h = strings.TrimSpace(rest)
	}
	sum := sha256.Sum256([]byte(h))
	found := 0
	for i := range t.sums {
		found |= subtle.ConstantTimeCompare(sum[:], t.sums[i][:])
	}
	return found == 1
}
