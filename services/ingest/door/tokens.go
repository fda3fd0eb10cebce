package door

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxTokenFile = 1 << 20
	minToken     = 16 // bytes; shorter ones are guessed
	inRotation   = 2  // secrets that a named token may have at once

	// lookAgain is how often a file is looked at: as long as a new secret takes to be known.
	lookAgain = 2 * time.Second
)

// Tokens are the secrets that open the door, and what each opens. Files that change are read again; one
// that can not be read leaves its secrets as they were, since a sender locked out loses events. To take
// a secret away, write its file anew, or reload without the token. The zero value knows none.
type Tokens struct {
	log *slog.Logger
	now func() time.Time

	mu    sync.Mutex // of whoever looks at the files
	files []*tokenFile
	next  atomic.Int64 // Unix nanoseconds of the next look

	known atomic.Pointer[[]secret]
}

// secret is one that is known, hashed: comparing sums takes equally long for all.
type secret struct {
	sum    [sha256.Size]byte
	caller *Caller
}

// tokenFile is a file of secrets and the state in which it was last looked at.
type tokenFile struct {
	path   string
	most   int // secrets
	caller *Caller
	stamp  stamp // of what sums were read from
	bad    stamp // of what was last complained of
	fine   bool  // nothing was, since it was last read
	sums   [][sha256.Size]byte
}

// stamp tells one state of a file from another.
type stamp struct {
	size     int64
	modified time.Time
}

func stampOf(i fs.FileInfo) stamp { return stamp{i.Size(), i.ModTime()} }

// OpenTokens reads the files of tokens, and plain files, every line of which is a secret that opens
// everything. Empty lines and those that begin with # are skipped.
func OpenTokens(tokens []Token, plain []string, log *slog.Logger, now func() time.Time) (*Tokens, error) {
	t := &Tokens{log: log, now: now}
	if t.now == nil {
		t.now = time.Now
	}
	var errs []error
	for i, c := range tokens {
		f := &tokenFile{path: c.File, most: inRotation, caller: &Caller{Name: c.Name, t: c}}
		if err := f.read(); err != nil {
			errs = append(errs, fmt.Errorf("tokens[%d].file: %w", i, err))
		}
		t.files = append(t.files, f)
	}
	for i, path := range plain {
		f := &tokenFile{path: path, caller: &Caller{Name: filepath.Base(path), all: true}}
		if err := f.read(); err != nil {
			errs = append(errs, fmt.Errorf("tokenFiles[%d]: %w", i, err))
		}
		t.files = append(t.files, f)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	known, err := t.merge()
	if err != nil {
		return nil, err
	}
	t.known.Store(&known)
	t.next.Store(t.now().Add(lookAgain).UnixNano())
	return t, nil
}

// merge lists the secrets of all files. One that stands in two opens neither more nor less than it should
// only when both are of one token.
func (t *Tokens) merge() ([]secret, error) {
	var all []secret
	owner := map[[sha256.Size]byte]*tokenFile{}
	for _, f := range t.files {
		for _, sum := range f.sums {
			first := owner[sum]
			if first != nil && first.caller != f.caller && (!first.caller.all || !f.caller.all) {
				return nil, fmt.Errorf("token files %s and %s: hold the same secret; which token is it?", first.path, f.path)
			}
			owner[sum] = f
			all = append(all, secret{sum, f.caller})
		}
	}
	return all, nil
}

// read reads the file's secrets.
func (f *tokenFile) read() error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(file, maxTokenFile+1))
	switch {
	case err != nil:
		return err
	case len(body) > maxTokenFile:
		return fmt.Errorf("%s: larger than %d bytes", f.path, maxTokenFile)
	}
	sums, err := parseTokens(body, f.most)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.stamp, f.sums, f.fine = stampOf(info), sums, true
	return nil
}

// parseTokens hashes the secret of each line; most bounds them, unless it is 0.
func parseTokens(body []byte, most int) ([][sha256.Size]byte, error) {
	var sums [][sha256.Size]byte
	n := 0
	for line := range bytes.SplitSeq(body, []byte("\n")) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if len(line) < minToken {
			return nil, fmt.Errorf("line %d: the secret is shorter than %d characters", n, minToken)
		}
		for _, c := range line {
			if c <= ' ' || c > '~' {
				return nil, fmt.Errorf("line %d: the secret holds what no HTTP header carries; use printable ASCII without spaces", n)
			}
		}
		sums = append(sums, sha256.Sum256(line))
	}
	switch {
	case len(sums) == 0:
		return nil, errors.New("holds no secret; write one in a line")
	case most > 0 && len(sums) > most:
		return nil, fmt.Errorf("holds %d secrets, a token has at most %d: the present one and the next", len(sums), most)
	}
	return sums, nil
}

// None tells that no token is known.
func (t *Tokens) None() bool { return t == nil || len(t.files) == 0 }

// Caller finds out whose secret a request carries, as "Authorization: Bearer <secret>", or bare, as
// registries made from Distribution are often configured. All secrets are compared, each in constant
// time.
func (t *Tokens) Caller(r *http.Request) (*Caller, bool) {
	t.look()
	h := r.Header.Get("Authorization")
	if scheme, rest, found := strings.Cut(h, " "); found && strings.EqualFold(scheme, "bearer") {
		h = strings.TrimSpace(rest)
	}
	sum := sha256.Sum256([]byte(h))
	var caller *Caller
	for _, s := range *t.known.Load() {
		if subtle.ConstantTimeCompare(sum[:], s.sum[:]) == 1 {
			caller = s.caller
		}
	}
	return caller, caller != nil
}

// look reads what has changed, at most every lookAgain, one request for all.
func (t *Tokens) look() {
	now := t.now()
	next := t.next.Load()
	if now.UnixNano() < next || !t.next.CompareAndSwap(next, now.Add(lookAgain).UnixNano()) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := false
	for _, f := range t.files {
		info, err := os.Stat(f.path)
		if err != nil {
			t.complain(f, stamp{}, err)
			continue
		}
		s := stampOf(info)
		if s == f.stamp {
			continue
		}
		if err := f.read(); err != nil {
			t.complain(f, s, err)
			continue
		}
		changed = true
		t.log.Info("token file read again", slog.String("token", f.caller.Name), slog.Int("secrets", len(f.sums)))
	}
	if !changed {
		return
	}
	known, err := t.merge()
	if err != nil {
		t.log.Error("tokens stay as they were", slog.Any("error", err))
		return
	}
	t.known.Store(&known)
}

// complain says once what is wrong with a state of a file.
func (t *Tokens) complain(f *tokenFile, s stamp, err error) {
	if f.bad == s && !f.fine {
		return
	}
	f.bad, f.fine = s, false
	t.log.Error("token file can not be used: its secrets stay as they were", slog.String("token", f.caller.Name), slog.Any("error", err))
}
