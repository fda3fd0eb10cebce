package render

import (
	"fmt"
	"strconv"
	"time"

	"github.com/pratique-sec/pratique/pkg/system"
)

// Letter is a dead letter and where it is.
type Letter struct {
	Sequence uint64
	system.DeadLetter
}

// Letters lists dead letters.
func (p Printer) Letters(letters []Letter, now time.Time) error {
	rows := make([][]cell, 0, len(letters))
	for _, l := range letters {
		rows = append(rows, []cell{
			text(strconv.FormatUint(l.Sequence, 10)), text(ago(now, l.At)), text(l.Service), text(string(l.Reason)), text(l.Detail),
		})
	}
	return p.table([]string{"NUMBER", "WHEN", "SERVICE", "REASON", "DETAIL"}, rows)
}

// Letter writes all of a dead letter but its body, which is protobuf.
func (p Printer) Letter(l Letter) error {
	rows := [][2]string{
		{"service", l.Service},
		{"reason", string(l.Reason)},
		{"detail", l.Detail},
		{"subject", l.Subject},
		{"body", fmt.Sprintf("%d bytes (all of it: -o json)", len(l.Data))},
		{"attempts", strconv.Itoa(l.Attempts)},
		{"trace", l.TraceID},
		{"at", l.At.UTC().Format(time.RFC3339)},
	}
	if err := p.Linef("%s", p.Bold(fmt.Sprintf("dead letter %d", l.Sequence))); err != nil {
		return err
	}
	return p.pairs(rows)
}
