package demodata

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is something to push: an image, or an index of images.
type Image struct {
	Repository, Tag string
	Image           v1.Image      // nil when Index is set
	Index           v1.ImageIndex // nil when Image is set
	Artifact        bool          // no image, but what a registry holds beside images: a signature
}

// Name is repository and tag.
func (i Image) Name() string { return i.Repository + ":" + i.Tag }

// Images are the one image, or those of the index.
func (i Image) Images() ([]v1.Image, error) {
	if i.Index == nil {
		return []v1.Image{i.Image}, nil
	}
	m, err := i.Index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("demodata: %s: %w", i.Name(), err)
	}
	var all []v1.Image
	for _, d := range m.Manifests {
		img, err := i.Index.Image(d.Digest)
		if err != nil {
			return nil, fmt.Errorf("demodata: %s: %w", i.Name(), err)
		}
		all = append(all, img)
	}
	return all, nil
}

// What the dependencies of the two teams are, before and after somebody looked at their findings.
var (
	nodeOld   = []string{"axios@0.18.0", "express@4.16.0", "handlebars@4.0.11", "lodash@4.17.4", "minimist@1.2.0", "moment@2.19.2", "qs@6.5.1"}
	nodeNew   = []string{"axios@1.6.8", "express@4.19.2", "handlebars@4.7.8", "lodash@4.17.21", "minimist@1.2.8", "moment@2.29.4", "qs@6.11.0"}
	pythonOld = []string{"Jinja2-3.1.2", "PyYAML-5.3.1", "Werkzeug-2.2.2", "certifi-2022.9.24", "requests-2.28.1", "urllib3-1.26.5"}
)

// Images are the images of the demo's first day: eight platform images in seven repositories' tags,
// most of whose layers are shared, and a signature.
func Images() ([]Image, error) {
	var b builder
	debian := b.layer(bookworm("12.11"))
	node := b.layer(nodeModules(nodeOld...))
	python := b.layer(sitePackages(pythonOld...))
	static := b.layer(distroless("12.11", "base-files", "libc6", "libssl3", "tzdata", "zlib1g"))

	storefront := b.image("amd64", debian, node, b.layer(program("storefront", "1.0")))
	return b.done(
		Image{Repository: "shop/storefront", Tag: "1.0", Image: storefront},
		Image{Repository: "shop/worker", Tag: "1.0", Image: b.image("amd64", debian, node, b.layer(program("worker", "1.0")))},
		Image{Repository: "shop/reports", Tag: "1.0", Image: b.image("amd64", debian, python, b.layer(program("reports", "1.0")))},
		Image{Repository: "shop/checkout", Tag: "2.3", Image: b.image("amd64", debian, python, b.layer(program("checkout", "2.3")))},
		Image{Repository: "edge/api", Tag: "1.0", Index: b.index(
			b.image("amd64", static, b.layer(goProgram("1.0.0", "amd64"))),
			b.image("arm64", static, b.layer(goProgram("1.0.0", "arm64"))),
		)},
		Image{Repository: "tools/toolbox", Tag: "3.4", Image: b.image("amd64", b.layer(alpine("3.4", "3.4.0")))},
		Image{Repository: "tools/shell", Tag: "3.10", Image: b.image("amd64", b.layer(alpine("3.10", "3.10.4")))},
		Image{Repository: "shop/storefront", Tag: b.signatureTag(storefront), Image: b.signature(storefront), Artifact: true},
	)
}

// Rebuilt is the second day: the same tag, rebuilt on the updated base with updated dependencies.
func Rebuilt() ([]Image, error) {
	var b builder
	return b.done(Image{Repository: "shop/storefront", Tag: "1.0", Image: b.image("amd64",
		b.layer(bookworm("12.15")), b.layer(nodeModules(nodeNew...)), b.layer(program("storefront", "1.0")))})
}

// builder keeps the first error, so that a list of images reads as one.
type builder struct{ err error }

func (b *builder) done(images ...Image) ([]Image, error) {
	if b.err != nil {
		return nil, b.err
	}
	return images, nil
}

func (b *builder) fail(err error) bool {
	if b.err == nil && err != nil {
		b.err = err
	}
	return b.err != nil
}

func (b *builder) layer(l layer, err error) layer {
	b.fail(err)
	return l
}

func (b *builder) image(architecture string, layers ...layer) v1.Image {
	if b.err != nil {
		return nil
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	created := v1.Time{Time: Built}
	for _, l := range layers {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{Layer: l.Layer, History: v1.History{Created: created, CreatedBy: l.createdBy}})
		if b.fail(err) {
			return nil
		}
	}
	cfg, err := img.ConfigFile()
	if b.fail(err) {
		return nil
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Created = "linux", architecture, created
	img, err = mutate.ConfigFile(img, cfg)
	b.fail(err)
	return img
}

func (b *builder) index(images ...v1.Image) v1.ImageIndex {
	if b.err != nil {
		return nil
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range images {
		cfg, err := img.ConfigFile()
		if b.fail(err) {
			return nil
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: cfg.OS, Architecture: cfg.Architecture},
		}})
	}
	return index
}

// signatureTag is where cosign puts the signature of an image.
func (b *builder) signatureTag(of v1.Image) string {
	if b.err != nil {
		return ""
	}
	d, err := of.Digest()
	b.fail(err)
	return "sha256-" + d.Hex + ".sig"
}

// signature has the shape of a cosign signature: an image manifest whose layer is no layer.
func (b *builder) signature(of v1.Image) v1.Image {
	if b.err != nil {
		return nil
	}
	d, err := of.Digest()
	if b.fail(err) {
		return nil
	}
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, d)
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{
		Layer:       static.NewLayer(payload, "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": "bm90IGEgcmVhbCBzaWduYXR1cmU="},
	})
	b.fail(err)
	return img
}
