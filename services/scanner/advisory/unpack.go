package advisory

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/vulndb"
)

// Unpack writes a packed database (what Packed reads) to a folder of its own below dir, named by the
// pointer's digest, and returns that folder; it has the layout of a Trivy cache. The digest is verified
// before the folder appears, all at once. A database that is there already is not read again.
func Unpack(ctx context.Context, p vulndb.Pointer, r io.Reader, dir string) (_ string, err error) {
	l, err := layoutOf(p.Kind)
	if err != nil {
		return "", err
	}
	sum, ok := strings.CutPrefix(p.Digest, "sha256:")
	if !ok || len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "" {
		return "", reason.Refusef(reason.Malformed, "advisory: %q is no content digest", p.Digest)
	}
	final := filepath.Join(dir, sum)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("advisory: make folder: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, ".unpack-")
	if err != nil {
		return "", fmt.Errorf("advisory: make folder: %w", err)
	}
	defer os.RemoveAll(tmp)
	got, err := read(ctx, r, filepath.Join(tmp, l.folder), l)
	if err != nil {
		return "", err
	}
	if got != p.Digest {
		return "", reason.Refusef(reason.DigestMismatch, "advisory: the packed %s has digest %s, wanted %s", l.name, got, p.Digest)
	}
	if err := check(filepath.Join(tmp, l.folder), p.Kind); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, final); err != nil {
		if _, there := os.Stat(final); there == nil { // another process was faster
			return final, nil
		}
		return "", fmt.Errorf("advisory: put database in place: %w", err)
	}
	return final, nil
}

// read writes the two files of a packed stream to dir and returns their content digest.
func read(ctx context.Context, r io.Reader, dir string, l layout) (string, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("advisory: make folder: %w", err)
	}
	plain, closer, err := inflate(stopping{ctx, r})
	if err != nil {
		return "", err
	}
	defer closer()
	tr, sum := tar.NewReader(plain), newContentHash()
	for _, want := range []struct {
		name  string
		limit int64
	}{{metadataName, maxMetadata}, {l.name, l.limit}} {
		h, err := tr.Next()
		if err != nil {
			return "", unpackError(want.name, err)
		}
		if h.Name != want.name || h.Typeflag != tar.TypeReg {
			return "", reason.Refusef(reason.Malformed, "advisory: the packed database holds %q where %s belongs", h.Name, want.name)
		}
		if h.Size > want.limit {
			return "", reason.Refusef(reason.OverBound, "advisory: %s is larger than %d bytes", want.name, want.limit)
		}
		sum.file(want.name, h.Size)
		if err := save(filepath.Join(dir, want.name), io.TeeReader(tr, sum)); err != nil {
			return "", unpackError(want.name, err)
		}
	}
	if _, err := tr.Next(); !errors.Is(err, io.EOF) {
		return "", reason.Refusef(reason.Malformed, "advisory: the packed database does not end after its two files")
	}
	return sum.digest(), nil
}

// unpackError keeps a decision that the source's reader made; everything else means damaged bytes.
func unpackError(name string, err error) error {
	var decided *reason.Error
	switch {
	case errors.As(err, &decided), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, new(*os.PathError)):
		return fmt.Errorf("advisory: unpack %s: %w", name, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return reason.Refusef(reason.Truncated, "advisory: unpack %s: %w", name, err)
	}
	return reason.Refusef(reason.Malformed, "advisory: unpack %s: %w", name, err)
}
