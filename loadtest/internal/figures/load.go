package figures

import (
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"
)

// Millis is a duration in milliseconds.
func Millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Load is one run of the load program.
type Load struct {
	At         time.Time `json:"at"`
	Machine    string    `json:"machine"`
	Version    string    `json:"version"`
	Target     string    `json:"target"` // to people: "embedded", or where it is
	Images     string    `json:"images"` // what the layers are made of
	Options    string    `json:"options"`
	Steps      int       `json:"steps"`
	Seconds    float64   `json:"seconds"`
	LateMillis float64   `json:"lateMillis"` // how far the steps fell behind their times, at most
	Lanes      []Lane    `json:"lanes"`
	Scans      int       `json:"scans"`
	Deltas     int       `json:"deltas"`
	Overtaken  int       `json:"overtaken"`
	Lost       []string  `json:"lost"`
	Repeated   int       `json:"repeated"`
	Failed     []string  `json:"failed"`
	Sound      bool      `json:"sound"`
	Layers     int       `json:"layers"`   // listed by the images that were judged
	Analysed   int       `json:"analysed"` // read for them
	Distinct   int       `json:"distinct"`
	Dedup      float64   `json:"dedup"` // fraction of the listed ones that nobody had to read
}

// Lane is one lane's latency, in milliseconds.
type Lane struct {
	Name   string  `json:"name"`
	Sent   int     `json:"sent"`
	Judged int     `json:"judged"` // with an outcome of their own
	P50    float64 `json:"p50"`
	P90    float64 `json:"p90"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
	Points []Point `json:"points"`
}

// Point is one image.
type Point struct {
	Second float64 `json:"second"` // since the start
	Millis float64 `json:"millis"` // from telling to the outcome
}

// WriteJSON writes one object.
func (l Load) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(l)
}

func (l Load) lanes() [][]string {
	rows := [][]string{{"lane", "sent", "judged", "p50 ms", "p90 ms", "p99 ms", "max ms"}}
	for _, n := range l.Lanes {
		row := []string{n.Name, fmt.Sprint(n.Sent), fmt.Sprint(n.Judged)}
		for _, v := range []float64{n.P50, n.P90, n.P99, n.Max} {
			row = append(row, fmt.Sprintf("%.1f", v))
		}
		rows = append(rows, row)
	}
	return rows
}

// sums are what holds for all lanes, as names and values.
func (l Load) sums() [][2]string {
	return [][2]string{
		{"pushes and requests", fmt.Sprintf("%d in %.1f s, at most %.0f ms behind", l.Steps, l.Seconds, l.LateMillis)},
		{"outcomes, transitions", fmt.Sprintf("%d, %d", l.Scans, l.Deltas)},
		{"overtaken by a later push", fmt.Sprint(l.Overtaken)},
		{"layers", fmt.Sprintf("%d listed, %d distinct pushed, %d read", l.Layers, l.Distinct, l.Analysed)},
		{"dedup", fmt.Sprintf("%.1f %% of the listed layers were not read", 100*l.Dedup)},
		{"lost", fmt.Sprint(len(l.Lost))},
		{"duplicates", fmt.Sprint(l.Repeated)},
		{"failed", fmt.Sprint(len(l.Failed))},
	}
}

// problems are what must not be, line by line.
func (l Load) problems() []string {
	var all []string
	for _, s := range l.Lost {
		all = append(all, "lost: "+s)
	}
	for _, s := range l.Failed {
		all = append(all, "failed: "+s)
	}
	return all
}

// WriteTable writes what people read in a terminal.
func (l Load) WriteTable(w io.Writer) error {
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %s; Pratique %s, %s; layers: %s\n%s\n\n", l.At.Format("2006-01-02 15:04"), l.Machine, l.Version, l.Target, l.Images, l.Options)
	out.WriteString(columns(l.lanes()))
	for _, s := range l.sums() {
		fmt.Fprintf(&out, "%-27s%s\n", s[0], s[1])
	}
	for _, p := range l.problems() {
		fmt.Fprintf(&out, "%s\n", p)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// laneColours, highest lane first.
var laneColours = []string{"#2f7dd1", "#2e9e6b", "#c47f17", "#8a5cc2"}

// WriteHTML writes one page.
func (l Load) WriteHTML(w io.Writer) error {
	rows := l.lanes()
	d := pageData{
		Title:    "Pratique: load",
		Subtitle: fmt.Sprintf("%s, %s; Pratique %s, %s; layers: %s; %s", l.At.Format("2006-01-02 15:04"), l.Machine, l.Version, l.Target, l.Images, l.Options),
		Charts: []chart{
			{"Latency of each image, by when the system was told (ms, logarithmic)", l.scatter()},
			{"Share of images judged within a time (ms, logarithmic)", l.shares()},
		},
		Head: rows[0],
	}
	for _, r := range rows[1:] {
		d.Rows = append(d.Rows, pageRow{Cells: r})
	}
	for _, s := range l.sums() {
		d.Notes = append(d.Notes, s[0]+": "+s[1])
	}
	d.Notes = append(d.Notes, l.problems()...)
	return page.Execute(w, d)
}

// plot is a chart's frame.
type plot struct {
	out            strings.Builder
	least, most    float64 // latency axis, in powers of ten of a millisecond
	across, height float64
}

const (
	plotWidth, plotHeight = 900.0, 300.0
	plotLeft, plotBottom  = 60.0, 40.0
	plotTop, plotRight    = 24.0, 12.0
)

// newPlot finds the powers of ten that hold all latencies.
func (l Load) newPlot() *plot {
	p := &plot{least: math.Inf(1), most: math.Inf(-1), across: plotWidth - plotLeft - plotRight, height: plotHeight - plotTop - plotBottom}
	for _, n := range l.Lanes {
		for _, x := range n.Points {
			v := math.Log10(math.Max(x.Millis, 0.1))
			p.least, p.most = math.Min(p.least, math.Floor(v)), math.Max(p.most, math.Ceil(v))
		}
	}
	if math.IsInf(p.least, 0) {
		p.least, p.most = 0, 1
	}
	if p.least == p.most {
		p.most++
	}
	fmt.Fprintf(&p.out, `<svg viewBox="0 0 %.0f %.0f" role="img">`, plotWidth, plotHeight)
	for i, n := range l.Lanes {
		x := plotLeft + float64(i)*130
		fmt.Fprintf(&p.out, `<rect x="%.0f" y="4" width="10" height="10" fill="%s"/><text x="%.0f" y="13">%s</text>`, x, colourOf(i), x+15, template.HTMLEscapeString(n.Name))
	}
	return p
}

func colourOf(i int) string { return laneColours[i%len(laneColours)] }

// part is where a latency lies on its axis, from 0 to 1.
func (p *plot) part(millis float64) float64 {
	return (math.Log10(math.Max(millis, 0.1)) - p.least) / (p.most - p.least)
}

func (p *plot) svg() template.HTML {
	p.out.WriteString(`</svg>`)
	return template.HTML(p.out.String()) //nolint:gosec // numbers and escaped text
}

func (p *plot) line(x1, y1, x2, y2 float64) {
	fmt.Fprintf(&p.out, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#8884"/>`, x1, y1, x2, y2)
}

func (p *plot) text(x, y float64, anchor, s string) {
	fmt.Fprintf(&p.out, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor, template.HTMLEscapeString(s))
}

func (l Load) scatter() template.HTML {
	p, last := l.newPlot(), 1.0
	for _, n := range l.Lanes {
		for _, x := range n.Points {
			last = math.Max(last, x.Second)
		}
	}
	for e := p.least; e <= p.most; e++ {
		y := plotTop + p.height*(1-p.part(math.Pow(10, e)))
		p.line(plotLeft, y, plotWidth-plotRight, y)
		p.text(plotLeft-6, y+4, "end", fmt.Sprintf("%g", math.Pow(10, e)))
	}
	for i := range 6 {
		s := last * float64(i) / 5
		p.text(plotLeft+p.across*float64(i)/5, plotHeight-plotBottom+18, "middle", fmt.Sprintf("%.0f s", s))
	}
	for i, n := range l.Lanes {
		for _, x := range n.Points {
			fmt.Fprintf(&p.out, `<circle cx="%.1f" cy="%.1f" r="2" fill="%s" fill-opacity=".6"/>`,
				plotLeft+p.across*x.Second/last, plotTop+p.height*(1-p.part(x.Millis)), colourOf(i))
		}
	}
	return p.svg()
}

func (l Load) shares() template.HTML {
	p := l.newPlot()
	for e := p.least; e <= p.most; e++ {
		x := plotLeft + p.across*p.part(math.Pow(10, e))
		p.line(x, plotTop, x, plotHeight-plotBottom)
		p.text(x, plotHeight-plotBottom+18, "middle", fmt.Sprintf("%g", math.Pow(10, e)))
	}
	for _, share := range []float64{0, 0.5, 0.9, 0.99, 1} {
		y := plotTop + p.height*(1-share)
		p.line(plotLeft, y, plotWidth-plotRight, y)
		if share != 0.99 { // its place is 1's
			p.text(plotLeft-6, y+4, "end", fmt.Sprintf("%.0f %%", share*100))
		}
	}
	for i, n := range l.Lanes {
		all := make([]time.Duration, len(n.Points))
		for j, x := range n.Points {
			all[j] = time.Duration(x.Millis * float64(time.Millisecond))
		}
		var path strings.Builder
		for step := range 101 {
			if len(all) == 0 {
				break
			}
			share := float64(step) / 100
			fmt.Fprintf(&path, "%.1f,%.1f ", plotLeft+p.across*p.part(Millis(Quantile(all, share))), plotTop+p.height*(1-share))
		}
		fmt.Fprintf(&p.out, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`, path.String(), colourOf(i))
	}
	return p.svg()
}
