package figures

import (
	"fmt"
	"html/template"
	"io"
	"math"
)

// page is a document that loads nothing from elsewhere.
var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Title}}</title>
<style>
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;border-bottom:1px solid #dde2e8;text-align:left}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.missed{color:#b3261e;font-weight:600}.note{color:#5a6675;font-size:.88rem}
svg{display:block;width:100%;height:auto;margin:.5rem 0}svg text{font:12px system-ui,sans-serif;fill:#1c2430}
@media(prefers-color-scheme:dark){body{color:#dfe5ec;background:#14181d}td,th{border-color:#2c343d}svg text{fill:#dfe5ec}.note{color:#93a0af}.missed{color:#ff8a80}}
</style></head><body>
<h1>{{.Title}}</h1><p class="note">{{.Subtitle}}</p>
{{range .Charts}}<h2>{{.Title}}</h2>{{.SVG}}{{end}}
<h2>Figures</h2>
<table><tr>{{range $i, $h := .Head}}<th{{if gt $i 0}} class="n"{{end}}>{{$h}}</th>{{end}}</tr>
{{range .Rows}}<tr{{if .Bad}} class="missed"{{end}}>{{range $i, $c := .Cells}}<td{{if gt $i 0}} class="n"{{end}}>{{$c}}</td>{{end}}</tr>
{{end}}</table>
{{range .Notes}}<p class="note">{{.}}</p>{{end}}
</body></html>
`))

type pageData struct {
	Title, Subtitle string
	Charts          []chart
	Head            []string
	Rows            []pageRow
	Notes           []string
}

type pageRow struct {
	Cells []string
	Bad   bool
}

type chart struct {
	Title string
	SVG   template.HTML
}

// Colours of ours and of what it is compared with; both are readable on light and dark ground.
const (
	oursColour = "#2f7dd1"
	peerColour = "#9aa5b1"
)

// bar is one line of a bar chart.
type bar struct {
	label, value string
	length       float64
	colour       string
}

// bars draws horizontal bars, the longest over the whole width.
func bars(all []bar) template.HTML {
	const (
		width, left, right = 900.0, 330.0, 110.0
		height, gap        = 18.0, 6.0
	)
	longest := 0.0
	for _, b := range all {
		longest = math.Max(longest, b.length)
	}
	out := fmt.Sprintf(`<svg viewBox="0 0 %.0f %.0f" role="img">`, width, float64(len(all))*(height+gap)+gap)
	for i, b := range all {
		y := gap + float64(i)*(height+gap)
		w := 0.0
		if longest > 0 {
			w = math.Max(1, b.length/longest*(width-left-right))
		}
		out += fmt.Sprintf(`<text x="%.0f" y="%.0f" text-anchor="end">%s</text><rect x="%.0f" y="%.0f" width="%.1f" height="%.0f" fill="%s"/><text x="%.1f" y="%.0f">%s</text>`,
			left-8, y+13, template.HTMLEscapeString(b.label), left, y, w, height, b.colour, left+w+6, y+13, template.HTMLEscapeString(b.value))
	}
	return template.HTML(out + `</svg>`) //nolint:gosec // numbers and escaped text
}

// WriteHTML writes one page.
func (b Bench) WriteHTML(w io.Writer) error {
	d := pageData{
		Title:    "Pratique: benchmarks",
		Subtitle: fmt.Sprintf("%s, %s; Pratique %s; images: %s", b.At.Format("2006-01-02 15:04"), b.Machine, b.Version, b.Images),
		Head:     []string{"measured", "Pratique", "peer", "ratio", "target"},
		Notes:    b.Notes,
	}
	byUnit := map[string][]bar{}
	var units []string
	for _, r := range b.Rows {
		ratio := ""
		if r.Ratio != 0 {
			ratio = fmt.Sprintf("%.2f ×", r.Ratio)
		}
		name := r.ID + " " + r.Name
		d.Rows = append(d.Rows, pageRow{Cells: []string{name, r.Ours.String(), r.Peer.String(), ratio, r.Target}, Bad: !r.Met})
		if r.Note != "" {
			d.Notes = append(d.Notes, r.ID+": "+r.Note)
		}
		if byUnit[r.Ours.Unit] == nil {
			units = append(units, r.Ours.Unit)
		}
		byUnit[r.Ours.Unit] = append(byUnit[r.Ours.Unit], bar{name, r.Ours.String(), r.Ours.Number, oursColour})
		if r.Peer.Unit == r.Ours.Unit {
			byUnit[r.Ours.Unit] = append(byUnit[r.Ours.Unit], bar{r.ID + " peer", r.Peer.String(), r.Peer.Number, peerColour})
		}
	}
	for _, u := range units {
		d.Charts = append(d.Charts, chart{Title: u, SVG: bars(byUnit[u])})
	}
	return page.Execute(w, d)
}
