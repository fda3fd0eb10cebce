// Package image names things in registries: digests, references, platforms, descriptors and the
// analysis-independent facts of a manifest. It parses and formats; it never touches a network.
package image

import (
	"time"
)

// Digest is a content digest in the OCI form "sha256:<64 lower-case hex>". The zero value means
// "unknown". Only sha256 is accepted: it is what registries serve and what every verifier here
// computes. Values from outside come in through ParseDigest.
type Digest string

// Platform is an operating system, an architecture and its variant, as an OCI index lists them.
type Platform struct {
	OS, Architecture, Variant string
}

// Reference says where an image is. Host and Repository are always set; Tag, Digest or both.
type Reference struct {
	Host       string // "registry.example:5000", lower case, never with a scheme
	Repository string // "team-a/api"
	Tag        string // "" when only the digest is known
	Digest     Digest // "" when only the tag is known; of the index when the tag names one
}

// Layer is one layer of an image as its verified manifest and config list it.
type Layer struct {
	Blob      Digest // compressed digest, from the manifest
	DiffID    Digest // uncompressed digest, from the config; believed only after it was verified
	Size      int64  // compressed bytes, as the manifest claims
	MediaType string
	CreatedBy string // the history line that made the layer; "" when the config has none
}

// Image is one platform's image: everything that matching needs beside the layers' facts.
type Image struct {
	Reference        // Digest is of the platform's manifest, never of the index
	Index     Digest // the index it was reached through; "" when the reference named the manifest
	Config    Digest
	Platform  Platform
	Created   time.Time
	Layers    []Layer
}
