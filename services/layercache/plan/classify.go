package plan

import (
	"slices"
	"strings"
)

// Media types of manifests. Both families, OCI's and Docker's, are in use side by side.
const (
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	schema1Prefix  = "application/vnd.docker.distribution.manifest.v1+" // json and prettyjws
)

// imageConfigs are the config types of images.
var imageConfigs = []string{
	"application/vnd.oci.image.config.v1+json",
	"application/vnd.docker.container.image.v1+json",
}

// vagueConfigs were written by old tools and registries for image configs, and say nothing: the layers
// must. Docker pulls such images.
var vagueConfigs = []string{"", "application/octet-stream", "application/json", "text/html"}

// Layer types begin with one of these: a file system's changes, whatever their compression. The
// foreign ones may be kept outside the registry.
var (
	layerPrefixes = []string{
		"application/vnd.oci.image.layer.",
		"application/vnd.docker.image.rootfs.",
	}
	foreignPrefixes = []string{
		"application/vnd.oci.image.layer.nondistributable.",
		"application/vnd.docker.image.rootfs.foreign.",
	}
)

// notAnImage returns "" for an image's manifest, else the media type that shows that it is none.
//
// An image has an image's config and file-system layers. Signatures and attestations have an image's
// config too, but no such layer. One file-system layer is enough: what a runtime would unpack must not
// hide behind an odd neighbour, which then fails when it is read. A `subject` or `artifactType`
// decides nothing: a real image may have either.
func (m manifest) notAnImage() string {
	config := m.Config.MediaType
	if !slices.Contains(imageConfigs, config) && !slices.Contains(vagueConfigs, config) {
		return config
	}
	for _, l := range m.Layers {
		if isLayer(l.MediaType) {
			return ""
		}
	}
	if len(m.Layers) > 0 {
		return orUnnamed(m.Layers[0].MediaType)
	}
	if slices.Contains(vagueConfigs, config) {
		return orUnnamed(config)
	}
	return "" // an image without files
}

func isLayer(mediaType string) bool   { return hasPrefix(mediaType, layerPrefixes) }
func isForeign(mediaType string) bool { return hasPrefix(mediaType, foreignPrefixes) }

func hasPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

func orUnnamed(mediaType string) string {
	if mediaType == "" {
		return "no media type"
	}
	return mediaType
}

// isIndexType and isManifestType tell what an index's entry claims to be. An entry without a type
// counts as a manifest; anything else (a build cache lists layers in an index) is neither.
func isIndexType(mediaType string) bool { return mediaType == ociIndex || mediaType == dockerIndex }

func isManifestType(mediaType string) bool {
	return mediaType == ociManifest || mediaType == dockerManifest || mediaType == ""
}
