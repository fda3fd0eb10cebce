package layer

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/services/scanner/trivylib"
)

// lost gathers what was not read. Trivy tells most of it only to its log: the messages below each mean that
// an analyzer gave up a file, or a part of one, and went on as if it were empty.
type lost struct {
	mu      sync.Mutex
	current string // the file whose analyzers run; "" in post-analysis
	found   []facts.NotRead
	more    int // beyond maxNotRead
}

var gaveUp = []string{
	"Analysis error",  // an analyzer, the file's name not given
	"Walk error",      // a post-analyzer
	"Parse error",     // a stanza of a dpkg list
	"Invalid version", // a package of a dpkg list, left out
	"Failed to parse", // a jar inside a jar
}

// collect listens to Trivy's log until stop is called; calling stop again does nothing.
func (l *lost) collect() (stop func()) {
	return trivylib.Collect(func(r slog.Record) {
		if !slices.Contains(gaveUp, r.Message) {
			return
		}
		var path string
		var detail []string
		r.Attrs(func(a slog.Attr) bool {
			switch a.Key {
			case "file_path", "file":
				path = a.Value.String()
			case "err":
				detail = append(detail, a.Value.String())
			case "package", "version":
				detail = append(detail, a.Key+" "+a.Value.String())
			}
			return true
		})
		l.mu.Lock()
		if path == "" {
			path = l.current
		}
		l.mu.Unlock()
		l.add(path, reason.AnalysisFailed, strings.TrimSpace(r.Message+": "+strings.Join(detail, ", ")))
	})
}

func (l *lost) at(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = path
}

// add names a file. Package databases always get a place of their own in the list.
func (l *lost) add(path string, code reason.Code, detail string) {
	const maxDetail = 500
	if len(detail) > maxDetail {
		detail = detail[:maxDetail]
	}
	n := facts.NotRead{Path: path, Code: code, Detail: detail, Packages: packageDatabase(path)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.found) >= maxNotRead && !n.Packages {
		l.more++
		return
	}
	l.found = append(l.found, n)
}

func (l *lost) list() []facts.NotRead {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.Clone(l.found)
	slices.SortStableFunc(out, func(a, b facts.NotRead) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(string(a.Code), string(b.Code)), strings.Compare(a.Detail, b.Detail))
	})
	if l.more > 0 {
		out = append(out, facts.NotRead{Code: reason.OverBound, Detail: fmt.Sprintf("and %d more files", l.more)})
	}
	return out
}

// maxLine is where bufio.Scanner ends with an error that these parsers do not look at: they return what they
// have, as if the file ended there. Packages behind the line would be lost without a word.
const maxLine = bufio.MaxScanTokenSize

var scannedByLine = []string{"lib/apk/db/installed", "usr/lib/apk/db/installed", "var/lib/rpmmanifest/container-manifest-2"}

func (a *analysis) checkLines(f *file) error {
	if !slices.Contains(scannedByLine, f.path) || !f.fits() {
		return nil
	}
	r, err := f.open()
	if err != nil {
		return fmt.Errorf("read %s: %w", f.path, err)
	}
	defer r.Close()
	lines := bufio.NewReaderSize(r, maxLine)
	for n := 1; ; n++ {
		_, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			a.lost.add(f.path, reason.OverBound, fmt.Sprintf("line %d is longer than %d bytes; what follows is not read", n, maxLine))
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", f.path, err)
		}
	}
}
