package main

import (
	"context"
	"fmt"
	"time"

	"github.com/pratique-sec/pratique/loadtest/internal/drive"
	"github.com/pratique-sec/pratique/loadtest/internal/figures"
	"github.com/pratique-sec/pratique/loadtest/internal/real"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/services/scanner/oracletest/peer"
)

// cold scans each image once, of which nobody knows any layer: Pratique gets all pushes at once, as a
// registry tells of them; Trivy is run image after image, on one cache.
func cold(ctx context.Context, r *runner) error {
	r.say("cold: Pratique")
	dir, err := r.fresh("cold")
	if err != nil {
		return err
	}
	var (
		ours   time.Duration
		counts map[string]int
	)
	err = drive.Embedded{Dir: dir, Hosts: []string{r.host}, Database: r.set.Database, Logger: r.logger()}.Run(ctx,
		func(ctx context.Context, s *drive.System) error {
			begin := time.Now()
			pushes, err := r.push(ctx, s, r.set.Images)
			if err != nil {
				return err
			}
			counts, err = pushes.wait(ctx, s)
			ours = time.Since(begin)
			return err
		})
	if err != nil {
		return err
	}
	r.say("cold: trivy image, one after the other")
	cache, err := r.fresh("cold-trivy")
	if err != nil {
		return err
	}
	if err := peer.Cache(cache, r.set.Database); err != nil {
		return err
	}
	begin := time.Now()
	for _, i := range r.set.Images {
		report, err := r.trivy.Image(ctx, cache, r.host+"/"+i.Name())
		if err != nil {
			return err
		}
		if err := same(i, counts, peer.Vulnerabilities(report)); err != nil {
			return err
		}
	}
	theirs := time.Since(begin)
	r.row(figures.Row{
		ID: "1", Name: "cold: each image once, no layer known",
		Ours:  figures.Value{Number: perSecond(len(r.set.Images), ours), Unit: "images/s"},
		Peer:  figures.Value{Number: perSecond(len(r.set.Images), theirs), Unit: "images/s"},
		Ratio: theirs.Seconds() / ours.Seconds(),
		Note:  fmt.Sprintf("%d images; peer: trivy image, one after the other, on one cache; all in one process here", len(r.set.Images)),
	}.AtLeast(1))
	return nil
}

// pushes are images that ingest was told of.
type pushes []push

type push struct {
	name string
	ref  image.Reference
	told time.Time // when ingest was told
}

// reference is where an image is.
func (r *runner) reference(i real.Image) (image.Reference, error) {
	d, err := i.Image.Digest()
	if err != nil {
		return image.Reference{}, fmt.Errorf("%s: %w", i.Name(), err)
	}
	return image.Reference{Host: r.host, Repository: i.Repository, Tag: i.Tag, Digest: image.Digest(d.String())}, nil
}

// push tells ingest of images that are in the registry already.
func (r *runner) push(ctx context.Context, s *drive.System, images []real.Image) (pushes, error) {
	var out pushes
	for _, i := range images {
		ref, err := r.reference(i)
		if err != nil {
			return nil, err
		}
		out = append(out, push{name: i.Name(), ref: ref, told: time.Now()})
		if err := s.Door.Notify(ctx, ref, i.Image); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// patience bounds the wait for one outcome.
const patience = 5 * time.Minute

// wait returns the number of vulnerabilities by image, when all outcomes are there.
func (p pushes) wait(ctx context.Context, s *drive.System) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	counts := map[string]int{}
	for _, one := range p {
		o, err := s.Outcomes.Push(ctx, one.ref)
		if err != nil {
			return nil, err
		}
		if o.Reason != "" {
			return nil, fmt.Errorf("%s: %s: %s: %s", one.ref, o.Outcome, o.Reason, o.Detail)
		}
		counts[one.name] = o.Counts.Total()
	}
	return counts, nil
}

// latencies from the notification to the scan.
func (p pushes) latencies(ctx context.Context, s *drive.System) ([]time.Duration, error) {
	var all []time.Duration
	for _, one := range p {
		o, err := s.Outcomes.Push(ctx, one.ref)
		if err != nil {
			return nil, err
		}
		all = append(all, o.At.Sub(one.told))
	}
	return all, nil
}
