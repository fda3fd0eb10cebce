package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/pratique-sec/pratique/services/pratique/render"
	"github.com/pratique-sec/pratique/services/psaauditor/manifest"
	"github.com/pratique-sec/pratique/services/psaauditor/verdict"
)

type psaCmd struct {
	Audit psaAuditCmd `cmd:"" help:"Tell which objects of manifests a level of the standards would not allow (read-only)."`
}

// The default level is restricted: "allowed", said of a level that nobody named, must mean the most.
// Restricted includes baseline, and the table says which of the two a check belongs to.
type psaAuditCmd struct {
	Paths   []string `arg:"" name:"path" help:"Files, folders (their *.yaml, *.yml and *.json), or - for standard input, as in helm template . | pratique psa audit -"`
	Level   string   `help:"baseline or restricted, which includes baseline." enum:"baseline,restricted" default:"restricted"`
	Version string   `help:"Version of Kubernetes whose standards to judge by: v1.NN or latest." default:"latest" placeholder:"VERSION"`
	Output  output   `short:"o" help:"table or json (an object that makes pods a line)." enum:"table,json" default:"table"`
}

// psaLine is an object of the JSON output. Its fields are API.
type psaLine struct {
	File       string         `json:"file"`
	Document   int            `json:"document"`
	Kind       string         `json:"kind"`
	Namespace  string         `json:"namespace"`
	Name       string         `json:"name"`
	Level      string         `json:"level"`
	Version    string         `json:"version"`
	Allowed    bool           `json:"allowed"`
	Violations []psaViolation `json:"violations"`
}

type psaViolation struct {
	Check   string `json:"check"`
	Message string `json:"message"`
}

// psaTotals are what all inputs together hold.
type psaTotals struct{ documents, denied, allowed, other, unread int }

func (c *psaAuditCmd) Run(ctx context.Context, r *runner) error {
	version, err := c.check()
	if err != nil {
		return err
	}
	if newest := verdict.Newest(); !version.Latest() && newest.Older(version) {
		err := r.err().Linef("pratique: --version %s: judged as %s, whose checks are the newest that this build knows", version.String(), newest.String())
		if err != nil {
			return err
		}
	}
	var totals psaTotals
	err = manifest.Read(ctx, c.Paths, r.Stdin, func(file string, set manifest.Set, err error) error {
		totals.documents += set.Documents
		totals.other += set.Other
		if err != nil {
			totals.unread++
			if err := r.err().Linef("pratique: %s: %v", file, err); err != nil {
				return err
			}
		}
		for _, p := range set.Problems {
			totals.unread++
			if err := r.err().Linef("pratique: %s: %v", file, p); err != nil {
				return err
			}
		}
		return c.judge(r, file, set.Objects, version, &totals)
	})
	if err != nil {
		return err
	}
	return c.conclude(r, totals)
}

func (c *psaAuditCmd) check() (verdict.Version, error) {
	version, err := verdict.ParseVersion(c.Version)
	if err != nil {
		return version, usagef("--version: %w", err)
	}
	stdin := 0
	for _, path := range c.Paths {
		if path == manifest.Stdin {
			stdin++
		} else if _, err := os.Stat(path); err != nil {
			return version, usagef("PATH: %w", err)
		}
	}
	if stdin > 1 {
		return version, usagef("PATH: standard input can be read once only")
	}
	return version, nil
}

// judge prints the verdicts on the objects of one input.
func (c *psaAuditCmd) judge(r *runner, file string, objects []manifest.Object, version verdict.Version, totals *psaTotals) error {
	verdicts := make([]render.Verdict, 0, len(objects))
	for _, o := range objects {
		bad := verdict.Evaluate(verdict.Level(c.Level), version, o.Metadata, o.Spec)
		if len(bad) == 0 {
			totals.allowed++
		} else {
			totals.denied++
		}
		if c.Output == asJSON {
			if err := r.printLine(psaJSON(file, o, c.Level, version, bad)); err != nil {
				return err
			}
			continue
		}
		v := render.Verdict{Document: o.Document, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}
		for _, b := range bad {
			v.Violations = append(v.Violations, render.Violation{Level: string(b.Level), Check: b.Check, Message: b.Message})
		}
		verdicts = append(verdicts, v)
	}
	return r.out().Verdicts(file, verdicts)
}

func psaJSON(file string, o manifest.Object, level string, version verdict.Version, bad []verdict.Violation) ([]byte, error) {
	line := psaLine{
		File: file, Document: o.Document, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name,
		Level: level, Version: version.String(), Allowed: len(bad) == 0, Violations: []psaViolation{},
	}
	for _, b := range bad {
		line.Violations = append(line.Violations, psaViolation{Check: b.Check, Message: b.Message})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(line)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// conclude sums up, and answers the exit code. What could not be read counts more than what is not allowed:
// whoever takes 1 for an answer must know that it is the whole one.
func (c *psaAuditCmd) conclude(r *runner, t psaTotals) error {
	if c.Output == asTable && t.allowed+t.denied+t.other > 0 {
		if err := r.out().VerdictTotals(c.Level, c.Version, t.allowed, t.denied, t.other); err != nil {
			return err
		}
	}
	switch {
	case t.unread > 0:
		return &codeError{ExitFailed, fmt.Errorf("%d could not be read", t.unread)}
	case t.documents == 0:
		return &codeError{ExitFailed, fmt.Errorf("PATH: there is no document; did what should write it fail?")}
	case t.denied > 0:
		return &codeError{code: ExitThreshold}
	default:
		return nil
	}
}
