// Package real has the images that are scanned when something is measured, the vulnerability database
// that they are judged on, and a registry for them. They are real ones: the small corpus beside the
// repository, or else the repository's own small images.
package real

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/services/pratique/demo"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
	"github.com/pratique-sec/pratique/services/scanner/advisory"
	"github.com/pratique-sec/pratique/services/scanner/oracletest/corpus"
	"github.com/pratique-sec/pratique/services/scanner/oracletest/peer"
)

// Set is what a measurement works with.
type Set struct {
	Origin   string // to people: "the small corpus"
	Small    bool   // layers of some kilobytes: what waits for bytes can not be measured with them
	Images   []Image
	Database string // folder in the layout of a Trivy cache
}

// Image is one image of one platform.
type Image struct {
	Repository, Tag string
	Image           v1.Image
}

// Name is repository and tag.
func (i Image) Name() string { return i.Repository + ":" + i.Tag }

// Load puts the small corpus into the registry at host, or the repository's own images where there is no
// corpus. The database is unpacked below dir. say tells what takes long.
func Load(ctx context.Context, host, dir string, say func(string)) (Set, error) {
	source, err := corpus.Small(ctx, func() { say("building the corpus of images, once on this machine: minutes") })
	if errors.Is(err, corpus.ErrNone) {
		return Own(ctx, host, dir)
	}
	if err != nil {
		return Set{}, err
	}
	defer source.Close()
	archive, err := peer.Find("../shared/vulndb/trivy-db.tar.gz")
	if err != nil {
		return Set{}, err
	}
	s := Set{Origin: "the small corpus"}
	for _, n := range source.Names {
		tag, err := name.NewTag(source.Address+"/"+n, name.Insecure)
		if err != nil {
			return Set{}, fmt.Errorf("corpus: %w", err)
		}
		// Of an index, that of linux/amd64, which is everybody's default.
		img, err := remote.Image(tag, remote.WithContext(ctx))
		if err != nil {
			return Set{}, fmt.Errorf("corpus: %s: %w", n, err)
		}
		s.Images = append(s.Images, Image{Repository: tag.RepositoryStr(), Tag: tag.TagStr(), Image: img})
	}
	if s.Images, err = moved(ctx, host, s.Images); err != nil {
		return Set{}, err
	}
	s.Database, err = database(ctx, archive, dir)
	return s, err
}

// Own is Load of the repository's own small images, their database included.
func Own(ctx context.Context, host, dir string) (Set, error) {
	all, err := demodata.Images()
	if err != nil {
		return Set{}, err
	}
	s := Set{Origin: "the repository's own small images", Small: true}
	for _, d := range all {
		if d.Artifact {
			continue
		}
		images, err := d.Images()
		if err != nil {
			return Set{}, err
		}
		s.Images = append(s.Images, Image{Repository: d.Repository, Tag: d.Tag, Image: images[0]})
	}
	if s.Images, err = moved(ctx, host, s.Images); err != nil {
		return Set{}, err
	}
	made := filepath.Join(dir, "made")
	if err := demo.BuildDatabase(ctx, made, time.Now()); err != nil {
		return Set{}, err
	}
	s.Database, err = database(ctx, made, dir)
	return s, err
}

// moved pushes images to a registry and returns them as they are there.
func moved(ctx context.Context, host string, images []Image) ([]Image, error) {
	out := make([]Image, len(images))
	for i, img := range images {
		if err := Push(ctx, host, img); err != nil {
			return nil, err
		}
		tag, err := name.NewTag(host+"/"+img.Name(), name.Insecure)
		if err != nil {
			return nil, fmt.Errorf("push %s: %w", img.Name(), err)
		}
		there, err := remote.Image(tag, remote.WithContext(ctx))
		if err != nil {
			return nil, fmt.Errorf("push %s: %w", img.Name(), err)
		}
		out[i] = Image{Repository: img.Repository, Tag: img.Tag, Image: there}
	}
	return out, nil
}

// database packs and unpacks, as on the way to a scanner.
func database(ctx context.Context, path, dir string) (string, error) {
	packed, err := advisory.Pack(ctx, vulndb.Vulnerabilities, path, dir)
	if err != nil {
		return "", err
	}
	defer packed.Close()
	into := filepath.Join(dir, "database")
	if err := os.MkdirAll(into, 0o700); err != nil {
		return "", fmt.Errorf("unpack database: %w", err)
	}
	return advisory.Unpack(ctx, packed.Pointer, packed, into)
}
