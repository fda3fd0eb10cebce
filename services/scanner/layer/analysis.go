package layer

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	"github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/mapfs"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/reason"
)

const (
	opaque   = ".wh..wh..opq"
	whiteout = ".wh."
)

// analysis is one layer's walk through Trivy's analyzers. It follows Trivy's own inspectLayer and LayerTar,
// but for the bounds, and for waiting for each file's analyzers before the next file: so one file at a time
// is in memory, and whatever an analyzer logs is about that file.
type analysis struct {
	engine *engine
	bounds Bounds
	tmp    string
	tar    *stream
	result *analyzer.AnalysisResult
	lost   *lost
	opened int64 // bytes of the files that were opened: sparse ones have more than the tar

	entries       int64
	hiddenBytes   int64
	opaqueDirs    []string
	whiteoutFiles []string
	postFiles     *analyzer.CompositeFS
	slots         *semaphore.Weighted // one: analyzers of a file run one after the other
}

func newAnalysis(e *engine, c Config, tar *stream) *analysis {
	return &analysis{
		engine: e, bounds: c.Bounds, tmp: c.TempDir, tar: tar,
		result: analyzer.NewAnalysisResult(), lost: &lost{}, slots: semaphore.NewWeighted(1),
	}
}

func (a *analysis) run(ctx context.Context) (facts.Layer, error) {
	stop := a.lost.collect()
	defer stop()
	var err error
	if a.postFiles, err = a.engine.group.PostAnalyzerFS(); err != nil {
		return facts.Layer{}, fmt.Errorf("make folder for post-analysis: %w", err)
	}
	defer a.postFiles.Cleanup() //nolint:errcheck // temporary files; the process's folder goes as a whole

	if err := a.walk(ctx); err != nil {
		return facts.Layer{}, err
	}
	if err := a.postAnalyze(ctx); err != nil {
		return facts.Layer{}, err
	}
	stop()
	return a.facts(ctx)
}

// walk feeds every entry to the analyzers and then reads what is left of the stream, which the diffID counts.
func (a *analysis) walk(ctx context.Context) error {
	buffered := bufio.NewReaderSize(a.tar, 128<<10)
	tr := tar.NewReader(buffered)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return damaged(err)
		}
		if a.entries++; a.entries > a.bounds.Entries {
			return reason.Refusef(reason.OverBound, "the layer has more than %d entries", a.bounds.Entries)
		}
		if len(h.Name) > a.bounds.PathBytes {
			return reason.Refusef(reason.OverBound, "the layer has a name of %d bytes; %d are allowed", len(h.Name), a.bounds.PathBytes)
		}
		if err := a.entry(ctx, h, tr); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, buffered); err != nil {
		return damaged(err)
	}
	return nil
}

func (a *analysis) entry(ctx context.Context, h *tar.Header, content io.Reader) error {
	name := strings.TrimLeft(path.Clean(h.Name), "/") // not filepath: names in a tar know no operating system
	dir, base := path.Split(name)
	if hidden, ok := strings.CutPrefix(base, whiteout); ok {
		if a.hiddenBytes += int64(len(name)); a.hiddenBytes > a.bounds.HiddenBytes {
			return reason.Refusef(reason.OverBound, "the names of the layer's whiteouts have more than %d bytes", a.bounds.HiddenBytes)
		}
		if base == opaque {
			a.opaqueDirs = append(a.opaqueDirs, dir)
		} else {
			a.whiteoutFiles = append(a.whiteoutFiles, path.Join(dir, hidden))
		}
		return nil
	}
	if h.Typeflag != tar.TypeReg { // links and devices have no content of their own
		return nil
	}
	f := &file{path: name, info: h.FileInfo(), content: content, analysis: a}
	defer f.close()
	a.lost.at(name)
	return a.file(ctx, f)
}

// file runs the analyzers that want f, and waits for them.
func (a *analysis) file(ctx context.Context, f *file) error {
	var without []analyzer.Type
	if f.executable() {
		known, err := f.program()
		if err != nil {
			return fmt.Errorf("read %s: %w", f.path, damaged(err))
		}
		if !known { // a script: its mode alone would have it spooled and searched for build information
			without = binaries
		}
	}
	group, gctx := errgroup.WithContext(ctx)
	err := a.engine.group.AnalyzeFile(gctx, group, a.slots, a.result, "", f.path, f.info, f.open, without, options)
	if werr := group.Wait(); werr != nil {
		err = werr // the cause; err is only that its context ended
	}
	if err != nil {
		return fmt.Errorf("analyse %s: %w", f.path, err)
	}
	if err := a.checkLines(f); err != nil {
		return err
	}
	return a.keepForPostAnalysis(f)
}

func (a *analysis) keepForPostAnalysis(f *file) error {
	wanted := a.engine.group.RequiredPostAnalyzers(f.path, f.info)
	if len(wanted) == 0 || !f.fits() {
		return nil
	}
	copied, err := a.postFiles.CopyFileToTemp(f.open, f.info)
	if err != nil {
		return fmt.Errorf("copy %s for post-analysis: %w", f.path, err)
	}
	if err := a.postFiles.CreateLink(wanted, "", f.path, copied); err != nil {
		// The tar says that a file is a folder, or a name that no file system takes.
		a.lost.add(f.path, reason.AnalysisFailed, err.Error())
	}
	return nil
}

// postAnalyze runs the post-analyzers one by one in the order of their names. Left to itself Trivy takes
// them in the order of a map, and what one finds decides which files the next one skips.
func (a *analysis) postAnalyze(ctx context.Context) error {
	a.lost.at("")
	for _, t := range a.engine.post {
		files, ok := a.postFiles.Get(t)
		if !ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("post-analysis: %w", err)
		}
		if err := a.postAnalyzeOne(ctx, t, files); err != nil {
			return fmt.Errorf("post-analysis by %s: %w", t, err)
		}
	}
	return nil
}

func (a *analysis) postAnalyzeOne(ctx context.Context, t analyzer.Type, files *mapfs.FS) error {
	one, err := analyzer.NewCompositeFS()
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer one.Cleanup() //nolint:errcheck // temporary files; the process's folder goes as a whole
	one.Set(t, files)
	return a.engine.group.PostAnalyze(ctx, one, a.result, options)
}

func (a *analysis) facts(ctx context.Context) (facts.Layer, error) {
	a.result.Sort()
	blob := types.BlobInfo{
		SchemaVersion: types.BlobJSONSchemaVersion,
		Size:          a.tar.n,
		DiffID:        string(a.tar.diffID()),
		OpaqueDirs:    a.opaqueDirs,
		WhiteoutFiles: a.whiteoutFiles,
		OS:            a.result.OS,
		Repository:    a.result.Repository,
		PackageInfos:  a.result.PackageInfos,
		Applications:  a.result.Applications,
		Licenses:      a.result.Licenses,
		BuildInfo:     a.result.BuildInfo,
	}
	if err := a.engine.handlers.PostHandle(ctx, a.result, &blob); err != nil {
		return facts.Layer{}, fmt.Errorf("post-handle: %w", err)
	}
	b, err := json.Marshal(blob)
	if err != nil {
		return facts.Layer{}, fmt.Errorf("encode facts: %w", err)
	}
	if int64(len(b)) > a.bounds.Facts {
		return facts.Layer{}, reason.Refusef(reason.OverBound, "the layer's facts have %d bytes; %d are allowed", len(b), a.bounds.Facts)
	}
	return facts.Layer{
		DiffID: a.tar.diffID(), Blob: b, NotRead: a.lost.list(), Size: a.tar.n, Entries: a.entries,
	}, nil
}

// packageDatabase tells whether a file lists the operating system's packages: without it an image can not be
// called clean.
func packageDatabase(name string) bool {
	if rest, ok := strings.CutPrefix(name, "var/lib/dpkg/status.d/"); ok {
		return !strings.HasSuffix(rest, ".md5sums")
	}
	return slices.Contains(packageDatabases, name)
}

var packageDatabases = []string{
	"lib/apk/db/installed", "usr/lib/apk/db/installed",
	"var/lib/dpkg/status",
	"var/lib/rpm/Packages", "var/lib/rpm/Packages.db", "var/lib/rpm/rpmdb.sqlite",
	"usr/lib/sysimage/rpm/Packages", "usr/lib/sysimage/rpm/Packages.db", "usr/lib/sysimage/rpm/rpmdb.sqlite",
	"var/lib/rpmmanifest/container-manifest-2",
	"aarch64-bottlerocket-linux-gnu/sys-root/usr/share/bottlerocket/application-inventory.json",
	"x86_64-bottlerocket-linux-gnu/sys-root/usr/share/bottlerocket/application-inventory.json",
}
