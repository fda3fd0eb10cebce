package trivylib

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// collector receives every record while it is set.
var collector atomic.Pointer[func(slog.Record)]

// Install makes slog's default logger pass Trivy's records on to logger, demoted: what matters about them is
// in facts and reports, and the rest is noise. It changes nothing when it was installed before.
func Install(logger *slog.Logger) {
	if _, ours := slog.Default().Handler().(handler); !ours {
		slog.SetDefault(slog.New(handler{logger.Handler()}))
	}
}

// Collect hands every record to fn until stop is called, beside passing it on. There is one collector in a
// process, because some records carry no context that would tell whose they are. fn is called from many
// goroutines at once.
func Collect(fn func(slog.Record)) (stop func()) {
	collector.Store(&fn)
	return func() { collector.Store(nil) }
}

// handler demotes records by one level and hands them to the collector.
type handler struct{ next slog.Handler }

func demote(l slog.Level) slog.Level {
	return l - (slog.LevelWarn - slog.LevelInfo)
}

func (h handler) Enabled(ctx context.Context, l slog.Level) bool {
	return collector.Load() != nil || h.next.Enabled(ctx, demote(l))
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if fn := collector.Load(); fn != nil {
		(*fn)(r)
	}
	level := demote(r.Level)
	if !h.next.Enabled(ctx, level) {
		return nil
	}
	r = r.Clone()
	r.Level = level
	return h.next.Handle(ctx, r)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler { return handler{h.next.WithAttrs(attrs)} }

func (h handler) WithGroup(name string) slog.Handler { return handler{h.next.WithGroup(name)} }
