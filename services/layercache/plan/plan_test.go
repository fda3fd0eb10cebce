package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// Media types as the tools write them.
const (
	ociConfig     = "application/vnd.oci.image.config.v1+json"
	dockerConfig  = "application/vnd.docker.container.image.v1+json"
	ociLayer      = "application/vnd.oci.image.layer.v1.tar+gzip"
	dockerLayer   = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerForeign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	ociForeign    = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
)

// repository is a registry that answers with whatever was put into it, under whatever digest.
type repository struct {
	manifests map[image.Digest][]byte
	blobs     map[image.Digest][]byte
	reads     int
}

func newRepository() *repository {
	return &repository{manifests: map[image.Digest][]byte{}, blobs: map[image.Digest][]byte{}}
}

func (r *repository) Manifest(_ context.Context, _, _ string, d image.Digest) ([]byte, string, error) {
	r.reads++
	b, ok := r.manifests[d]
	if !ok {
		return nil, "", reason.Refusef(reason.NotFound, "no manifest %s", d)
	}
	return b, "", nil
}

func (r *repository) Config(_ context.Context, _, _ string, d image.Digest, _ int64) ([]byte, error) {
	b, ok := r.blobs[d]
	if !ok {
		return nil, reason.Refusef(reason.BlobMissing, "no blob %s", d)
	}
	return b, nil
}

func (r *repository) HasBlob(_ context.Context, _, _ string, d image.Digest) (bool, error) {
	_, ok := r.blobs[d]
	return ok, nil
}

type object = map[string]any

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r *repository) manifest(t testing.TB, v any) image.Digest {
	t.Helper()
	b := encode(t, v)
	d := image.DigestOf(b)
	r.manifests[d] = b
	return d
}

func (r *repository) blob(b []byte) image.Digest {
	d := image.DigestOf(b)
	r.blobs[d] = b
	return d
}

func layerOf(mediaType, content string) object {
	return object{"mediaType": mediaType, "digest": image.DigestOf([]byte(content)), "size": len(content)}
}

func diffIDs(n int) []image.Digest {
	var out []image.Digest
	for i := range n {
		out = append(out, image.DigestOf(fmt.Appendf(nil, "diff %d", i)))
	}
	return out
}

func (r *repository) config(t testing.TB, mediaType string, v any) object {
	t.Helper()
	b := encode(t, v)
	return object{"mediaType": mediaType, "digest": r.blob(b), "size": len(b)}
}

func amd64Config(n int) object {
	return object{"os": "linux", "architecture": "amd64", "rootfs": object{"diff_ids": diffIDs(n)}}
}

// image puts an image with n layers and answers its manifest's digest.
func (r *repository) image(t testing.TB, config object, layers ...object) image.Digest {
	t.Helper()
	return r.manifest(t, object{
		"schemaVersion": 2, "mediaType": ociManifest,
		"config": r.config(t, ociConfig, config), "layers": layers,
	})
}

func (r *repository) open(t testing.TB, d image.Digest, platforms ...string) (Plan, error) {
	t.Helper()
	if len(platforms) == 0 {
		platforms = []string{"linux/amd64"}
	}
	return Open(t.Context(), r, image.Reference{Host: "r.example", Repository: "a/b", Tag: "1", Digest: d}, Want{Platforms: parsePlatforms(t, platforms)})
}

func parsePlatforms(t testing.TB, names []string) []image.Platform {
	t.Helper()
	var out []image.Platform
	for _, s := range names {
		p, err := image.ParsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func TestOpenClassifies(t *testing.T) {
	tests := []struct {
		name   string
		config string
		layers []string
		other  string // "": an image
	}{
		{name: "OCI image", config: ociConfig, layers: []string{ociLayer}},
		{name: "OCI image, zstd", config: ociConfig, layers: []string{"application/vnd.oci.image.layer.v1.tar+zstd"}},
		{name: "OCI image, plain tar", config: ociConfig, layers: []string{"application/vnd.oci.image.layer.v1.tar"}},
		{name: "OCI image, encrypted", config: ociConfig, layers: []string{ociLayer + "+encrypted"}},
		{name: "Docker image", config: dockerConfig, layers: []string{dockerLayer}},
		{name: "Docker image, foreign base", config: dockerConfig, layers: []string{dockerForeign, dockerLayer}},
		{name: "image without layers", config: ociConfig},
		{name: "old Docker image, octet-stream config", config: "application/octet-stream", layers: []string{dockerLayer}},
		{name: "layer beside an unknown one", config: ociConfig, layers: []string{"application/x-odd", ociLayer}},

		{name: "cosign signature", config: ociConfig, layers: []string{"application/vnd.dev.cosign.simplesigning.v1+json"}, other: "application/vnd.dev.cosign.simplesigning.v1+json"},
		{name: "BuildKit attestation", config: ociConfig, layers: []string{"application/vnd.in-toto+json"}, other: "application/vnd.in-toto+json"},
		{name: "SBOM by cosign", config: ociConfig, layers: []string{"text/spdx+json"}, other: "text/spdx+json"},
		{name: "Helm chart", config: "application/vnd.cncf.helm.config.v1+json", layers: []string{"application/vnd.cncf.helm.chart.content.v1.tar+gzip"}, other: "application/vnd.cncf.helm.config.v1+json"},
		{name: "ORAS artifact", config: "application/vnd.oci.empty.v1+json", layers: []string{"application/vnd.example.data"}, other: "application/vnd.oci.empty.v1+json"},
		{name: "old ORAS artifact with an image's layer type", config: "application/vnd.unknown.config.v1+json", layers: []string{ociLayer}, other: "application/vnd.unknown.config.v1+json"},
		{name: "notation signature", config: "application/vnd.cncf.notary.signature", layers: []string{"application/jose+json"}, other: "application/vnd.cncf.notary.signature"},
		{name: "Docker plugin", config: "application/vnd.docker.plugin.v1+json", layers: []string{dockerLayer}, other: "application/vnd.docker.plugin.v1+json"},
		{name: "WASM module", config: "application/vnd.wasm.config.v1+json", layers: []string{"application/vnd.wasm.content.layer.v1+wasm"}, other: "application/vnd.wasm.config.v1+json"},
		{name: "SIF", config: "application/vnd.sylabs.sif.config.v1+json", layers: []string{"application/vnd.sylabs.sif.layer.v1.sif"}, other: "application/vnd.sylabs.sif.config.v1+json"},
		{name: "Flux bundle", config: "application/vnd.cncf.flux.config.v1+json", layers: []string{"application/vnd.cncf.flux.content.v1.tar+gzip"}, other: "application/vnd.cncf.flux.config.v1+json"},
		{name: "build cache", config: "application/vnd.buildkit.cacheconfig.v0", layers: []string{ociLayer}, other: "application/vnd.buildkit.cacheconfig.v0"},
		{name: "vague config without layers", config: "application/json", other: "application/json"},
	}
	for _, tt := range tests {
		// Neither decides: an image may have a subject, and an artifact need not.
		for _, subject := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, subject %v", tt.name, subject), func(t *testing.T) {
				r := newRepository()
				m := object{"schemaVersion": 2, "mediaType": ociManifest, "config": r.config(t, tt.config, amd64Config(len(tt.layers)))}
				layers := []object{}
				for _, mt := range tt.layers {
					l := layerOf(mt, mt)
					if isForeign(mt) {
						r.blob([]byte(mt))
					}
					layers = append(layers, l)
				}
				m["layers"] = layers
				if subject {
					m["subject"] = layerOf(ociManifest, "subject")
				}
				p, err := r.open(t, r.manifest(t, m))
				if err != nil {
					t.Fatal(err)
				}
				if got := p.Image != nil; got != (tt.other == "") || p.Other != tt.other {
					t.Errorf("image %v, other %q; want other %q", got, p.Other, tt.other)
				}
			})
		}
	}
}

func TestOpenImage(t *testing.T) {
	r := newRepository()
	ids := diffIDs(2)
	config := object{
		"os": "Linux", "architecture": "arm64", "variant": "v8", "created": "2026-01-02T03:04:05+01:00",
		"rootfs": object{"diff_ids": ids},
		"history": []object{
			{"created_by": "/bin/sh -c #(nop) ADD file:1 in / "},
			{"created_by": "/bin/sh -c #(nop)  CMD [\"bash\"]", "empty_layer": true},
			{"created_by": "RUN /bin/sh -c apt-get update # buildkit"},
		},
	}
	a, b := layerOf(ociLayer, "one"), layerOf(ociLayer, "two")
	d := r.image(t, config, a, b)
	p, err := r.open(t, d)
	if err != nil {
		t.Fatal(err)
	}
	want := &image.Image{
		Reference: image.Reference{Host: "r.example", Repository: "a/b", Tag: "1", Digest: d},
		Config:    image.DigestOf(encode(t, config)),
		Platform:  image.Platform{OS: "linux", Architecture: "arm64"},
		Created:   time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC),
		Layers: []image.Layer{
			{Blob: image.DigestOf([]byte("one")), DiffID: ids[0], Size: 3, MediaType: ociLayer, CreatedBy: "ADD file:1 in / "},
			{Blob: image.DigestOf([]byte("two")), DiffID: ids[1], Size: 3, MediaType: ociLayer, CreatedBy: "RUN /bin/sh -c apt-get update # buildkit"},
		},
	}
	if diff := cmp.Diff(want, p.Image); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
}

func TestHistoryThatDoesNotFitSaysNothing(t *testing.T) {
	config := amd64Config(2)
	config["history"] = []object{{"created_by": "RUN one"}}
	c, err := parseConfig(encode(t, config))
	if err != nil {
		t.Fatal(err)
	}
	if c.createdBy != nil {
		t.Errorf("createdBy %q, want none", c.createdBy)
	}
}

func TestHistoryLinesAreCutBetweenCharacters(t *testing.T) {
	line := strings.Repeat("a", maxCreatedBy-1) + "é" + "tail"
	got := createdBy([]historyLine{{CreatedBy: line}}, 1)[0]
	if want := line[:maxCreatedBy-1]; got != want {
		t.Errorf("%d bytes ending in %q, want %d", len(got), got[len(got)-4:], len(want))
	}
}

func entry(mediaType string, d image.Digest, platform string) object {
	e := object{"mediaType": mediaType, "digest": d, "size": 100}
	if platform != "" {
		parts := strings.SplitN(platform, "/", 3)
		p := object{"os": parts[0], "architecture": parts[1]}
		if len(parts) == 3 {
			p["variant"] = parts[2]
		}
		e["platform"] = p
	}
	return e
}

func (r *repository) index(t testing.TB, entries ...object) image.Digest {
	t.Helper()
	return r.manifest(t, object{"schemaVersion": 2, "mediaType": ociIndex, "manifests": entries})
}

func fake(s string) image.Digest { return image.DigestOf([]byte(s)) }

func TestOpenIndex(t *testing.T) {
	attestation := entry(ociManifest, fake("attestation"), "unknown/unknown")
	attestation["annotations"] = object{attestationKey: attestationValue}

	tests := []struct {
		name    string
		entries []object
		want    []string
		also    []string
		strict  bool
		take    []string // platform=digest name
		reason  reason.Code
	}{
		{name: "takes what is wanted", want: []string{"linux/amd64"},
			entries: []object{entry(ociManifest, fake("a"), "linux/amd64"), entry(ociManifest, fake("b"), "linux/arm64"), attestation},
			take:    []string{"linux/amd64=a"}},
		{name: "takes several, in the order asked", want: []string{"linux/arm64", "linux/amd64"},
			entries: []object{entry(ociManifest, fake("a"), "linux/amd64"), entry(ociManifest, fake("b"), "linux/arm64/v8")},
			take:    []string{"linux/arm64=b", "linux/amd64=a"}},
		{name: "takes the first of two", want: []string{"windows/amd64"},
			entries: []object{entry(ociManifest, fake("a"), "windows/amd64"), entry(ociManifest, fake("b"), "windows/amd64")},
			take:    []string{"windows/amd64=a"}},
		{name: "an exact variant before another", want: []string{"linux/arm"},
			entries: []object{entry(ociManifest, fake("5"), "linux/arm/v5"), entry(ociManifest, fake("7"), "linux/arm/v7")},
			take:    []string{"linux/arm/v7=7"}},
		{name: "any variant when none is asked for", want: []string{"linux/arm"},
			entries: []object{entry(ociManifest, fake("6"), "linux/arm/v6")},
			take:    []string{"linux/arm/v6=6"}},
		{name: "no other variant than the one asked for", want: []string{"linux/arm/v7"},
			entries: []object{entry(ociManifest, fake("6"), "linux/arm/v6")},
			reason:  reason.NoPlatform},
		{name: "what was judged before is taken too", want: []string{"linux/amd64"}, also: []string{"linux/arm64", "linux/s390x"},
			entries: []object{entry(ociManifest, fake("a"), "linux/amd64"), entry(ociManifest, fake("b"), "linux/arm64")},
			take:    []string{"linux/amd64=a", "linux/arm64=b"}},
		{name: "one of the configured ones is enough", want: []string{"linux/amd64", "linux/arm64"},
			entries: []object{entry(ociManifest, fake("b"), "linux/arm64")},
			take:    []string{"linux/arm64=b"}},
		{name: "all that were asked for are needed", want: []string{"linux/amd64", "linux/arm64"}, strict: true,
			entries: []object{entry(ociManifest, fake("b"), "linux/arm64")},
			reason:  reason.NoPlatform},
		{name: "no platform", want: []string{"linux/amd64"},
			entries: []object{entry(ociManifest, fake("b"), "linux/arm64"), attestation},
			reason:  reason.NoPlatform},
		{name: "a platform that is none is nobody's", want: []string{"linux/amd64"},
			entries: []object{entry(ociManifest, fake("x"), "li*nux/amd64"), entry(ociManifest, fake("a"), "linux/amd64")},
			take:    []string{"linux/amd64=a"}},
		{name: "bad digest", want: []string{"linux/amd64"},
			entries: []object{entry(ociManifest, "sha256:short", "linux/amd64")},
			reason:  reason.Malformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRepository()
			ref := image.Reference{Host: "r.example", Repository: "a/b", Digest: r.index(t, tt.entries...)}
			p, err := Open(t.Context(), r, ref, Want{Platforms: parsePlatforms(t, tt.want), Also: parsePlatforms(t, tt.also), Strict: tt.strict})
			if tt.reason != "" {
				wantRefused(t, err, tt.reason)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got, want []string
			for _, c := range p.Index.Children {
				got = append(got, c.Platform.String()+"="+c.Digest.Hex())
			}
			for _, s := range tt.take {
				platform, name, _ := strings.Cut(s, "=")
				want = append(want, platform+"="+fake(name).Hex())
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("children (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIndexWithoutPlatformsIsReadThrough(t *testing.T) {
	r := newRepository()
	img := r.image(t, amd64Config(1), layerOf(ociLayer, "l"))
	signature := r.image(t, amd64Config(1), layerOf("application/vnd.in-toto+json", "s"))
	p, err := r.open(t, r.index(t, entry(ociManifest, signature, ""), entry("", img, "")))
	if err != nil {
		t.Fatal(err)
	}
	want := &Index{
		Children: []Child{{Platform: image.Platform{OS: "linux", Architecture: "amd64"}, Digest: img}},
		Listed:   []image.Platform{{OS: "linux", Architecture: "amd64"}},
	}
	if diff := cmp.Diff(want, p.Index); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
}

func TestNestedIndex(t *testing.T) {
	r := newRepository()
	inner := r.index(t, entry(ociManifest, fake("a"), "linux/amd64"))
	middle := r.index(t, entry(ociIndex, inner, ""))
	outer := r.index(t, entry(ociIndex, middle, ""))
	p, err := r.open(t, outer)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Index.Children; len(got) != 1 || got[0].Digest != fake("a") {
		t.Errorf("children %v", got)
	}
	_, err = r.open(t, r.index(t, entry(ociIndex, outer, "")))
	wantRefused(t, err, reason.IndexCycle)
}

func TestIndexWithoutImagesIsNone(t *testing.T) {
	r := newRepository()
	p, err := r.open(t, r.index(t,
		entry(ociLayer, fake("layer"), ""), // BuildKit's cache lists layers
		entry("application/vnd.buildkit.cacheconfig.v0", fake("config"), "")))
	if err != nil || p.Other == "" {
		t.Errorf("plan %+v, %v; want no image", p, err)
	}
}

func TestHostileShapes(t *testing.T) {
	tests := []struct {
		name   string
		make   func(t *testing.T, r *repository) image.Digest
		reason reason.Code
	}{
		{"index inside itself", func(t *testing.T, r *repository) image.Digest {
			a, b := fake("a"), fake("b")
			r.manifests[a] = encode(t, object{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []object{entry(ociIndex, b, "")}})
			r.manifests[b] = encode(t, object{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []object{entry(ociIndex, a, "")}})
			return a
		}, reason.IndexCycle},
		{"deep index", func(t *testing.T, r *repository) image.Digest {
			d := r.image(t, amd64Config(1), layerOf(ociLayer, "l"))
			mt := ociManifest
			for range 2000 {
				d, mt = r.index(t, entry(mt, d, "linux/amd64")), ociIndex
			}
			return d
		}, reason.IndexCycle},
		{"wide index", func(t *testing.T, r *repository) image.Digest {
			var es []object
			for i := range maxWidth + 1 {
				es = append(es, entry(ociManifest, fake(fmt.Sprint(i)), fmt.Sprintf("linux/arch%d", i)))
			}
			return r.index(t, es...)
		}, reason.OverBound},
		{"very wide index", func(t *testing.T, r *repository) image.Digest {
			d := fake("wide")
			r.manifests[d] = []byte(`{"schemaVersion":2,"manifests":[{}` + strings.Repeat(",{}", maxManifest/4) + `]}`)
			return d
		}, reason.OverBound},
		{"wide through nesting", func(t *testing.T, r *repository) image.Digest {
			var es []object
			for i := range 300 {
				es = append(es, entry(ociManifest, fake(fmt.Sprint(i)), fmt.Sprintf("linux/arch%d", i)))
			}
			a := r.index(t, es...)
			b := r.index(t, append(es, entry(ociManifest, fake("x"), "linux/x"))...)
			return r.index(t, entry(ociIndex, a, ""), entry(ociIndex, b, ""))
		}, reason.OverBound},
		{"index that must be read through, wide", func(t *testing.T, r *repository) image.Digest {
			var es []object
			for i := range maxOpened + 1 {
				es = append(es, entry(ociManifest, r.image(t, amd64Config(1), layerOf(ociLayer, fmt.Sprint(i))), ""))
			}
			return r.index(t, es...)
		}, reason.OverBound},
		{"too many layers", func(t *testing.T, r *repository) image.Digest {
			var ls []object
			for i := range maxLayers + 1 {
				ls = append(ls, layerOf(ociLayer, fmt.Sprint(i)))
			}
			return r.image(t, amd64Config(len(ls)), ls...)
		}, reason.OverBound},
		{"the same layer too often", func(t *testing.T, r *repository) image.Digest {
			var ls []object
			for range 5000 {
				ls = append(ls, layerOf(ociLayer, "one"))
			}
			return r.image(t, amd64Config(len(ls)), ls...)
		}, reason.OverBound},
		{"fewer diffIDs than layers", func(t *testing.T, r *repository) image.Digest {
			l := layerOf(ociLayer, "l")
			return r.image(t, amd64Config(1), l, l, l)
		}, reason.Malformed},
		{"more diffIDs than layers", func(t *testing.T, r *repository) image.Digest {
			return r.image(t, amd64Config(2), layerOf(ociLayer, "l"))
		}, reason.Malformed},
		{"very many diffIDs", func(t *testing.T, r *repository) image.Digest {
			body := []byte(`{"rootfs":{"diff_ids":[""` + strings.Repeat(`,""`, maxEntries) + `]}}`)
			return r.manifest(t, object{"schemaVersion": 2, "config": object{"mediaType": ociConfig, "digest": r.blob(body), "size": len(body)}, "layers": []object{layerOf(ociLayer, "l")}})
		}, reason.OverBound},
		{"diffID that is none", func(t *testing.T, r *repository) image.Digest {
			return r.image(t, object{"rootfs": object{"diff_ids": []string{"sha256:x"}}}, layerOf(ociLayer, "l"))
		}, reason.Malformed},
		{"layer digest that is none", func(t *testing.T, r *repository) image.Digest {
			return r.image(t, amd64Config(1), object{"mediaType": ociLayer, "digest": "../../etc/passwd", "size": 1})
		}, reason.Malformed},
		{"negative layer size", func(t *testing.T, r *repository) image.Digest {
			l := layerOf(ociLayer, "l")
			l["size"] = -1
			return r.image(t, amd64Config(1), l)
		}, reason.Malformed},
		{"huge layer size", func(t *testing.T, r *repository) image.Digest {
			l := layerOf(ociLayer, "l")
			l["size"] = int64(maxLayerSize) + 1
			return r.image(t, amd64Config(1), l)
		}, reason.OverBound},
		{"one blob with two sizes", func(t *testing.T, r *repository) image.Digest {
			a, b := layerOf(ociLayer, "l"), layerOf(ociLayer, "l")
			b["size"] = 7
			return r.image(t, amd64Config(2), a, b)
		}, reason.Malformed},
		{"foreign layer that is elsewhere", func(t *testing.T, r *repository) image.Digest {
			l := layerOf(dockerForeign, "foreign")
			l["urls"] = []string{"http://127.0.0.1:9/secret", "file:///etc/passwd"}
			return r.image(t, amd64Config(1), l)
		}, reason.ForeignLayer},
		{"OCI foreign layer that is elsewhere", func(t *testing.T, r *repository) image.Digest {
			return r.image(t, amd64Config(1), layerOf(ociForeign, "foreign"))
		}, reason.ForeignLayer},
		{"huge config", func(t *testing.T, r *repository) image.Digest {
			return r.manifest(t, object{"schemaVersion": 2, "config": object{"mediaType": ociConfig, "digest": fake("c"), "size": maxConfig + 1}, "layers": []object{layerOf(ociLayer, "l")}})
		}, reason.OverBound},
		{"cut config", func(t *testing.T, r *repository) image.Digest {
			body := []byte(`{"architecture":"amd64","rootfs":{"type":"layers","diff_ids":[`)
			return r.manifest(t, object{"schemaVersion": 2, "config": object{"mediaType": ociConfig, "digest": r.blob(body), "size": len(body)}, "layers": []object{layerOf(ociLayer, "l")}})
		}, reason.Malformed},
		{"cut manifest", func(t *testing.T, r *repository) image.Digest {
			r.manifests[fake("m")] = []byte(`{"schemaVersion":2,"config":`)
			return fake("m")
		}, reason.Malformed},
		{"not JSON", func(t *testing.T, r *repository) image.Digest {
			r.manifests[fake("m")] = []byte("<html>")
			return fake("m")
		}, reason.Malformed},
		{"huge manifest", func(t *testing.T, r *repository) image.Digest {
			r.manifests[fake("m")] = make([]byte, maxManifest+1)
			return fake("m")
		}, reason.OverBound},
		{"both index and image", func(t *testing.T, r *repository) image.Digest {
			return r.manifest(t, object{"schemaVersion": 2, "mediaType": ociManifest, "config": layerOf(ociConfig, "c"),
				"layers": []object{layerOf(ociLayer, "l")}, "manifests": []object{entry(ociManifest, fake("a"), "linux/amd64")}})
		}, reason.Malformed},
		{"index by type, image by shape", func(t *testing.T, r *repository) image.Digest {
			return r.manifest(t, object{"schemaVersion": 2, "mediaType": ociIndex, "config": layerOf(ociConfig, "c"), "layers": []object{}})
		}, reason.Malformed},
		{"unknown manifest type", func(t *testing.T, r *repository) image.Digest {
			return r.manifest(t, object{"schemaVersion": 2, "mediaType": "application/x", "config": layerOf(ociConfig, "c")})
		}, reason.Malformed},
		{"schema 1", func(t *testing.T, r *repository) image.Digest {
			return r.manifest(t, object{"schemaVersion": 1, "name": "a/b", "fsLayers": []object{{"blobSum": fake("l")}}})
		}, reason.Malformed},
		{"index that lists an index as an image", func(t *testing.T, r *repository) image.Digest {
			return r.index(t, entry(ociManifest, r.index(t, entry(ociManifest, fake("a"), "linux/amd64")), ""))
		}, reason.Malformed},
		{"platform that is none", func(t *testing.T, r *repository) image.Digest {
			c := amd64Config(1)
			c["os"] = "linux.>"
			return r.image(t, c, layerOf(ociLayer, "l"))
		}, reason.Malformed},
		{"no manifest", func(*testing.T, *repository) image.Digest { return fake("nowhere") }, reason.NotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRepository()
			d := tt.make(t, r)
			_, err := r.open(t, d)
			wantRefused(t, err, tt.reason)
			if r.reads > maxOpened+1 {
				t.Errorf("%d manifests were read", r.reads)
			}
		})
	}
}

func TestForeignLayerThatTheRegistryHolds(t *testing.T) {
	r := newRepository()
	r.blob([]byte("foreign"))
	p, err := r.open(t, r.image(t, amd64Config(1), layerOf(ociForeign, "foreign")))
	if err != nil || p.Image == nil {
		t.Errorf("plan %+v, %v; want an image", p, err)
	}
}

func TestConfigWithoutPlatform(t *testing.T) {
	r := newRepository()
	p, err := r.open(t, r.image(t, object{"rootfs": object{"diff_ids": diffIDs(1)}}, layerOf(ociLayer, "l")))
	if err != nil {
		t.Fatal(err)
	}
	if p.Image.Platform != Unknown {
		t.Errorf("platform %v", p.Image.Platform)
	}
}

func TestOpenKeepsTheRegistrysDecision(t *testing.T) {
	r := newRepository()
	d := r.manifest(t, object{"schemaVersion": 2, "config": layerOf(ociConfig, "gone"), "layers": []object{layerOf(ociLayer, "l")}})
	_, err := r.open(t, d)
	wantRefused(t, err, reason.BlobMissing)
}

func wantRefused(t *testing.T, err error, code reason.Code) {
	t.Helper()
	var e *reason.Error
	if !errors.As(err, &e) || e.Kind != reason.Refuse || e.Code != code {
		t.Errorf("error %v, want a refusal with %s", err, code)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"x"},"layers":[{"size":1}]}`))
	f.Add([]byte(`{"os":"linux","rootfs":{"diff_ids":["sha256:0"]},"history":[{"created_by":"x"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if m, err := parseManifest(body, ""); err == nil {
			_ = m.notAnImage()
			_, _ = m.layers()
		}
		if c, err := parseConfig(body); err == nil && c.createdBy != nil && len(c.createdBy) != len(c.diffIDs) {
			t.Errorf("%d history lines for %d layers", len(c.createdBy), len(c.diffIDs))
		}
	})
}
