package advisory

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/vulndb"
)

// Packed is a database in the form that travels: a zstd-compressed tar of metadata.json and the database
// file. Reading it yields that stream.
type Packed struct {
	Pointer vulndb.Pointer // Kind, Digest, Size, UpdatedAt and NextUpdate are set
	file    *os.File
}

func (p *Packed) Read(b []byte) (int, error) { return p.file.Read(b) }

// Close removes the packed file.
func (p *Packed) Close() error {
	return errors.Join(p.file.Close(), os.Remove(p.file.Name()))
}

// Pack packs the database at path: a folder with its two files, a folder with the layout of a Trivy cache,
// or a tar of either (plain, gzip or zstd), as Trivy's own artifact is. The digest is over names, sizes and
// bytes of the content, so that one database has one digest however it came. Temporary files go to tmp.
func Pack(ctx context.Context, kind vulndb.Kind, path, tmp string) (_ *Packed, err error) {
	l, err := layoutOf(kind)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, reason.Refusef(reason.BadRequest, "advisory: %w", err)
	}
	dir := path
	if st.Mode().IsRegular() {
		if dir, err = os.MkdirTemp(tmp, "database-"); err != nil {
			return nil, fmt.Errorf("advisory: make folder: %w", err)
		}
		defer os.RemoveAll(dir)
		if err := extract(ctx, path, dir, l); err != nil {
			return nil, err
		}
	}
	if dir, err = find(dir, path, l); err != nil {
		return nil, err
	}
	meta, err := readMetadata(dir, l)
	if err != nil {
		return nil, err
	}
	if err := check(dir, kind); err != nil {
		return nil, err
	}
	out, err := os.CreateTemp(tmp, "packed-*.tar.zst")
	if err != nil {
		return nil, fmt.Errorf("advisory: make file: %w", err)
	}
	p := &Packed{file: out, Pointer: vulndb.Pointer{Kind: kind, UpdatedAt: meta.UpdatedAt, NextUpdate: meta.NextUpdate}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.Pointer.Digest, err = write(ctx, out, dir, meta, l); err != nil {
		return nil, err
	}
	if p.Pointer.Size, err = out.Seek(0, io.SeekCurrent); err != nil {
		return nil, fmt.Errorf("advisory: size of the packed file: %w", err)
	}
	if _, err = out.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("advisory: rewind the packed file: %w", err)
	}
	return p, nil
}

// write packs a folder and returns its content digest.
func write(ctx context.Context, w io.Writer, dir string, meta metadata, l layout) (string, error) {
	head, err := meta.canonical()
	if err != nil {
		return "", err
	}
	f, err := os.Open(filepath.Join(dir, l.name))
	if err != nil {
		return "", fmt.Errorf("advisory: open database: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("advisory: size of the database: %w", err)
	}
	if st.Size() > l.limit {
		return "", reason.Refusef(reason.OverBound, "advisory: %s is larger than %d bytes", l.name, l.limit)
	}
	zw, err := zstd.NewWriter(w)
	if err != nil {
		return "", fmt.Errorf("advisory: start compressing: %w", err)
	}
	defer zw.Close()
	tw, sum := tar.NewWriter(zw), newContentHash()
	for _, file := range []struct {
		name string
		size int64
		r    io.Reader
	}{{metadataName, int64(len(head)), bytes.NewReader(head)}, {l.name, st.Size(), f}} {
		if err := tw.WriteHeader(&tar.Header{Name: file.name, Mode: 0o644, Size: file.size, Format: tar.FormatPAX}); err != nil {
			return "", fmt.Errorf("advisory: pack %s: %w", file.name, err)
		}
		sum.file(file.name, file.size)
		if _, err := io.Copy(io.MultiWriter(tw, sum), stopping{ctx, file.r}); err != nil {
			return "", fmt.Errorf("advisory: pack %s: %w", file.name, err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		return "", fmt.Errorf("advisory: finish packing: %w", err)
	}
	return sum.digest(), nil
}

// contentHash is over the files' names, sizes and bytes, in the order of their names.
type contentHash struct{ hash.Hash }

func newContentHash() contentHash {
	h := contentHash{sha256.New()}
	h.Write([]byte("pratique-database-v1\n"))
	return h
}

func (h contentHash) file(name string, size int64) {
	var b []byte
	b = binary.BigEndian.AppendUint64(b, uint64(len(name)))
	b = append(b, name...)
	h.Write(binary.BigEndian.AppendUint64(b, uint64(size)))
}

func (h contentHash) digest() string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// extract takes the database's two files out of a tar and ignores what else is in it.
func extract(ctx context.Context, file, dir string, l layout) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("advisory: open archive: %w", err)
	}
	defer f.Close()
	r, closer, err := inflate(stopping{ctx, f})
	if err != nil {
		return err
	}
	defer closer()
	tr := tar.NewReader(r)
	for range 10_000 {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return reason.Refusef(reason.Malformed, "advisory: %s is no archive of a database: %w", filepath.Base(file), err)
		}
		name := path.Clean("/" + h.Name)
		base, parent := path.Base(name), path.Dir(name)
		if h.Typeflag != tar.TypeReg || (parent != "/" && parent != "/"+l.folder) || (base != metadataName && base != l.name) {
			continue
		}
		if h.Size > l.limit {
			return reason.Refusef(reason.OverBound, "advisory: %s is larger than %d bytes", base, l.limit)
		}
		if err := save(filepath.Join(dir, base), tr); err != nil {
			return err
		}
	}
	return reason.Refusef(reason.OverBound, "advisory: %s has too many entries for an archive of a database", filepath.Base(file))
}

func save(name string, r io.Reader) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("advisory: create file: %w", err)
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("advisory: write %s: %w", filepath.Base(name), err)
	}
	return nil
}

// inflate tells gzip, zstd and plain bytes apart by how they begin.
func inflate(r io.Reader) (io.Reader, func(), error) {
	head := make([]byte, 4)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("advisory: read archive: %w", err)
	}
	r = io.MultiReader(bytes.NewReader(head[:n]), r)
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		zr, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, reason.Refusef(reason.Malformed, "advisory: gzip: %w", err)
		}
		return zr, func() { zr.Close() }, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		zr, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, reason.Refusef(reason.Malformed, "advisory: zstd: %w", err)
		}
		return zr, zr.Close, nil
	}
	return r, func() {}, nil
}

// stopping is a reader that ends with its context.
type stopping struct {
	ctx context.Context
	r   io.Reader
}

func (s stopping) Read(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(b)
}
