package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// attestation marks, as an annotation, an entry that BuildKit adds beside the images of an index.
const (
	attestationKey   = "vnd.docker.reference.type"
	attestationValue = "attestation-manifest"
)

// index lists an index's images and takes what is wanted, the first entry of each platform, as every
// runtime does.
func (o *opener) index(ctx context.Context, m manifest, want Want) (Plan, error) {
	o.seen[o.ref.Digest] = true
	listed, err := o.list(ctx, m, o.ref.Digest, 1)
	if err != nil {
		return Plan{}, err
	}
	if len(listed) == 0 {
		return Plan{Other: "an index without images"}, nil
	}
	idx := &Index{}
	for _, c := range listed {
		if !slices.Contains(idx.Listed, c.Platform) {
			idx.Listed = append(idx.Listed, c.Platform)
		}
	}
	take := func(p image.Platform) bool {
		c, ok := find(listed, p)
		if ok && !slices.ContainsFunc(idx.Children, func(o Child) bool { return o.Platform == c.Platform }) {
			idx.Children = append(idx.Children, c)
		}
		return ok
	}
	for _, p := range want.Platforms {
		if !take(p) && want.Strict {
			return Plan{}, noPlatform([]image.Platform{p}, idx.Listed)
		}
	}
	if len(idx.Children) == 0 {
		return Plan{}, noPlatform(want.Platforms, idx.Listed)
	}
	for _, p := range want.Also {
		take(p)
	}
	return Plan{Index: idx}, nil
}

// find takes the entry that is the platform, else, where no variant is asked for, the first with its
// operating system and architecture.
func find(listed []Child, p image.Platform) (Child, bool) {
	for _, c := range listed {
		if c.Platform == p.Normal() {
			return c, true
		}
	}
	if p.Variant != "" {
		return Child{}, false
	}
	for _, c := range listed {
		if c.Platform.OS == p.OS && c.Platform.Architecture == p.Architecture {
			return c, true
		}
	}
	return Child{}, false
}

func noPlatform(wanted, listed []image.Platform) error {
	return reason.Refusef(reason.NoPlatform, "the index has no %s; it has %s", names(wanted), names(listed))
}

func names(ps []image.Platform) string {
	const most = 20
	var out []string
	for _, p := range ps[:min(len(ps), most)] {
		out = append(out, p.String())
	}
	if len(ps) > most {
		out = append(out, fmt.Sprintf("and %d more", len(ps)-most))
	}
	return strings.Join(out, ", ")
}

// list walks an index and those inside it, in order. It reads an entry's own manifest only where the
// index does not say the platform.
func (o *opener) list(ctx context.Context, m manifest, at image.Digest, depth int) ([]Child, error) {
	if depth > maxDepth {
		return nil, reason.Refusef(reason.IndexCycle, "index %s: more than %d indexes inside each other", at, maxDepth)
	}
	if o.entries += len(m.Manifests); o.entries > maxWidth {
		return nil, reason.Refusef(reason.OverBound, "index %s: more than %d entries", at, maxWidth)
	}
	var out []Child
	for i, e := range m.Manifests {
		if e.isAttestation() || !isManifestType(e.MediaType) && !isIndexType(e.MediaType) {
			continue
		}
		d, err := image.ParseDigest(e.Digest)
		if err != nil {
			return nil, reason.Refusef(reason.Malformed, "index %s: manifests[%d].%w", at, i, err)
		}
		var children []Child
		if isIndexType(e.MediaType) {
			children, err = o.nested(ctx, d, depth)
		} else {
			children, err = o.entry(ctx, d, e)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, children...)
	}
	return out, nil
}

func (e descriptor) isAttestation() bool {
	return e.Annotations[attestationKey] == attestationValue ||
		e.Platform != nil && e.Platform.OS == "unknown" && e.Platform.Architecture == "unknown"
}

// nested walks an index inside another. A cycle needs a wrong digest somewhere, so a registry that is
// read with verification cannot hold one; that is another package's promise, and this one must end.
func (o *opener) nested(ctx context.Context, d image.Digest, depth int) ([]Child, error) {
	if o.seen[d] {
		return nil, reason.Refusef(reason.IndexCycle, "index %s: listed inside itself, or twice", d)
	}
	o.seen[d] = true
	m, err := o.open(ctx, d)
	if err != nil {
		return nil, err
	}
	if m.kind != kindIndex {
		return nil, reason.Refusef(reason.Malformed, "manifest %s: an index lists it as an index", d)
	}
	return o.list(ctx, m, d, depth+1)
}

func (o *opener) entry(ctx context.Context, d image.Digest, e descriptor) ([]Child, error) {
	if e.Platform != nil && (e.Platform.OS != "" || e.Platform.Architecture != "") {
		p, err := e.Platform.parse()
		if err != nil {
			return nil, nil //nolint:nilerr // a platform that is none: nobody can have asked for it
		}
		return []Child{{Platform: p, Digest: d}}, nil
	}
	m, err := o.open(ctx, d)
	if err != nil {
		return nil, err
	}
	if m.kind == kindIndex {
		return nil, reason.Refusef(reason.Malformed, "index %s: listed without its media type", d)
	}
	if m.notAnImage() != "" {
		return nil, nil
	}
	c, err := o.config(ctx, m.Config)
	if err != nil {
		return nil, err
	}
	return []Child{{Platform: c.platform, Digest: d}}, nil
}

// open reads one more manifest below the first.
func (o *opener) open(ctx context.Context, d image.Digest) (manifest, error) {
	if o.opened++; o.opened > maxOpened {
		return manifest{}, reason.Refusef(reason.OverBound, "index %s: more than %d of its manifests must be read to choose from it", o.ref.Digest, maxOpened)
	}
	return o.manifest(ctx, d)
}
