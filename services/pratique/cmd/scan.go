package cmd

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/wire"
	"github.com/pratique-sec/pratique/services/pratique/client"
)

type scanCmd struct {
	Refs []string `arg:"" name:"ref" help:"Images, as in nginx:1.25, registry.example/team-a/api@sha256:…."`

	DB       string   `name:"db" help:"Vulnerability database: a folder or an archive of a Trivy DB." placeholder:"DIR|TAR"`
	JavaDB   string   `name:"java-db" help:"Java index, for jars that do not describe themselves." placeholder:"DIR|TAR"`
	Platform []string `help:"Of an index, the platforms to scan (repeatable)." placeholder:"OS/ARCH"`
	State    string   `help:"Folder that keeps databases and layer facts for the next scan; without it nothing is kept." placeholder:"DIR"`
	Insecure bool     `help:"Speak plain HTTP and take any certificate where the named registries want it."`

	Server    string `help:"Have a running server scan instead (ingest's address)." placeholder:"URL"`
	TokenFile string `help:"File whose first line is the token for --server." placeholder:"FILE"`

	FailOn   *severity     `help:"Exit with 1 when a vulnerability of this severity or a higher one is found: unknown, low, medium, high or critical." placeholder:"SEVERITY"`
	Output   string        `short:"o" help:"table, json (our report, an object a line) or trivy (Trivy's JSON report)." enum:"table,json,trivy" default:"table"`
	Timeout  time.Duration `help:"Give up on what is not decided by then." default:"30m"`
	RetryFor time.Duration `help:"How long to go on asking a registry that does not answer." default:"1m"`
	Quiet    bool          `short:"q" help:"No progress on stderr."`
}

// request is a checked command line.
type request struct {
	refs      []image.Reference
	platforms []image.Platform
	threshold *severity // nil: none
}

// severity is a flag's value.
type severity report.Severity

// UnmarshalText reads a severity's name.
func (s *severity) UnmarshalText(b []byte) error {
	for of := report.Unknown; of <= report.Critical; of++ {
		if strings.EqualFold(of.String(), string(b)) {
			*s = severity(of)
			return nil
		}
	}
	return fmt.Errorf("%q is none of unknown, low, medium, high, critical", b)
}

func (c *scanCmd) Run(ctx context.Context, r *runner) error {
	req, err := c.check()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("not decided within --timeout %v", c.Timeout))
	defer cancel()
	if c.Server != "" {
		api, err := c.remote(r)
		if err != nil {
			return err
		}
		defer api.Close()
		return c.scan(ctx, r, api, req)
	}
	return c.embedded(ctx, r, req)
}

func (c *scanCmd) check() (request, error) {
	req := request{threshold: c.FailOn}
	for _, s := range c.Refs {
		ref, err := image.ParseReference(s)
		if err != nil {
			return req, usagef("REF: %w", err)
		}
		req.refs = append(req.refs, ref)
	}
	for _, s := range c.Platform {
		p, err := image.ParsePlatform(s)
		if err != nil {
			return req, usagef("--platform: %w", err)
		}
		req.platforms = append(req.platforms, p)
	}
	if c.Timeout <= 0 {
		return req, usagef("--timeout %v: must be positive", c.Timeout)
	}
	if c.RetryFor <= 0 {
		return req, usagef("--retry-for %v: must be positive", c.RetryFor)
	}
	if c.Server == "" && c.TokenFile != "" {
		return req, usagef("--token-file: goes with --server URL")
	}
	if c.Server != "" {
		for flag, set := range map[string]bool{"--db": c.DB != "", "--java-db": c.JavaDB != "", "--state": c.State != "", "--insecure": c.Insecure} {
			if set {
				return req, usagef("%s: the server has its own; leave it out with --server", flag)
			}
		}
		return req, nil
	}
	for flag, path := range map[string]string{"--db": c.DB, "--java-db": c.JavaDB} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return req, usagef("%s: %w", flag, err)
		}
	}
	if c.DB == "" && c.State == "" {
		return req, usagef("--db: without a vulnerability database nothing can be judged; name one, a --state folder that holds one, or a --server")
	}
	return req, nil
}

func (c *scanCmd) remote(r *runner) (*client.Client, error) {
	cfg := client.Config{URL: c.Server, UserAgent: "pratique/" + r.Version}
	if c.TokenFile != "" {
		b, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return nil, usagef("--token-file: %w", err)
		}
		first, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
		if cfg.Token = strings.TrimSpace(first); cfg.Token == "" {
			return nil, usagef("--token-file %s: its first line is empty", c.TokenFile)
		}
	}
	api, err := client.New(cfg)
	if err != nil {
		return nil, usagef("--server: %w", err)
	}
	return api, nil
}

// inFlight is how many requests are asked about at once.
const inFlight = 8

// result is what became of one reference.
type result struct {
	reports []*report.Report
	err     error
}

// scan asks for all references at once and prints each as soon as it and those before it are decided.
func (c *scanCmd) scan(ctx context.Context, r *runner, api *client.Client, req request) error {
	results := make([]chan result, len(req.refs))
	for i := range results {
		results[i] = make(chan result, 1)
	}
	var g errgroup.Group
	g.SetLimit(inFlight)
	go func() {
		for i, ref := range req.refs {
			g.Go(func() error {
				reports, err := c.one(ctx, r, api, ref, req.platforms)
				results[i] <- result{reports, err}
				return nil
			})
		}
	}()
	verdict := ExitOK
	for i, ref := range req.refs {
		res := <-results[i]
		if res.err != nil {
			verdict = ExitFailed
			if err := r.err().Linef("pratique: %s: %v", ref, res.err); err != nil {
				return err
			}
		}
		for _, rep := range res.reports {
			if err := c.print(r, ref, rep); err != nil {
				return err
			}
			verdict = max(verdict, req.judge(rep))
		}
	}
	if verdict != ExitOK {
		return &codeError{code: verdict}
	}
	return nil
}

// judge says what one report means for the exit code.
func (req request) judge(r *report.Report) int {
	if r.Outcome == report.Failed || r.Outcome == report.Partial {
		return ExitFailed
	}
	if req.threshold == nil {
		return ExitOK
	}
	for _, res := range r.Results {
		for i := range res.Vulnerabilities {
			if res.Vulnerabilities[i].Severity >= report.Severity(*req.threshold) {
				return ExitThreshold
			}
		}
	}
	return ExitOK
}

// one has one reference scanned and fetches the reports of its images.
func (c *scanCmd) one(ctx context.Context, r *runner, api *client.Client, ref image.Reference, platforms []image.Platform) ([]*report.Report, error) {
	ask := wire.ScanRequest{Reference: ref.String()}
	for _, p := range platforms {
		ask.Platforms = append(ask.Platforms, p.String())
	}
	id, err := api.Scan(ctx, ask)
	if err != nil {
		return nil, err
	}
	f, err := api.Wait(ctx, id, c.progress(r, ref))
	if err != nil {
		return nil, err
	}
	if len(f.Images) == 0 {
		return []*report.Report{failed(ref, fate.Image{Reason: f.Reason, Detail: f.Detail}, r.Now())}, nil
	}
	var reports []*report.Report
	for _, i := range f.Images {
		if i.Outcome == report.Failed || i.Outcome == report.Skipped {
			// The stored report may be a good one of before: what was asked for is this evaluation.
			reports = append(reports, failed(ref, i, r.Now()))
			continue
		}
		rep, err := api.Report(ctx, i.Digest, i.Platform)
		if err != nil {
			return reports, err
		}
		reports = append(reports, rep)
	}
	return reports, nil
}

// failed is the report of an image that could not be scanned.
func failed(ref image.Reference, i fate.Image, now time.Time) *report.Report {
	r := &report.Report{
		Image:   image.Image{Reference: ref, Platform: i.Platform},
		Outcome: report.Failed, Reason: i.Reason, Detail: i.Detail, Created: now,
	}
	if i.Digest != "" {
		r.Image.Digest = i.Digest
	}
	if r.Reason == "" && i.Outcome == report.Skipped {
		r.Reason = reason.NotAnImage
	}
	return r
}

// progress tells of each stage once.
func (c *scanCmd) progress(r *runner, ref image.Reference) func(fate.Fate) {
	if c.Quiet {
		return func(fate.Fate) {}
	}
	last := ""
	return func(f fate.Fate) {
		now := string(f.Stage)
		missing := 0
		for _, i := range f.Images {
			missing += len(i.Missing)
		}
		if f.Stage == fate.Waiting && missing > 0 {
			now = fmt.Sprintf("waiting for %d layers", missing)
		}
		if f.LastError != "" && f.Stage != fate.Decided {
			now += " (will be tried again: " + f.LastError + ")"
		}
		if now == last || f.Stage == fate.Decided {
			return
		}
		last = now
		p := r.err()
		_ = p.Linef("%s", p.Faint(ref.String()+": "+now)) // progress is not worth failing for
	}
}

// print writes one report to stdout.
func (c *scanCmd) print(r *runner, ref image.Reference, rep *report.Report) error {
	switch c.Output {
	case "json":
		return r.printLine(wire.ReportJSON(rep))
	case "trivy":
		return r.printLine(trivyJSON(rep))
	default:
		return r.out().Report(ref.String(), rep, 0)
	}
}
