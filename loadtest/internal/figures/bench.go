package figures

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// Bench is one run of the benchmarks.
type Bench struct {
	At      time.Time `json:"at"`
	Machine string    `json:"machine"` // "2 cores, 24 GiB, linux/amd64, go1.26.3"
	Version string    `json:"version"` // of what was measured
	Images  string    `json:"images"`  // what was scanned
	Rows    []Row     `json:"rows"`
	Notes   []string  `json:"notes,omitempty"` // what was left out, and why
}

// Row is one measurement, and what it is compared with in the same run.
type Row struct {
	ID    string  `json:"id"` // "2a"
	Name  string  `json:"name"`
	Ours  Value   `json:"ours"`
	Peer  Value   `json:"peer,omitzero"`
	Ratio float64 `json:"ratio,omitzero"` // ours against the peer's, larger is better
	// Target is what is to be reached, in words; "" when the row has none.
	Target string `json:"target,omitempty"`
	Met    bool   `json:"met"` // always true without a target
	Note   string `json:"note,omitempty"`
}

// Value is a number with its unit.
type Value struct {
	Number float64 `json:"number"`
	Unit   string  `json:"unit"` // "images/s", "ms", "MiB", "events/s", "s"
}

// String is short: three digits are more than any of these is worth.
func (v Value) String() string {
	switch {
	case v.Unit == "":
		return "–"
	case v.Number >= 100:
		return fmt.Sprintf("%.0f %s", v.Number, v.Unit)
	case v.Number >= 10:
		return fmt.Sprintf("%.1f %s", v.Number, v.Unit)
	default:
		return fmt.Sprintf("%.2f %s", v.Number, v.Unit)
	}
}

// AtLeast is a row whose ratio must reach a number.
func (r Row) AtLeast(target float64) Row {
	r.Target = fmt.Sprintf("≥ %g ×", target)
	r.Met = r.Ratio >= target
	return r
}

// Below is a row whose own number must stay under another.
func (r Row) Below(target float64) Row {
	r.Target = fmt.Sprintf("< %g %s", target, r.Ours.Unit)
	r.Met = r.Ours.Number < target
	return r
}

// Free is a row without a target.
func (r Row) Free() Row {
	r.Met = true
	return r
}

// Missed are the rows that did not reach their target.
func (b Bench) Missed() []string {
	var ids []string
	for _, r := range b.Rows {
		if !r.Met {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// WriteTable writes one table.
func (b Bench) WriteTable(w io.Writer) error {
	rows := [][]string{{"", "measured", "Pratique", "peer", "ratio", "target", ""}}
	for _, r := range b.Rows {
		ratio, met := "", ""
		if r.Ratio != 0 {
			ratio = fmt.Sprintf("%.2f ×", r.Ratio)
		}
		if r.Target != "" {
			met = "reached"
			if !r.Met {
				met = "MISSED"
			}
		}
		rows = append(rows, []string{r.ID, r.Name, r.Ours.String(), r.Peer.String(), ratio, r.Target, met})
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %s; Pratique %s; images: %s\n\n", b.At.Format("2006-01-02 15:04"), b.Machine, b.Version, b.Images)
	out.WriteString(columns(rows))
	for _, r := range b.Rows {
		if r.Note != "" {
			fmt.Fprintf(&out, "%s: %s\n", r.ID, r.Note)
		}
	}
	for _, n := range b.Notes {
		fmt.Fprintf(&out, "%s\n", n)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// columns lays text out; the last line is followed by an empty one.
func columns(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var out strings.Builder
	for n, r := range rows {
		var line strings.Builder
		for i, cell := range r {
			line.WriteString(cell + strings.Repeat(" ", widths[i]-len([]rune(cell))+2))
		}
		out.WriteString(strings.TrimRight(line.String(), " ") + "\n")
		if n == 0 {
			total := 0
			for _, w := range widths {
				total += w + 2
			}
			out.WriteString(strings.Repeat("─", total-2) + "\n")
		}
	}
	return out.String() + "\n"
}

// WriteJSON writes one object.
func (b Bench) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(b)
}
