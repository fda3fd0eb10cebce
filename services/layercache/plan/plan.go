// Package plan finds out what a digest in a registry is: an index of platforms, an image with its
// layers, or something that is no image at all. It reads manifests and configs through a small port,
// believes none of what they claim without a bound, and changes nothing anywhere.
//
// It promises: what it returns has well-formed digests, as many diffIDs as layers, and is within the
// bounds of bounds.go; whatever is not like that is an error of kind reason.Refuse that names the
// field. It does not promise that a config tells the truth about its layers: only who reads the blobs
// can know.
package plan

import (
	"context"
	"errors"
	"fmt"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// Registry is what planning reads. Bodies are verified: they have the digest that was asked for.
// Errors carry a reason.
type Registry interface {
	Manifest(ctx context.Context, host, repository string, d image.Digest) (body []byte, mediaType string, err error)
	Config(ctx context.Context, host, repository string, d image.Digest, size int64) ([]byte, error)
	HasBlob(ctx context.Context, host, repository string, d image.Digest) (bool, error)
}

// Plan is what a digest turned out to be: exactly one of the three is set.
type Plan struct {
	Index *Index
	Image *image.Image
	Other string // no image: the media type that says so
}

// Index is what an index offers of what was asked for.
type Index struct {
	Children []Child
	Listed   []image.Platform // every platform that it has an image for, asked for or not
}

// Child is one platform's manifest.
type Child struct {
	Platform image.Platform
	Digest   image.Digest
}

// Want says which platforms to take from an index.
type Want struct {
	// Platforms are those to take where the index has them; with Strict, those it must have.
	Platforms []image.Platform
	Strict    bool
	// Also are taken when they are there: platforms that were judged on the track before.
	Also []image.Platform
}

// Open reads what ref.Digest names. The platform of an image that was not reached through an index is
// its config's, whatever was asked for.
func Open(ctx context.Context, r Registry, ref image.Reference, want Want) (Plan, error) {
	o := opener{registry: r, ref: ref, seen: map[image.Digest]bool{}}
	m, err := o.manifest(ctx, ref.Digest)
	if err != nil {
		return Plan{}, err
	}
	if m.kind == kindIndex {
		return o.index(ctx, m, want)
	}
	if other := m.notAnImage(); other != "" {
		return Plan{Other: clip(other)}, nil
	}
	img, err := o.image(ctx, m, ref.Digest)
	if err != nil {
		return Plan{}, err
	}
	return Plan{Image: img}, nil
}

// opener holds what one Open has used up of its bounds.
type opener struct {
	registry Registry
	ref      image.Reference
	seen     map[image.Digest]bool // indexes on the way
	opened   int                   // manifests read below the first
	entries  int                   // index entries looked at, over all levels
}

func (o *opener) manifest(ctx context.Context, d image.Digest) (manifest, error) {
	body, mediaType, err := o.registry.Manifest(ctx, o.ref.Host, o.ref.Repository, d)
	if err != nil {
		return manifest{}, fmt.Errorf("manifest %s: %w", d, err)
	}
	if len(body) > maxManifest {
		return manifest{}, reason.Refusef(reason.OverBound, "manifest %s: %d bytes, at most %d", d, len(body), maxManifest)
	}
	m, err := parseManifest(body, mediaType)
	switch {
	case errors.Is(err, errTooMany):
		return manifest{}, reason.Refusef(reason.OverBound, "manifest %s: %w", d, err)
	case err != nil:
		return manifest{}, reason.Refusef(reason.Malformed, "manifest %s: %w", d, err)
	}
	return m, nil
}

// image reads the config of an image's manifest and joins the two.
func (o *opener) image(ctx context.Context, m manifest, d image.Digest) (*image.Image, error) {
	layers, err := m.layers()
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d, err)
	}
	c, err := o.config(ctx, m.Config)
	if err != nil {
		return nil, err
	}
	if len(c.diffIDs) != len(layers) {
		return nil, reason.Refusef(reason.Malformed, "config %s: rootfs.diff_ids: %d for %d layers", m.Config.Digest, len(c.diffIDs), len(layers))
	}
	for i := range layers {
		layers[i].DiffID = c.diffIDs[i]
		if c.createdBy != nil {
			layers[i].CreatedBy = c.createdBy[i]
		}
	}
	if err := o.foreign(ctx, layers); err != nil {
		return nil, err
	}
	ref := o.ref
	ref.Digest = d
	return &image.Image{
		Reference: ref,
		Config:    image.Digest(m.Config.Digest), // parsed by config
		Platform:  c.platform,
		Created:   c.created,
		Layers:    layers,
	}, nil
}

// foreign asks the registry for each layer that it need not hold. One that it does not hold is
// elsewhere, and a manifest's URLs are never followed: they name a host that an outsider chose.
func (o *opener) foreign(ctx context.Context, layers []image.Layer) error {
	asked := map[image.Digest]bool{}
	for _, l := range layers {
		if !isForeign(l.MediaType) || asked[l.Blob] {
			continue
		}
		asked[l.Blob] = true
		held, err := o.registry.HasBlob(ctx, o.ref.Host, o.ref.Repository, l.Blob)
		if err != nil {
			return fmt.Errorf("foreign layer %s: %w", l.Blob, err)
		}
		if !held {
			return reason.Refusef(reason.ForeignLayer, "layer %s: not in the registry, and URLs are not followed", l.Blob)
		}
	}
	return nil
}
