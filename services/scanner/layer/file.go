package layer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	xio "github.com/aquasecurity/trivy/pkg/x/io"

	"github.com/pratique-sec/pratique/pkg/reason"
)

// spoolFrom is the size from which a file's content goes to disk instead of memory.
const spoolFrom = 16 << 20

// file is one regular file of the tar. Its content is read once, when the first analyzer opens it.
type file struct {
	path     string
	info     fs.FileInfo
	content  io.Reader
	analysis *analysis

	head    []byte // of an executable: its first bytes, already taken from content
	refused bool   // over its bound; told once
	memory  []byte // set once it was read and is small
	spool   string // name of the temporary file once it was read and is large
	err     error  // of reading; sticky
}

// executable tells what Trivy's analyzers of binaries go by.
func (f *file) executable() bool {
	return f.info.Mode().Perm()&0o111 != 0 || path.Ext(f.path) == ".exe"
}

// program looks whether an executable begins as ELF, PE, Mach-O, XCOFF, Plan 9 or WebAssembly files do:
// everything in which Go or Rust leave a list of their dependencies.
func (f *file) program() (bool, error) {
	head := make([]byte, 4)
	n, err := io.ReadFull(f.content, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) && int64(n) < f.info.Size() {
		return false, err // the tar ends inside the file
	}
	f.head = head[:n]
	return isProgram(f.head), nil
}

func isProgram(head []byte) bool {
	if bytes.HasPrefix(head, []byte("MZ")) {
		return true
	}
	if len(head) < 4 {
		return false
	}
	switch binary.BigEndian.Uint32(head) {
	case 0x7f454c46, // ELF
		0xfeedface, 0xfeedfacf, 0xcefaedfe, 0xcffaedfe, 0xcafebabe, 0xcafebabf, // Mach-O, also fat
		0x0061736d,                                     // WebAssembly
		4*11*11 + 7, 4*20*20 + 7, 4*26*26 + 7 + 0x8000: // Plan 9: 386, arm, amd64
		return true
	}
	return head[0] == 0x01 && (head[1] == 0xdf || head[1] == 0xf7) // XCOFF
}

// limit is the bound for a file of this kind.
func (f *file) limit() int64 {
	b := f.analysis.bounds
	switch strings.ToLower(path.Ext(f.path)) {
	case ".jar", ".war", ".ear", ".par":
		return b.Archive
	}
	switch {
	case strings.HasPrefix(f.path, "var/lib/rpm/"), strings.HasPrefix(f.path, "usr/lib/sysimage/rpm/"):
		return b.Database
	case isProgram(f.head):
		return b.Executable
	}
	return b.Text
}

// fits tells whether the file may be read, and names it as not read if not.
func (f *file) fits() bool {
	limit := f.limit()
	if f.info.Size() <= limit {
		return true
	}
	if !f.refused {
		f.refused = true
		f.analysis.lost.add(f.path, reason.OverBound, fmt.Sprintf("%d bytes; %d are read", f.info.Size(), limit))
	}
	return false
}

// open is the opener that Trivy's analyzers call. A file over its bound looks to them like one that may not
// be read: the one error at which they go on with the next file.
func (f *file) open() (xio.ReadSeekCloserAt, error) {
	if !f.fits() {
		return nil, fs.ErrPermission
	}
	if f.err == nil && f.memory == nil && f.spool == "" {
		f.err = f.read()
	}
	if f.err != nil {
		return nil, f.err
	}
	if f.spool != "" {
		return os.Open(f.spool)
	}
	return xio.NopCloser(bytes.NewReader(f.memory)), nil
}

func (f *file) read() error {
	a := f.analysis
	if a.opened += f.info.Size(); a.opened > a.bounds.Uncompressed {
		return reason.Refusef(reason.OverBound, "the layer's files have more than %d bytes", a.bounds.Uncompressed)
	}
	content := io.MultiReader(bytes.NewReader(f.head), f.content)
	if f.info.Size() < spoolFrom {
		f.memory = make([]byte, f.info.Size())
		if _, err := io.ReadFull(content, f.memory); err != nil {
			return damaged(err)
		}
		return nil
	}
	tmp, err := os.CreateTemp(a.tmp, "layer-file-")
	if err != nil {
		return fmt.Errorf("make temporary file: %w", err)
	}
	f.spool = tmp.Name()
	_, err = io.Copy(tmp, readOnly{content})
	return errors.Join(err, tmp.Close())
}

// readOnly keeps io.Copy from asking the operating system to copy, so that an error is either the disk's
// (which carries an errno) or the tar's (which this turns into a decision).
type readOnly struct{ r io.Reader }

func (r readOnly) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader's contract is the bare value
		err = damaged(err)
	}
	return n, err
}

func (f *file) close() {
	if f.spool != "" {
		_ = os.Remove(f.spool) // its folder is temporary too
	}
}
