package bus

import (
	"context"
	"errors"
	"strconv"
)

// Poison is told by attempts that were opened and never closed, not by the delivery count, which
// drains and upgrades raise too. Each attempt from the second delivery on raises the number in its
// job's record before the handler runs and lowers it afterwards; an attempt that took its process with
// it stays counted. First deliveries, nearly all there are, cost nothing.

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
