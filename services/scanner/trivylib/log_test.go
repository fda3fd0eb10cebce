package trivylib

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestInstall(t *testing.T) {
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	var out bytes.Buffer
	Install(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	installed := slog.Default()
	Install(slog.New(slog.DiscardHandler))
	if slog.Default() != installed {
		t.Error("installed twice")
	}
	var collected []string
	stop := Collect(func(r slog.Record) { collected = append(collected, r.Message) })
	with := slog.Default().With("prefix", "analyzer").WithGroup("group")
	with.Debug("debug")
	with.Info("info")
	with.Warn("warn")
	stop()
	with.Warn("later", "key", "value")
	if got := strings.Join(collected, " "); got != "debug info warn" {
		t.Errorf("collected %q", got)
	}
	lines := out.String()
	if strings.Contains(lines, "msg=info") || !strings.Contains(lines, "level=INFO msg=warn") || !strings.Contains(lines, "prefix=analyzer group.key=value") {
		t.Errorf("passed on:\n%s", lines)
	}
}
