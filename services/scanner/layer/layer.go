// Package layer turns one layer's compressed bytes into facts with Trivy's analyzers: which packages are in
// it, what it hides of the layers below, and what in it could not be read. Everything that is read comes
// from outside and may be hostile; every read is bounded, and what a bound cuts off is named.
package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/javadb"
	xos "github.com/aquasecurity/trivy/pkg/x/os"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/services/scanner/advisory"
	"github.com/pratique-sec/pratique/services/scanner/trivylib"
)

// Analyzer analyses layers. It is the seam where analysis can move into child processes.
type Analyzer interface {
	// ID names everything beside a layer's content that its facts depend on: 64 lower-case hex digits.
	ID() string
	// Analyze reads compressed to its end and returns the facts, with the diffID of the bytes that were
	// read and Analysis = ID(). The reader verifies digest and size: its last Read returns an error
	// instead of io.EOF when they are wrong, and that error is what Analyze returns. On a Refuse error
	// of its own, too, Analyze has read the reader to its end, so that the caller knows whose fault it was.
	Analyze(ctx context.Context, l image.Layer, compressed io.Reader) (facts.Layer, error)
}

// Config is what an in-process analyzer needs. Only Logger is required.
type Config struct {
	Bounds     Bounds // the zero value is DefaultBounds
	JavaIndex  string // folder that advisory.Unpack returned; "" for none
	JavaDigest string // the index's content digest; "" for none
	TempDir    string // "" for the system's
	Logger     *slog.Logger
}

// InProcess analyses in this process: one layer at a time however many there are, because Trivy's library
// has state that is the process's. A panic in one of its goroutines ends the process.
type InProcess struct {
	config Config
	engine *engine
	id     string
	java   string // folder with java-db/
}

// turn is taken by the one analysis that runs in this process.
var turn = make(chan struct{}, 1)

// New returns an analyzer. It replaces slog's default logger: see trivylib.
func New(c Config) (*InProcess, error) {
	if c.Bounds == (Bounds{}) {
		c.Bounds = DefaultBounds
	}
	e, err := theEngine(c.Logger)
	if err != nil {
		return nil, err
	}
	id, err := inputs(e, c).id()
	if err != nil {
		return nil, err
	}
	a := &InProcess{config: c, engine: e, id: id, java: c.JavaIndex}
	if a.java == "" {
		if a.java, err = os.MkdirTemp(c.TempDir, "java-index-"); err != nil {
			return nil, fmt.Errorf("layer: make folder: %w", err)
		}
		if err := advisory.EmptyJavaIndex(a.java); err != nil {
			return nil, errors.Join(err, os.RemoveAll(a.java))
		}
	}
	return a, nil
}

// Close removes what the analyzer keeps on disk. No analysis may run.
func (a *InProcess) Close() error {
	if a.java != a.config.JavaIndex {
		return os.RemoveAll(a.java)
	}
	return nil
}

// CleanUp removes the folder in which Trivy's library keeps temporary files. It is the process's last word:
// nothing can be analysed afterwards.
func CleanUp() error { return xos.Cleanup() }

// ID implements Analyzer.
func (a *InProcess) ID() string { return a.id }

// Analyze implements Analyzer.
func (a *InProcess) Analyze(ctx context.Context, l image.Layer, compressed io.Reader) (facts.Layer, error) {
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return facts.Layer{}, fmt.Errorf("layer: wait for a turn: %w", ctx.Err())
	}
	trivylib.Install(a.config.Logger) // again: somebody may have set another default meanwhile
	javadb.Init(a.java, nil, true, true, types.RegistryOptions{})

	src := &source{ctx: ctx, r: compressed}
	out, err := a.analyze(ctx, src)
	// What the bytes mean matters only when they are the right ones, and only their end tells.
	if _, rerr := io.Copy(io.Discard, src); rerr != nil {
		return facts.Layer{}, fmt.Errorf("layer: read blob %s: %w", l.Blob, rerr)
	}
	if err != nil {
		return facts.Layer{}, fmt.Errorf("layer: analyse blob %s: %w", l.Blob, a.decide(err))
	}
	out.Analysis = a.id
	return out, nil
}

// analyze turns a panic of an analyzer in this goroutine into an error; those of other goroutines are beyond
// any recover.
func (a *InProcess) analyze(ctx context.Context, src *source) (out facts.Layer, err error) {
	defer func() {
		if p := recover(); p != nil {
			a.config.Logger.ErrorContext(ctx, "analyzer panicked", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			err = reason.Refusef(reason.AnalysisFailed, "an analyzer panicked: %v", p)
		}
	}()
	tar, err := newStream(src, a.config.Bounds)
	if err != nil {
		return facts.Layer{}, err
	}
	defer tar.close()
	return newAnalysis(a.engine, a.config, tar).run(ctx)
}

// decide gives an error of the analysis its kind. Whatever comes from the operating system is our trouble
// (a full disk, no file handles); whatever else happens while these bytes are read is theirs.
func (a *InProcess) decide(err error) error {
	var (
		decided *reason.Error
		errno   syscall.Errno
	)
	switch {
	case errors.As(err, &decided), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &errno), errors.Is(err, fs.ErrClosed):
		return reason.Retryf(reason.Internal, "%w", err)
	}
	return reason.Refusef(reason.AnalysisFailed, "%w", err)
}

// source is the compressed stream. It ends with its context and remembers how it ended.
type source struct {
	ctx  context.Context
	r    io.Reader
	n    int64
	last error // sticky
}

func (s *source) Read(b []byte) (int, error) {
	if s.last != nil {
		return 0, s.last
	}
	if s.last = s.ctx.Err(); s.last != nil {
		return 0, s.last
	}
	n, err := s.r.Read(b)
	s.n += int64(n)
	s.last = err
	return n, err
}
