package render

import (
	"strconv"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/work"
)

// Status is the state of a whole installation.
type Status struct {
	Databases []Database `json:"databases"`
	Queues    []Queue    `json:"queues"`
	Assets    int        `json:"assets"`
	Open      int        `json:"openFindings"`
	Letters   int        `json:"deadLetters"`
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

// Status writes an installation's state.
func (p Printer) Status(s Status, now time.Time) error {
	for _, d := range s.Databases {
		state := p.paint(severityStyle(report.Medium), "none loaded")
		if d.Loaded {
			state = short(d.Digest) + ", made " + ago(now, d.UpdatedAt)
		}
		if err := p.Linef("%s  %s", p.Faint(pad(d.Kind, 12)), state); err != nil {
			return err
		}
	}
	for _, of := range [][2]string{
		{"findings", plural(s.Open, "open", "open") + " in " + plural(s.Assets, "asset", "assets")},
		{"dead letters", strconv.Itoa(s.Letters)},
	} {
		if err := p.Linef("%s  %s", p.Faint(pad(of[0], 12)), of[1]); err != nil {
			return err
		}
	}
	rows := make([][]cell, 0, len(s.Queues))
	for _, q := range s.Queues {
		rows = append(rows, []cell{
			text(q.Name), text(string(q.Lane)), text(strconv.FormatUint(q.Pending, 10)), text(strconv.Itoa(q.InFlight)),
		})
	}
	if len(rows) == 0 {
		return p.Linef("%s  nothing queued", p.Faint(pad("work", 12)))
	}
	return p.table([]string{"WORK", "LANE", "WAITING", "IN FLIGHT"}, rows)
}

func pad(s string, width int) string {
	for lipgloss.Width(s) < width {
		s += " "
	}
	return s
}
