package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pratique-sec/pratique/loadtest/internal/drive"
	"github.com/pratique-sec/pratique/loadtest/internal/figures"
	"github.com/pratique-sec/pratique/loadtest/internal/machine"
	"github.com/pratique-sec/pratique/loadtest/internal/real"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/services/scanner/oracletest/peer"
)

const (
	knownImages = 220 // tags that are rebuilt
	knownRate   = 50  // images a second, where latency is measured
	pushers     = 8   // callers of ingest
	clients     = 2   // Trivy commands at once
)

// known rebuilds images: their layers stay, a label in the configuration changes, so that each has a new
// digest and no old report answers for it.
func known(ctx context.Context, r *runner) error {
	redis, stop, err := machine.Redis(ctx, r.dir)
	switch {
	case errors.Is(err, machine.ErrNoRedis):
		r.note("2a, 2b: left out, and Pratique runs without Redis: %v", err)
	case err != nil:
		return err
	default:
		defer stop()
	}
	r.say("known: preparing images")
	rounds := make([][]real.Image, 5) // the first is known, each other is measured once
	for n := range rounds {
		if rounds[n], err = r.rebuilt(n); err != nil {
			return err
		}
	}
	ours, counts, err := r.knownOurs(ctx, redis, rounds)
	if err != nil || redis == "" {
		return err
	}
	return r.knownPeer(ctx, redis, rounds, ours, counts)
}

// rebuilt makes each of the tags' images, built again for the n-th time.
func (r *runner) rebuilt(n int) ([]real.Image, error) {
	images := make([]real.Image, knownImages)
	var g errgroup.Group
	g.SetLimit(pushers)
	for i := range images {
		of := r.set.Images[i%len(r.set.Images)]
		g.Go(func() error {
			img, err := real.Label(of.Image, fmt.Sprintf("%d.%d", n, i))
			if err != nil {
				return err
			}
			images[i] = real.Image{Repository: of.Repository, Tag: fmt.Sprintf("%s-%d", of.Tag, i/len(r.set.Images)), Image: img}
			return nil
		})
	}
	return images, g.Wait()
}

// publish puts a round into the registry.
func (r *runner) publish(ctx context.Context, images []real.Image) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pushers)
	for _, i := range images {
		g.Go(func() error { return real.Push(ctx, r.host, i) })
	}
	return g.Wait()
}

// knownOurs measures Pratique and returns its images a second and each image's vulnerabilities.
func (r *runner) knownOurs(ctx context.Context, redis string, rounds [][]real.Image) (rate float64, counts map[string]int, err error) {
	dir, err := r.fresh("known")
	if err != nil {
		return 0, nil, err
	}
	err = drive.Embedded{Dir: dir, Hosts: []string{r.host}, Database: r.set.Database, Redis: redis, Logger: r.logger()}.Run(ctx,
		func(ctx context.Context, s *drive.System) error {
			r.say("known: Pratique sees all layers and tags once")
			if _, _, err := r.burst(ctx, s, rounds[0]); err != nil {
				return err
			}
			r.say("known: Pratique, all at once")
			var took time.Duration
			took, counts, err = r.burst(ctx, s, rounds[1])
			if err != nil {
				return err
			}
			rate = perSecond(knownImages, took)
			r.say("known: Pratique, the same digests again")
			again, err := r.again(ctx, s, rounds[1])
			if err != nil {
				return err
			}
			r.say(fmt.Sprintf("known: Pratique, %d images a second", knownRate))
			var all []time.Duration
			for _, round := range rounds[2:] {
				some, err := r.paced(ctx, s, round)
				if err != nil {
					return err
				}
				all = append(all, some...)
			}
			r.row(
				figures.Row{
					ID: "2c", Name: fmt.Sprintf("layers known, digests new, %d images/s: p50", knownRate),
					Ours: figures.Value{Number: milliseconds(figures.Quantile(all, 0.5)), Unit: "ms"},
					Note: fmt.Sprintf("from the notification's sending to the scan's arrival, %d images", len(all)),
				}.Below(20),
				figures.Row{
					ID: "2d", Name: fmt.Sprintf("layers known, digests new, %d images/s: p99", knownRate),
					Ours: figures.Value{Number: milliseconds(figures.Quantile(all, 0.99)), Unit: "ms"},
				}.Below(100),
				figures.Row{
					ID: "2e", Name: "the same digests again on the same database",
					Ours:  figures.Value{Number: perSecond(knownImages, again), Unit: "images/s"},
					Peer:  figures.Value{Number: rate, Unit: "images/s"},
					Ratio: perSecond(knownImages, again) / rate,
					Note:  "asked for by POST /v1/scans; peer: Pratique's own rate with new digests",
				}.Free(),
			)
			return nil
		})
	return rate, counts, err
}

// burst publishes a round and tells of all of it at once.
func (r *runner) burst(ctx context.Context, s *drive.System, images []real.Image) (time.Duration, map[string]int, error) {
	if err := r.publish(ctx, images); err != nil {
		return 0, nil, err
	}
	parts := make([]pushes, pushers)
	begin := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for n := range parts {
		g.Go(func() (err error) {
			var mine []real.Image
			for i := n; i < len(images); i += pushers {
				mine = append(mine, images[i])
			}
			parts[n], err = r.push(gctx, s, mine)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, nil, err
	}
	all := pushes{}
	for _, p := range parts {
		all = append(all, p...)
	}
	counts, err := all.wait(ctx, s)
	return time.Since(begin), counts, err
}

// again asks for images that were just judged.
func (r *runner) again(ctx context.Context, s *drive.System, images []real.Image) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(pushers)
	ids := make([]string, len(images))
	for n, i := range images {
		g.Go(func() error {
			ref, err := r.reference(i)
			if err != nil {
				return err
			}
			ids[n], err = s.Door.Request(gctx, image.Reference{Host: ref.Host, Repository: ref.Repository, Tag: ref.Tag})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	for _, id := range ids {
		if _, err := s.Outcomes.Request(ctx, id); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

// paced publishes a round and tells of its images one after the other at the given rate, whatever is done
// with them meanwhile.
func (r *runner) paced(ctx context.Context, s *drive.System, images []real.Image) ([]time.Duration, error) {
	if err := r.publish(ctx, images); err != nil {
		return nil, err
	}
	all := make([]pushes, len(images))
	g, gctx := errgroup.WithContext(ctx)
	tick := time.NewTicker(time.Second / knownRate)
	defer tick.Stop()
	for n, i := range images {
		select {
		case <-tick.C:
		case <-gctx.Done():
			return nil, g.Wait()
		}
		g.Go(func() (err error) {
			all[n], err = r.push(gctx, s, []real.Image{i})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []time.Duration
	for _, p := range all {
		if _, err := p.wait(ctx, s); err != nil {
			return nil, err
		}
		some, err := p.latencies(ctx, s)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// knownPeer measures Trivy's server on the same images.
func (r *runner) knownPeer(ctx context.Context, redis string, rounds [][]real.Image, ours float64, counts map[string]int) error {
	cache, err := r.fresh("known-trivy")
	if err != nil {
		return err
	}
	if err := peer.Cache(cache, r.set.Database); err != nil {
		return err
	}
	server, err := r.trivy.Serve(ctx, cache, "redis://"+redis)
	if err != nil {
		return err
	}
	defer server.Close()
	r.say("known: Trivy's server sees all layers once")
	scans, err := server.Record(func(url string) error {
		for _, i := range r.set.Images {
			if _, err := r.trivy.Image(ctx, cache, r.host+"/"+i.Name(), "--server", url); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.say(fmt.Sprintf("known: trivy image --server, %d at once", clients))
	byClients, err := r.clients(ctx, server, cache, rounds[len(rounds)-1], counts)
	if err != nil {
		return err
	}
	r.say("known: Trivy's RPC, one client")
	byRPC, err := r.rpc(ctx, server, scans, rounds[1], counts)
	if err != nil {
		return err
	}
	mine := figures.Value{Number: ours, Unit: "images/s"}
	r.row(
		figures.Row{
			ID: "2a", Name: "layers known, digests new: against trivy image --server", Ours: mine,
			Peer: figures.Value{Number: byClients, Unit: "images/s"}, Ratio: ours / byClients,
			Note: fmt.Sprintf("%d pushes at once here; peer: Trivy's server with Redis, %d commands at once", knownImages, clients),
		}.AtLeast(10),
		figures.Row{
			ID: "2b", Name: "layers known, digests new: against the server's RPC", Ours: mine,
			Peer: figures.Value{Number: byRPC, Unit: "images/s"}, Ratio: ours / byRPC,
			Note: "peer: the same server's Scan call alone, by one client that keeps its connection: it reads no registry and stores no result",
		}.AtLeast(1.5),
	)
	return nil
}

// clients runs commands as users do, and returns images a second. Images are those of the last round, which
// the registry serves now.
func (r *runner) clients(ctx context.Context, s *peer.Server, cache string, images []real.Image, counts map[string]int) (float64, error) {
	images = images[:min(len(images), 4*len(r.set.Images))]
	begin := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(clients)
	for _, i := range images {
		g.Go(func() error {
			report, err := r.trivy.Image(ctx, cache, r.host+"/"+i.Name(), "--server", s.URL)
			if err != nil {
				return err
			}
			return same(i, counts, peer.Vulnerabilities(report))
		})
	}
	err := g.Wait()
	return perSecond(len(images), time.Since(begin)), err
}

// rpc makes the same calls as commands would, without them.
func (r *runner) rpc(ctx context.Context, s *peer.Server, scans *peer.Scans, images []real.Image, counts map[string]int) (float64, error) {
	if scans.Len() != len(r.set.Images) {
		return 0, fmt.Errorf("%d scan calls recorded of %d images", scans.Len(), len(r.set.Images))
	}
	client := s.Client()
	begin := time.Now()
	for n, i := range images {
		d, err := i.Image.Digest()
		if err != nil {
			return 0, err
		}
		found, err := client.Scan(ctx, scans, n%scans.Len(), d.String(), r.host+"/"+i.Name())
		if err != nil {
			return 0, err
		}
		if err := same(i, counts, found); err != nil {
			return 0, err
		}
	}
	return perSecond(len(images), time.Since(begin)), nil
}

// same holds one result against the other: who is faster at something else is no faster.
func same(i real.Image, counts map[string]int, theirs int) error {
	if ours := counts[i.Name()]; ours != theirs {
		return fmt.Errorf("%s: Pratique finds %d vulnerabilities, Trivy %d", i.Name(), ours, theirs)
	}
	return nil
}
