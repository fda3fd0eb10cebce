package layercache

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/registry"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/track"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/pkg/work"
)

// memory is a bus without a server, for tests that decide themselves who does what when. Each of its
// steps that others can see goes through step first.
type memory struct {
	Bus // what a test does not use is nil

	step func(ctx context.Context) error

	tracks    map[string]track.Record
	revisions map[string]uint64
	images    map[string]work.MatchJob
	jobs      map[string]work.ImageJob // queued or running, by id
	matches   []work.MatchJob
	scans     []finding.Scan
	reports   []*report.Report
}

func newMemory() *memory {
	return &memory{
		step:      func(context.Context) error { return nil },
		tracks:    map[string]track.Record{},
		revisions: map[string]uint64{},
		images:    map[string]work.MatchJob{},
		jobs:      map[string]work.ImageJob{},
	}
}

func (m *memory) Track(ctx context.Context, host, repository, name string) (track.Record, uint64, error) {
	if err := m.step(ctx); err != nil {
		return track.Record{}, 0, err
	}
	k := host + "/" + repository + ":" + name
	r, ok := m.tracks[k]
	if !ok {
		return r, 0, bus.ErrNotFound
	}
	return r, m.revisions[k], nil
}

func (m *memory) PutTrack(ctx context.Context, r track.Record, revision uint64) error {
	if err := m.step(ctx); err != nil {
		return err
	}
	k := r.Host + "/" + r.Repository + ":" + r.Track
	if m.revisions[k] != revision {
		return bus.ErrConflict
	}
	m.tracks[k] = r
	m.revisions[k]++
	return nil
}

func (m *memory) Tracks(ctx context.Context, host, repository string) ([]track.Record, error) {
	if err := m.step(ctx); err != nil {
		return nil, err
	}
	var out []track.Record
	for _, k := range slices.Sorted(maps.Keys(m.tracks)) { // in order, so that a game can be played again
		r := m.tracks[k]
		if r.Host == host && r.Repository == repository {
			out = append(out, r)
		}
	}
	return out, nil
}

func (m *memory) PublishImage(ctx context.Context, j work.ImageJob) error {
	if err := m.step(ctx); err != nil {
		return err
	}
	id := work.ImageID(j)
	if _, busy := m.jobs[id]; busy {
		return bus.ErrBusy
	}
	m.jobs[id] = j
	return nil
}

func (m *memory) PublishMatch(ctx context.Context, j work.MatchJob) error {
	if err := m.step(ctx); err != nil {
		return err
	}
	m.matches = append(m.matches, j)
	return nil
}

func assetName(a finding.Asset) string {
	return a.Host + "/" + a.Repository + ":" + a.Track + " " + a.Platform.String()
}

func (m *memory) PutSource(context.Context, image.Digest, string, string) error { return nil }

func (m *memory) PutImage(_ context.Context, j work.MatchJob) error {
	if j.Asset == nil {
		return nil
	}
	if k := assetName(*j.Asset); m.images[k].Generation <= j.Generation {
		m.images[k] = j
	}
	return nil
}

func (m *memory) DropImage(_ context.Context, j work.MatchJob) error {
	if k := assetName(*j.Asset); m.images[k].Generation <= j.Generation {
		delete(m.images, k)
	}
	return nil
}

func (m *memory) PublishScan(ctx context.Context, s finding.Scan) error {
	if err := m.step(ctx); err != nil {
		return err
	}
	m.scans = append(m.scans, s)
	return nil
}

func (m *memory) PutReport(_ context.Context, r *report.Report) error {
	m.reports = append(m.reports, r)
	return nil
}

func (m *memory) UpdateFate(context.Context, string, func(*fate.Fate)) error { return nil }

func (m *memory) UpdateBreaker(_ context.Context, host string, change func(*breaker.State)) (breaker.State, uint64, error) {
	s := breaker.State{Host: host}
	change(&s)
	return s, 1, nil
}

func (m *memory) Pointer(context.Context, vulndb.Kind) (vulndb.Pointer, error) {
	return vulndb.Pointer{}, bus.ErrNotFound
}

// shelf is a registry of images without layers, whose tags a test moves.
type shelf struct {
	step      func(ctx context.Context) error
	tags      map[string]image.Digest // by "repository:tag"
	manifests map[image.Digest][]byte
	blobs     map[image.Digest][]byte
}

func newShelf() *shelf {
	return &shelf{
		step: func(context.Context) error { return nil },
		tags: map[string]image.Digest{}, manifests: map[image.Digest][]byte{}, blobs: map[image.Digest][]byte{},
	}
}

func (s *shelf) Resolve(ctx context.Context, _, repository, tag string) (registry.Descriptor, error) {
	if err := s.step(ctx); err != nil {
		return registry.Descriptor{}, err
	}
	d, ok := s.tags[repository+":"+tag]
	if !ok {
		return registry.Descriptor{}, reason.Refusef(reason.NotFound, "no tag %s", tag)
	}
	return registry.Descriptor{Digest: d}, nil
}

func (s *shelf) Manifest(ctx context.Context, _, _ string, d image.Digest) ([]byte, string, error) {
	if err := s.step(ctx); err != nil {
		return nil, "", err
	}
	b, ok := s.manifests[d]
	if !ok {
		return nil, "", reason.Refusef(reason.NotFound, "no manifest %s", d)
	}
	return b, "", nil
}

func (s *shelf) Config(_ context.Context, _, _ string, d image.Digest, _ int64) ([]byte, error) {
	return s.blobs[d], nil
}

func (s *shelf) VerifyBlob(ctx context.Context, host, repository string, d image.Digest, _ int64) error {
	if there, err := s.HasBlob(ctx, host, repository, d); err != nil || there {
		return err
	}
	return reason.Refusef(reason.BlobMissing, "blob %s", d)
}

func (s *shelf) HasBlob(_ context.Context, _, _ string, d image.Digest) (bool, error) {
	_, ok := s.blobs[d]
	return ok, nil
}

func (s *shelf) put(v any) image.Digest {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	d := image.DigestOf(b)
	s.manifests[d] = b
	return d
}

// image puts an image for a platform. name makes it differ from others.
func (s *shelf) image(name string, p image.Platform) image.Digest {
	config := fmt.Appendf(nil, `{"os":%q,"architecture":%q,"author":%q,"rootfs":{"diff_ids":[]}}`, p.OS, p.Architecture, name)
	d := image.DigestOf(config)
	s.blobs[d] = config
	return s.put(map[string]any{
		"schemaVersion": 2,
		"config":        map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": d, "size": len(config)},
		"layers":        []any{},
	})
}

// index puts an index with an image for each platform, and answers their digests too.
func (s *shelf) index(name string, platforms ...image.Platform) (image.Digest, map[image.Platform]image.Digest) {
	children := map[image.Platform]image.Digest{}
	var entries []any
	for _, p := range platforms {
		children[p] = s.image(name, p)
		entries = append(entries, map[string]any{
			"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": children[p], "size": 1,
			"platform": map[string]any{"os": p.OS, "architecture": p.Architecture},
		})
	}
	return s.put(map[string]any{"schemaVersion": 2, "manifests": entries}), children
}

// chart puts something that is no image.
func (s *shelf) chart(name string) image.Digest {
	return s.put(map[string]any{
		"schemaVersion": 2,
		"config":        map[string]any{"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": image.DigestOf([]byte(name)), "size": 1},
		"layers":        []any{},
	})
}
