package bus

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pratique-sec/pratique/pkg/image"
)

// PutSource notes that a repository was confirmed to hold an image: its manifest and each of its layers.
// Reports are kept by digest alone, for all who hold the image; this is what tells who those are.
func (b *Bus) PutSource(ctx context.Context, d image.Digest, host, repository string) error {
	// Written again with each plan: a full bucket forgets what was not seen for longest.
	_, err := b.Bucket(bucketSources).Put(ctx, Key(append([]string{d.Hex()}, scope(host, repository)...)...), nil)
	return err
}

// Sources lists the repositories that were confirmed to hold an image, in order; none is no error. Of
// each reference only host and repository are set.
func (b *Bus) Sources(ctx context.Context, d image.Digest) ([]image.Reference, error) {
	sources := b.Bucket(bucketSources)
	s, err := b.stream(ctx, sources.stream())
	if err != nil {
		return nil, storeError("open bucket "+bucketSources, err)
	}
	prefix := sources.subject(Key(d.Hex())) + "."
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return nil, storeError("ask bucket "+bucketSources, err)
	}
	var all []image.Reference
	for _, subject := range slices.Sorted(maps.Keys(info.State.Subjects)) {
		if ref, ok := sourceOf(strings.TrimPrefix(subject, prefix)); ok {
			all = append(all, ref)
		}
	}
	return all, nil
}

// sourceOf reads the scope of a key; false when it names no repository, which we never write.
func sourceOf(key string) (image.Reference, bool) {
	host, rest, _ := strings.Cut(key, ".")
	var tokens []string
	for _, t := range append([]string{host}, strings.Split(rest, ".")...) {
		s, ok := fromKeyToken(t)
		if !ok {
			return image.Reference{}, false
		}
		tokens = append(tokens, s)
	}
	r := image.Reference{Host: tokens[0], Repository: strings.Join(tokens[1:], "/")}
	return r, image.CheckHost(r.Host) == nil && image.CheckRepository(r.Repository) == nil
}
