package bus

import (
	"context"
	"strings"

	"github.com/pratique-sec/pratique/pkg/work"
)

// Queue is the backlog of one kind of job in one lane (layers: of one class and pool).
type Queue struct {
	Kind     string // image, layer, match
	Lane     work.Lane
	Class    work.Class // layers only
	Pool     string     // layers only; as the token in the subject
	Pending  uint64     // not handed out yet
	InFlight int        // handed out and not acknowledged, those handed back with a delay included

	filter string // subject of its jobs
	floor  uint64 // sequence up to which all are done
}

// Backlog lists every queue of WORK. It asks for the consumers' numbers, not for the stream's subjects,
// of which there is one for each job.
func (b *Bus) Backlog(ctx context.Context) ([]Queue, error) {
	s, err := b.stream(ctx, b.name(streamWork))
	if err != nil {
		return nil, storeError("open "+streamWork, err)
	}
	var all []Queue
	list := s.ListConsumers(ctx)
	for c := range list.Info() {
		// A consumer's filter is the subject of its jobs, with * for the key.
		j, ok := parseJob(b.cfg.Root, c.Config.FilterSubject)
		if !ok || !strings.HasSuffix(c.Config.FilterSubject, ".*") {
			continue // not one of ours
		}
		all = append(all, Queue{
			Kind: j.kind, Lane: j.lane, Class: work.Class(j.class), Pool: j.pool,
			Pending: c.NumPending, InFlight: c.NumAckPending,
			filter: c.Config.FilterSubject, floor: c.AckFloor.Stream,
		})
	}
	if err := list.Err(); err != nil {
		return nil, storeError("list consumers of "+streamWork, err)
	}
	return all, nil
}

// Marks are how far the pipeline has come: last sequences, whose difference over a time is a rate.
type Marks struct {
	Events, Scans, Findings uint64 // accepted, evaluated, told
	States                  uint64 // changes of an asset's state
	DeadLetters             uint64 // that are kept now: a number, not a sequence
}

// Marks reads them.
func (b *Bus) Marks(ctx context.Context) (Marks, error) {
	var m Marks
	for _, s := range []struct {
		name string
		last *uint64
	}{{streamEvents, &m.Events}, {streamScans, &m.Scans}, {streamFindings, &m.Findings}, {streamState, &m.States}} {
		_, last, err := b.bounds(ctx, b.name(s.name))
		if err != nil {
			return Marks{}, err
		}
		*s.last = last
	}
	s, err := b.stream(ctx, b.name(streamDeadLetters))
	if err != nil {
		return Marks{}, storeError("open "+streamDeadLetters, err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		return Marks{}, storeError("ask "+streamDeadLetters, err)
	}
	m.DeadLetters = info.State.Msgs
	return m, nil
}
