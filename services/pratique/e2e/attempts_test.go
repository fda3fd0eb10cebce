package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/services/pratique/e2e/processes"
)

// attempt is one analysis of a layer, as the scanner that made it has logged it.
type attempt struct {
	scanner    string
	blob       string
	begin, end time.Time
	cut        bool // it never ended: its process did
}

// attempts reads all analyses of all lives of some scanners. A process's log is written by the process
// itself, line by line, so what it did before kill -9 is there.
func attempts(t testing.TB, scanners []*processes.Process) []attempt {
	t.Helper()
	var all []attempt
	for _, p := range scanners {
		f, err := os.Open(p.Log)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		running := map[string]int{} // blob → index in all
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var line struct {
				Time      time.Time
				Msg, Blob string
			}
			if json.Unmarshal(lines.Bytes(), &line) != nil {
				continue // cut short by a kill, or a crash's stack
			}
			switch line.Msg {
			case "starting":
				clear(running) // what ran in the life before has no end
			case "layer analysis begins":
				running[line.Blob] = len(all)
				all = append(all, attempt{scanner: p.Name, blob: line.Blob, begin: line.Time, cut: true})
			case "layer analysis ends":
				if k, ok := running[line.Blob]; ok {
					all[k].end, all[k].cut = line.Time, false
					delete(running, line.Blob)
				}
			}
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// outage is a span of time in which NATS was away, or one process hung or died.
type outage struct {
	of       string // the process; "" is NATS, which everybody needs
	from, to time.Time
}

// disturbed tells whether the attempt was in flight when its process was killed, or while something that
// it needs was away.
func (a attempt) disturbed(outages []outage) bool {
	if a.cut {
		return true
	}
	for _, o := range outages {
		if (o.of == "" || o.of == a.scanner) && a.begin.Before(o.to) && a.end.After(o.from) {
			return true
		}
	}
	return false
}

// analysedOnce wants of each blob one analysis, and one more for each attempt at it that was in flight at
// a kill or an outage, at most. It answers how many attempts were disturbed so.
func analysedOnce(t testing.TB, all []attempt, outages []outage, layers map[string]bool) (disturbed int) {
	t.Helper()
	tries, excused := map[string]int{}, map[string]int{}
	for _, a := range all {
		if !layers[a.blob] {
			t.Errorf("%s analysed %s, which no image lists", a.scanner, a.blob)
		}
		tries[a.blob]++
		if a.disturbed(outages) {
			excused[a.blob]++
			disturbed++
		}
	}
	for blob := range layers {
		if n := tries[blob]; n > 1+excused[blob] {
			t.Errorf("%s was analysed %d times; %d attempts were in flight at a kill or an outage", blob, n, excused[blob])
			for _, a := range all {
				if a.blob == blob {
					t.Logf("  by %s from %s to %s", a.scanner, a.begin.Format(time.StampMilli), a.end.Format(time.StampMilli))
				}
			}
		}
	}
	return disturbed
}
