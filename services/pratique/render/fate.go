package render

import (
	"fmt"
	"strings"
	"time"

	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
)

// Fate writes what became of a reference: stage, what it waits for, attempts, last error, trace.
func (p Printer) Fate(f fate.Fate, now time.Time) error {
	rows := [][2]string{
		{"stage", string(f.Stage)},
		{"accepted", f.Received.UTC().Format(time.RFC3339) + ", " + ago(now, f.Received)},
		{"last news", ago(now, f.Updated)},
		{"request", f.Request},
		{"attempts", fmt.Sprint(f.Attempts)},
		{"last error", f.LastError},
		{"reason", string(f.Reason)},
		{"detail", f.Detail},
		{"trace", f.TraceID},
	}
	name := f.Reference
	if name.Tag != "" {
		name.Digest = "" // where the tag pointed when it was asked about; the images below say where it does
	}
	if err := p.Linef("%s", p.Bold(clean(name.String()))); err != nil {
		return err
	}
	if err := p.pairs(rows); err != nil {
		return err
	}
	for _, i := range f.Images {
		if err := p.fateImage(i); err != nil {
			return err
		}
	}
	return nil
}

func (p Printer) fateImage(i fate.Image) error {
	state := string(i.Stage)
	switch {
	case i.Outcome == report.Failed:
		state = "failed: " + string(i.Reason) + "  " + i.Detail
	case i.Outcome != "":
		state = string(i.Outcome)
	}
	if err := p.Linef("  %s  %s  %s", platform(i.Platform), short(i.Digest), clean(state)); err != nil {
		return err
	}
	if len(i.Missing) > 0 {
		return p.Linef("    waits for %s: %s", plural(len(i.Missing), "layer", "layers"), strings.Join(shorts(i.Missing), ", "))
	}
	return nil
}

// pairs writes names and values, leaving out empty values.
func (p Printer) pairs(rows [][2]string) error {
	for _, r := range rows {
		if r[1] == "" {
			continue
		}
		if err := p.Linef("  %s  %s", p.Faint(fmt.Sprintf("%-11s", r[0])), clean(r[1])); err != nil {
			return err
		}
	}
	return nil
}

func shorts(digests []image.Digest) []string {
	out := make([]string, len(digests))
	for i, d := range digests {
		out[i] = short(d)
	}
	return out
}
