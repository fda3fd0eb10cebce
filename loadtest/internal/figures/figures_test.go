package figures_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/loadtest/internal/figures"
)

func TestQuantile(t *testing.T) {
	var all []time.Duration
	for i := 100; i > 0; i-- {
		all = append(all, time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.9: 90, 0.99: 99, 1: 100} {
		if got := figures.Quantile(all, q); got != want {
			t.Errorf("%v: %d, want %d", q, got, want)
		}
	}
	if got := figures.Quantile(nil, 0.5); got != 0 {
		t.Errorf("of none: %d", got)
	}
	if got := figures.Quantile([]time.Duration{7}, 0.01); got != 7 {
		t.Errorf("of one: %d", got)
	}
}

func bench() figures.Bench {
	rate := func(n float64) figures.Value { return figures.Value{Number: n, Unit: "images/s"} }
	return figures.Bench{
		Machine: "2 cores", Version: "v1", Images: "few", Notes: []string{"9: left out <here>"},
		Rows: []figures.Row{
			figures.Row{ID: "1", Name: "fast", Ours: rate(30), Peer: rate(10), Ratio: 3}.AtLeast(2),
			figures.Row{ID: "2", Name: "slow", Ours: rate(5), Peer: rate(10), Ratio: 0.5, Note: "why"}.AtLeast(1),
			figures.Row{ID: "3", Name: "p50", Ours: figures.Value{Number: 12.3, Unit: "ms"}}.Below(20),
			figures.Row{ID: "4", Name: "p99", Ours: figures.Value{Number: 200, Unit: "ms"}}.Below(100),
			figures.Row{ID: "5", Name: "memory", Ours: figures.Value{Number: 20, Unit: "MiB"}}.Free(),
		},
	}
}

func TestTargets(t *testing.T) {
	if missed := strings.Join(bench().Missed(), " "); missed != "2 4" {
		t.Errorf("missed: %s", missed)
	}
}

func TestBenchTable(t *testing.T) {
	var out bytes.Buffer
	if err := bench().WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`(?m)^1 +fast +30\.0 images/s +10\.0 images/s +3\.00 × +≥ 2 × +reached$`,
		`(?m)^2 +slow .* MISSED$`,
		`(?m)^3 +p50 +12\.3 ms +– +< 20 ms +reached$`,
		`(?m)^5 +memory +20\.0 MiB +–$`,
		`(?m)^2: why$`,
		`9: left out <here>`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no line like %s in\n%s", want, out.String())
		}
	}
}

func TestBenchJSON(t *testing.T) {
	var out bytes.Buffer
	if err := bench().WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	var back figures.Bench
	if err := json.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Rows) != 5 || back.Rows[1].Met || back.Rows[0].Peer.Number != 10 {
		t.Errorf("%+v", back)
	}
}

// A page must stand alone, and its charts must be well formed whatever names say.
func TestPages(t *testing.T) {
	b := bench()
	b.Rows[0].Name = `<script>alert("x")</script>`
	l := figures.Load{Lanes: []figures.Lane{
		{Name: "push<b>", Points: []figures.Point{{Second: 1, Millis: 12}, {Second: 2, Millis: 900}}},
		{Name: "none"},
	}, Lost: []string{"<i>r/x:1</i>"}}
	for name, write := range map[string]func(io.Writer) error{"bench": b.WriteHTML, "load": l.WriteHTML, "empty": figures.Load{}.WriteHTML} {
		var out bytes.Buffer
		if err := write(&out); err != nil {
			t.Fatal(err)
		}
		text := out.String()
		for _, bad := range []string{"<script", "<b>", "<i>", "src=", "href=", "NaN", "Inf"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s: the page has %s", name, bad)
			}
		}
		for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(text, -1) {
			d := xml.NewDecoder(strings.NewReader(svg))
			for {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s: chart: %v\n%s", name, err, svg)
				}
			}
		}
	}
}

func TestLoadTable(t *testing.T) {
	l := figures.Load{
		Lanes: []figures.Lane{{Name: "push", Sent: 10, Judged: 9, P50: 12.34, P90: 20, P99: 31, Max: 40}},
		Lost:  []string{"r/x:1"}, Repeated: 2, Dedup: 0.875,
	}
	var out bytes.Buffer
	if err := l.WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`(?m)^push +10 +9 +12\.3 +20\.0 +31\.0 +40\.0$`, `(?m)^lost +1$`, `(?m)^duplicates +2$`, `87\.5 %`, `(?m)^lost: r/x:1$`} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no line like %s in\n%s", want, out.String())
		}
	}
}
