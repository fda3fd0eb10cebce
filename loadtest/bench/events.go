package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/loadtest/internal/drive"
	"github.com/pratique-sec/pratique/loadtest/internal/figures"
	"github.com/pratique-sec/pratique/loadtest/internal/machine"
	"github.com/pratique-sec/pratique/loadtest/internal/real"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/services/ingest"
)

const (
	callers    = 32
	eventsFor  = 5 * time.Second // each side
	eventsWarm = time.Second     // before that, uncounted
)

// events compares what ingest stores with what JetStream could: the same server, as many callers, each
// waiting for its answer, messages of the same size. Callers of ingest are as lean as callers can be:
// they are no part of it, and elsewhere in production.
func events(ctx context.Context, r *runner) error {
	dir, err := r.fresh("events")
	if err != nil {
		return err
	}
	server, err := machine.NATS(dir)
	if err != nil {
		return err
	}
	defer server.Stop()
	nc, err := nats.Connect(server.URL)
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	defer nc.Close()
	b, err := bus.New(nc, bus.Config{}, bus.Options{Logger: r.logger()})
	if err != nil {
		return err
	}
	if err := b.Provision(ctx); err != nil {
		return err
	}
	r.say(fmt.Sprintf("events: ingest, %d callers", callers))
	ours, size, err := r.ingested(ctx, b, nc)
	if err != nil {
		return err
	}
	r.say(fmt.Sprintf("events: bare JetStream, %d callers, %d bytes a message", callers, size))
	theirs, err := bare(ctx, server.URL, size, false)
	if err != nil {
		return err
	}
	shared, err := bare(ctx, server.URL, size, true)
	if err != nil {
		return err
	}
	r.row(figures.Row{
		ID: "3", Name: fmt.Sprintf("events stored by ingest, %d callers, one a POST", callers),
		Ours:  figures.Value{Number: ours, Unit: "events/s"},
		Peer:  figures.Value{Number: theirs, Unit: "events/s"},
		Ratio: ours / theirs,
		Note: fmt.Sprintf("peer: synchronous JetStream publishing of %d bytes, same server, a connection for each caller on both sides; %.0f events/s when all share one",
			size, shared),
	}.AtLeast(0.4))
	return nil
}

// ingested runs ingest and returns events a second and the stored size of one, headers included.
func (r *runner) ingested(ctx context.Context, b *bus.Bus, nc *nats.Conn) (rate float64, size int, err error) {
	in, err := ingest.New(ingest.Config{}, ingest.Deps{Bus: b, Logger: r.logger()})
	if err != nil {
		return 0, 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- in.Run(ctx) }()
	rate, err = rateOf(ctx, func(ctx context.Context, n int, count func()) error {
		return post(ctx, in.Addr(), r.host, r.set.Images[n%len(r.set.Images)], count)
	})
	if err != nil {
		return 0, 0, err
	}
	stop()
	if err := <-ended; err != nil {
		return 0, 0, err
	}
	size, err = storedSize(context.WithoutCancel(ctx), nc)
	return rate, size, err
}

// rateOf runs callers side by side and counts what they do a second, once they are warm.
func rateOf(ctx context.Context, caller func(ctx context.Context, n int, count func()) error) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, eventsWarm+eventsFor)
	defer cancel()
	var done atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	for n := range callers {
		g.Go(func() error {
			err := caller(gctx, n, func() { done.Add(1) })
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the end that was asked for
			}
			return err
		})
	}
	select {
	case <-time.After(eventsWarm):
	case <-gctx.Done():
		return 0, g.Wait()
	}
	before, begin := done.Load(), time.Now()
	select {
	case <-time.After(eventsFor - eventsWarm):
	case <-gctx.Done():
		return 0, g.Wait()
	}
	rate := perSecond(int(done.Load()-before), time.Since(begin))
	cancel()
	return rate, g.Wait()
}

// post sends notifications over one connection, each when the one before was answered.
func post(ctx context.Context, address, host string, i real.Image, count func()) error {
	ref, err := (&runner{host: host}).reference(i)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // its answers were read
	body, err := drive.Notification(ref, i.Image)
	if err != nil {
		return err
	}
	mark, err := newMark(body)
	if err != nil {
		return err
	}
	var request bytes.Buffer
	answers := bufio.NewReader(conn)
	for ctx.Err() == nil {
		mark.next()
		request.Reset()
		fmt.Fprintf(&request, "POST /v1/events/distribution HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", address, len(body))
		request.Write(body)
		if _, err := conn.Write(request.Bytes()); err != nil {
			return err
		}
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			return err
		}
		if err := answer.Body.Close(); err != nil {
			return err
		}
		if answer.StatusCode != http.StatusAccepted {
			return fmt.Errorf("ingest: %s: %s", answer.Status, text)
		}
		count()
	}
	return nil
}

// mark makes each notification another event: it counts in the digits of the id.
type mark struct {
	id []byte
	n  uint64
}

// newMark finds the id in the body, which it changes in place.
func newMark(body []byte) (*mark, error) {
	const before = `"id":"`
	i := bytes.Index(body, []byte(before))
	if i < 0 {
		return nil, fmt.Errorf("notification without an id: %s", body)
	}
	return &mark{id: body[i+len(before) : i+len(before)+12]}, nil
}

func (m *mark) next() {
	m.n++
	n := m.n
	for i := range m.id {
		m.id[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[n%32]
		n /= 32
	}
}

// storedSize is the last event's, in bytes, headers included.
func storedSize(ctx context.Context, nc *nats.Conn) (int, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, err
	}
	s, err := js.Stream(ctx, "EVENTS")
	if err != nil {
		return 0, err
	}
	m, err := s.GetMsg(ctx, s.CachedInfo().State.LastSeq)
	if err != nil {
		return 0, err
	}
	size := len(m.Data)
	for k, values := range m.Header {
		for _, v := range values {
			size += len(k) + len(v) + 4
		}
	}
	return size, nil
}

// bare publishes messages of a size with nothing around it, and returns messages a second. Each caller has
// a connection, as callers of ingest have, or all share one, whose client then sends many messages at a
// time.
func bare(ctx context.Context, url string, size int, shared bool) (float64, error) {
	one, err := nats.Connect(url)
	if err != nil {
		return 0, fmt.Errorf("nats: %w", err)
	}
	defer one.Close()
	js, err := jetstream.New(one)
	if err != nil {
		return 0, err
	}
	stream := jetstream.StreamConfig{Name: "BARE", Subjects: []string{"bare.>"}, Storage: jetstream.FileStorage}
	if _, err := js.CreateOrUpdateStream(ctx, stream); err != nil {
		return 0, err
	}
	body := make([]byte, size)
	return rateOf(ctx, func(ctx context.Context, n int, count func()) error {
		js := js
		if !shared {
			own, err := nats.Connect(url)
			if err != nil {
				return fmt.Errorf("nats: %w", err)
			}
			defer own.Close()
			if js, err = jetstream.New(own); err != nil {
				return err
			}
		}
		for {
			if _, err := js.Publish(ctx, fmt.Sprintf("bare.%d", n), body); err != nil {
				return err
			}
			count()
		}
	})
}
