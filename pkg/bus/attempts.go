package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// Poison is told by attempts that were opened and never closed, not by the delivery count, which
// drains and upgrades raise too. Each attempt from the second delivery on raises the number in its
// job's record before the handler runs and lowers it afterwards; an attempt that took its process with
// it stays counted. First deliveries, nearly all there are, cost nothing.

// Failures are counted apart from that: attempts that ended with an error of their own, as the delivery
// count can not tell, since jobs are handed back for other reasons too. Jobs that never fail cost
// nothing here either.

// records are a job's keys in the bucket of attempts.
type records struct {
	opened string // "" when opened attempts are not counted, or this is a first delivery
	failed string // "" on events
}

// openRecords tells a delivery what became of the earlier ones.
func (b *Bus) openRecords(ctx context.Context, j job, attempts bool, d *Delivery) (records, error) {
	name := j.kind + "." + keyToken(j.key)
	r := records{failed: "failed." + name}
	if d.Attempt == 1 {
		return r, nil
	}
	var err error
	if d.Failed, err = b.count(ctx, r.failed); err != nil {
		return r, fmt.Errorf("read failures: %w", err)
	}
	if attempts {
		r.opened = name
		if d.Opened, err = b.openAttempt(ctx, r.opened); err != nil {
			return records{failed: r.failed}, fmt.Errorf("open attempt: %w", err)
		}
	}
	return r, nil
}

// closeRecords notes how a delivery ended. When the job is over, nothing is left of it.
func (b *Bus) closeRecords(ctx context.Context, r records, d Delivery, over, failed bool) error {
	var errs []error
	if r.opened != "" {
		errs = append(errs, b.closeAttempt(ctx, r.opened, over))
	}
	switch {
	case r.failed == "":
	case over && d.Failed > 0:
		errs = append(errs, b.changeAttempts(ctx, r.failed, func(int) int { return 0 }))
	case failed:
		errs = append(errs, b.changeAttempts(ctx, r.failed, func(n int) int { return n + 1 }))
	}
	return errors.Join(errs...)
}

// attemptRaces bounds the compare-and-set loop. Two deliveries of one job at a time are rare already.
const attemptRaces = 20

// openAttempt answers how many attempts before this one never ended.
func (b *Bus) openAttempt(ctx context.Context, record string) (opened int, err error) {
	err = b.changeAttempts(ctx, record, func(n int) int { opened = n; return n + 1 })
	return opened, err
}

// closeAttempt takes back what openAttempt counted; when the job is over, all of it.
func (b *Bus) closeAttempt(ctx context.Context, record string, over bool) error {
	return b.changeAttempts(ctx, record, func(n int) int {
		if over {
			return 0
		}
		return max(n-1, 0)
	})
}

// count reads a record; one that is not there counts nothing.
func (b *Bus) count(ctx context.Context, record string) (int, error) {
	value, _, err := b.Bucket(bucketAttempts).Get(ctx, record)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	n, _ := strconv.Atoi(string(value)) // nor does one that is no number
	return n, nil
}

func (b *Bus) changeAttempts(ctx context.Context, record string, change func(int) int) error {
	bucket := b.Bucket(bucketAttempts)
	var err error
	for range attemptRaces {
		var value []byte
		var rev uint64
		value, rev, err = bucket.Get(ctx, record)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		n, _ := strconv.Atoi(string(value)) // a record that is no number counts nothing
		switch next := change(n); {
		case next == 0 && rev == 0:
			return nil
		case next == 0:
			err = bucket.Drop(ctx, record, rev)
		case rev == 0:
			_, err = bucket.Create(ctx, record, []byte(strconv.Itoa(next)))
		default:
			_, err = bucket.Update(ctx, record, []byte(strconv.Itoa(next)), rev)
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return err
}
