// Package engine wires what a scanner works with in production: Trivy's analyzers in this process, its
// detectors, and the databases on this machine's disk. It is the only link between the scanner service
// and what links Trivy.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
	"github.com/pratique-sec/pratique/services/scanner"
	"github.com/pratique-sec/pratique/services/scanner/advisory"
	"github.com/pratique-sec/pratique/services/scanner/layer"
	"github.com/pratique-sec/pratique/services/scanner/match"
	"github.com/pratique-sec/pratique/services/scanner/trivylib"
)

// Config of an engine. Dir and Logger are required.
type Config struct {
	// Dir is where databases are unpacked: a folder of this engine's own. What is there from an earlier
	// life is used, so a restart fetches nothing.
	Dir     string
	TempDir string       // "" for the system's
	Bounds  layer.Bounds // the zero value is layer.DefaultBounds
	Version string       // Pratique's
	Logger  *slog.Logger
	Now     func() time.Time // nil: time.Now
}

// Engine analyses, matches and holds databases. Several scanner services of one process can share one;
// it is safe for concurrent use.
type Engine struct {
	cfg    Config
	holder advisory.Holder

	loading sync.Mutex // one database at a time is unpacked
	mu      sync.RWMutex
	tools   tools
	retired []*layer.InProcess // replaced, maybe still at work; closed at the end
}

// tools are what depends on the Java index.
type tools struct {
	java     vulndb.Pointer // Digest "" while there is none
	analyzer *layer.InProcess
	matcher  *match.Matcher
}

var (
	_ scanner.Analyzer  = (*Engine)(nil)
	_ scanner.Matcher   = (*Engine)(nil)
	_ scanner.Databases = (*Engine)(nil)
)

// New makes an engine without databases: nothing can be matched until Load, and jars are named from an
// empty Java index. It replaces slog's default logger, which Trivy's library takes over otherwise.
func New(c Config) (*Engine, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	e := &Engine{cfg: c}
	t, err := e.makeTools(vulndb.Pointer{}, "")
	if err != nil {
		return nil, err
	}
	e.tools = t
	return e, nil
}

func (e *Engine) makeTools(java vulndb.Pointer, folder string) (tools, error) {
	a, err := layer.New(layer.Config{
		Bounds: e.cfg.Bounds, JavaIndex: folder, JavaDigest: java.Digest, TempDir: e.cfg.TempDir, Logger: e.cfg.Logger,
	})
	if err != nil {
		return tools{}, fmt.Errorf("engine: %w", err)
	}
	m := match.New(match.Config{
		Databases: &e.holder, Version: e.cfg.Version, JavaDB: java.Digest, Now: e.cfg.Now, Logger: e.cfg.Logger,
	})
	return tools{java: java, analyzer: a, matcher: m}, nil
}

// Close lets go of databases and temporary files. Nothing may be at work.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	errs := []error{e.holder.Close(), e.tools.analyzer.Close()}
	for _, a := range e.retired {
		errs = append(errs, a.Close())
	}
	return errors.Join(errs...)
}

// Versions are the engine's, for reports that no matcher writes.
func (e *Engine) Versions() report.Engine {
	return report.Engine{Version: e.cfg.Version, Trivy: trivylib.Version}
}

func (e *Engine) present() tools {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.tools
}

// ID implements scanner.Analyzer.
func (e *Engine) ID() string { return e.present().analyzer.ID() }

// Analyze implements scanner.Analyzer. One that has begun keeps its Java index to the end.
func (e *Engine) Analyze(ctx context.Context, l image.Layer, compressed io.Reader) (facts.Layer, error) {
	return e.present().analyzer.Analyze(ctx, l, compressed)
}

// Match implements scanner.Matcher.
func (e *Engine) Match(ctx context.Context, job work.MatchJob, layers []facts.Layer) (*report.Report, error) {
	return e.present().matcher.Match(ctx, job, layers)
}

// Current implements scanner.Databases.
func (e *Engine) Current(k vulndb.Kind) (vulndb.Pointer, bool) {
	if k == vulndb.Vulnerabilities {
		return e.holder.Pointer()
	}
	p := e.present().java
	return p, p.Digest != ""
}

// Load implements scanner.Databases.
func (e *Engine) Load(ctx context.Context, p vulndb.Pointer, fetch func(context.Context) (io.ReadCloser, error)) error {
	e.loading.Lock()
	defer e.loading.Unlock()
	before, _ := e.Current(p.Kind)
	if before.Digest == p.Digest && before.Sequence == p.Sequence {
		return nil
	}
	dir := filepath.Join(e.cfg.Dir, string(p.Kind))
	packed := &lazy{open: func() (io.ReadCloser, error) { return fetch(ctx) }}
	defer packed.close()
	folder, err := advisory.Unpack(ctx, p, packed, dir)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if p.Kind == vulndb.Java {
		err = e.swapJava(p, folder)
	} else {
		err = e.holder.Swap(p, folder)
	}
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	e.prune(dir, filepath.Base(folder), before.Digest)
	return nil
}

// swapJava gives everything that begins from now on the new index.
func (e *Engine) swapJava(p vulndb.Pointer, folder string) error {
	if old := e.present(); old.java.Digest == p.Digest {
		old.java = p
		e.mu.Lock()
		defer e.mu.Unlock()
		e.tools = old
		return nil
	}
	t, err := e.makeTools(p, folder)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.retired = append(e.retired, e.tools.analyzer)
	e.tools = t
	return nil
}

// prune removes what is neither in use nor was until now, which somebody may still read. What can not
// be removed takes disk space and nothing else.
func (e *Engine) prune(dir, current, before string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		e.cfg.Logger.Warn("list databases failed", slog.Any("error", err))
		return
	}
	keep := []string{current, image.Digest(before).Hex()}
	for _, f := range entries {
		if slices.Contains(keep, f.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, f.Name())); err != nil {
			e.cfg.Logger.Warn("remove old database failed", slog.Any("error", err))
		}
	}
}

// lazy opens a reader when it is read first: what is unpacked already is not fetched again.
type lazy struct {
	open func() (io.ReadCloser, error)
	r    io.ReadCloser
	err  error
}

func (l *lazy) Read(b []byte) (int, error) {
	if l.r == nil && l.err == nil {
		l.r, l.err = l.open()
	}
	if l.err != nil {
		return 0, l.err
	}
	return l.r.Read(b)
}

func (l *lazy) close() {
	if l.r != nil {
		_ = l.r.Close() // nothing was written
	}
}
