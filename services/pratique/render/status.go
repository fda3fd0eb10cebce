package render

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Status is the state of a whole installation.
type Status struct {
	At        time.Time  `json:"at"`
	Databases []Database `json:"databases"`
	Queues    []Queue    `json:"queues"`
	Work      []Work     `json:"work"`
	Paused    []Paused   `json:"pausedRegistries"`
	Rates     *Rates     `json:"rates,omitempty"` // of a watch, from its second look on
	Assets    int        `json:"assets"`
	Open      int        `json:"openFindings"`
	Letters   uint64     `json:"deadLetters"`
}

// Database is one database that judgements rest on.
type Database struct {
	Kind      string       `json:"kind"`
	Loaded    bool         `json:"loaded"`
	Digest    image.Digest `json:"digest,omitempty"`
	UpdatedAt time.Time    `json:"updatedAt,omitzero"`
}

// Queue is the backlog of one kind of job in one lane.
type Queue struct {
	Name     string    `json:"name"`
	Lane     work.Lane `json:"lane"`
	Pending  uint64    `json:"pending"`
	InFlight int       `json:"inFlight"`
}

// Work is what the scanners of a pool have before them in a lane.
type Work struct {
	Pool    string    `json:"pool"`
	Lane    work.Lane `json:"lane"`
	Seconds float64   `json:"seconds"` // of one slot
	Oldest  time.Time `json:"oldest,omitzero"`
}

// Paused is a registry that is left alone.
type Paused struct {
	Registry string    `json:"registry"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"` // then it is asked again
	Error    string    `json:"error"`
}

// Rates are numbers a second.
type Rates struct {
	Events   float64 `json:"events"`
	Scans    float64 `json:"scans"`
	Findings float64 `json:"findings"`
}

// Status writes an installation's state.
func (p Printer) Status(s Status, now time.Time) error {
	for _, d := range s.Databases {
		state := p.paint(severityStyle(report.Medium), "none loaded")
		if d.Loaded {
			state = short(d.Digest) + ", made " + ago(now, d.UpdatedAt)
		}
		if err := p.fact(d.Kind, state); err != nil {
			return err
		}
	}
	facts := [][2]string{
		{"findings", plural(s.Open, "open", "open") + " in " + plural(s.Assets, "asset", "assets")},
		{"dead letters", strconv.FormatUint(s.Letters, 10)},
	}
	if s.Rates != nil {
		facts = append(facts, [2]string{"a second", s.Rates.String()})
	}
	for _, f := range facts {
		if err := p.fact(f[0], f[1]); err != nil {
			return err
		}
	}
	for _, r := range s.Paused {
		if err := p.Paused(r, now); err != nil {
			return err
		}
	}
	return p.queues(s, now)
}

// Paused writes that a registry is left alone.
func (p Printer) Paused(r Paused, now time.Time) error {
	again := "now"
	if wait := r.Until.Sub(now); wait > 0 {
		again = "in " + wait.Round(time.Second).String()
	}
	text := fmt.Sprintf("registry %s, %s; asked again %s: %s", r.Registry, ago(now, r.Since), again, r.Error)
	return p.fact("paused", p.paint(severityStyle(report.Medium), clean(text)))
}

func (p Printer) fact(name, value string) error {
	return p.Linef("%s  %s", p.Faint(pad(name, 12)), value)
}

func (p Printer) queues(s Status, now time.Time) error {
	rows := make([][]cell, 0, len(s.Queues))
	for _, q := range s.Queues {
		rows = append(rows, []cell{
			text(q.Name), text(string(q.Lane)), text(strconv.FormatUint(q.Pending, 10)), text(strconv.Itoa(q.InFlight)),
		})
	}
	if len(rows) == 0 {
		return p.fact("work", "nothing queued")
	}
	if err := p.table([]string{"WORK", "LANE", "WAITING", "IN FLIGHT"}, rows); err != nil {
		return err
	}
	rows = rows[:0]
	for _, w := range s.Work {
		if w.Seconds == 0 {
			continue
		}
		rows = append(rows, []cell{text(w.Pool), text(string(w.Lane)), text(seconds(w.Seconds)), text(ago(now, w.Oldest))})
	}
	if len(rows) == 0 {
		return nil
	}
	return p.table([]string{"SCANNERS", "LANE", "SLOT TIME", "OLDEST JOB"}, rows)
}

// StatusLine writes it on one line, for whoever watches without a terminal.
func (p Printer) StatusLine(s Status, now time.Time) error {
	waiting, inFlight, slot := uint64(0), 0, 0.0
	lanes := map[work.Lane]uint64{}
	for _, q := range s.Queues {
		waiting += q.Pending
		inFlight += q.InFlight
		lanes[q.Lane] += q.Pending
	}
	for _, w := range s.Work {
		slot += w.Seconds
	}
	var each []string
	for _, l := range work.Lanes {
		if lanes[l] > 0 {
			each = append(each, fmt.Sprintf("%s %d", l, lanes[l]))
		}
	}
	line := fmt.Sprintf("%s  waiting %d", s.At.UTC().Format(time.RFC3339), waiting)
	if len(each) > 0 {
		line += " (" + strings.Join(each, ", ") + ")"
	}
	line += fmt.Sprintf(", in flight %d, slot time %s", inFlight, seconds(slot))
	if s.Rates != nil {
		line += ", a second: " + s.Rates.String()
	}
	line += fmt.Sprintf(", dead letters %d", s.Letters)
	for _, d := range s.Databases {
		if d.Loaded {
			line += ", " + d.Kind + " made " + ago(now, d.UpdatedAt)
		}
	}
	for _, r := range s.Paused {
		line += ", paused " + r.Registry
	}
	return p.Linef("%s", clean(line))
}

func (r Rates) String() string {
	return fmt.Sprintf("%s events, %s scans, %s findings", rate(r.Events), rate(r.Scans), rate(r.Findings))
}

// rate shows two digits of small numbers and whole large ones.
func rate(r float64) string {
	if r >= 10 || r == 0 {
		return strconv.FormatFloat(r, 'f', 0, 64)
	}
	return strconv.FormatFloat(r, 'g', 2, 64)
}

func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func pad(s string, width int) string {
	for lipgloss.Width(s) < width {
		s += " "
	}
	return s
}
