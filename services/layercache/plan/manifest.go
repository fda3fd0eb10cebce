package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

type kind int

const (
	kindManifest kind = iota
	kindIndex
)

// manifest is the part of a manifest or index that planning needs.
type manifest struct {
	kind kind

	SchemaVersion int              `json:"schemaVersion"`
	MediaType     string           `json:"mediaType"`
	Config        descriptor       `json:"config"`
	Layers        list[descriptor] `json:"layers"`
	Manifests     list[descriptor] `json:"manifests"`
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform"`
	Annotations map[string]string `json:"annotations"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

// parse makes a platform that is safe to use as a token, lower case and normal.
func (p platform) parse() (image.Platform, error) {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	parsed, err := image.ParsePlatform(strings.ToLower(s))
	if err != nil {
		return image.Platform{}, err
	}
	return parsed.Normal(), nil
}

// parseManifest decodes a body and decides by its own mediaType, else by the registry's, else by its
// shape, what it is. A body that could be read as either is refused: two readers would see two images.
func parseManifest(body []byte, served string) (manifest, error) {
	var m manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return m, err
	}
	if m.SchemaVersion == 1 || strings.HasPrefix(m.MediaType, schema1Prefix) {
		return m, errors.New("schemaVersion 1: its layers have no verifiable digests; push the image again with a current tool")
	}
	if m.SchemaVersion != 2 {
		return m, fmt.Errorf("schemaVersion %d, want 2", m.SchemaVersion)
	}
	hasLayers := m.Layers != nil || m.Config.Digest != ""
	if hasLayers && m.Manifests != nil {
		return m, errors.New("both an index (manifests) and an image (config, layers)")
	}
	declared := m.MediaType
	if declared == "" {
		declared, _, _ = strings.Cut(served, ";")
	}
	switch {
	case isIndexType(declared):
		m.kind = kindIndex
	case declared == ociManifest, declared == dockerManifest:
		m.kind = kindManifest
	case m.MediaType != "":
		return m, fmt.Errorf("mediaType %q: neither an index nor an image manifest", clip(m.MediaType))
	case m.Manifests != nil:
		m.kind = kindIndex
	default:
		m.kind = kindManifest
	}
	if m.kind == kindIndex && hasLayers || m.kind == kindManifest && m.Manifests != nil {
		return m, fmt.Errorf("its shape contradicts its media type %q", clip(declared))
	}
	if m.kind == kindManifest && m.Config.Digest == "" {
		return m, errors.New("config.digest: missing")
	}
	return m, nil
}

// layers checks and converts the list. A blob may be listed many times, but it has one size.
func (m manifest) layers() ([]image.Layer, error) {
	if len(m.Layers) > maxLayers {
		return nil, reason.Refusef(reason.OverBound, "layers: %d, at most %d", len(m.Layers), maxLayers)
	}
	sizes := make(map[image.Digest]int64, len(m.Layers))
	out := make([]image.Layer, 0, len(m.Layers))
	for i, l := range m.Layers {
		d, err := image.ParseDigest(l.Digest)
		if err != nil {
			return nil, reason.Refusef(reason.Malformed, "layers[%d].%w", i, err)
		}
		if l.Size < 0 {
			return nil, reason.Refusef(reason.Malformed, "layers[%d].size: %d", i, l.Size)
		}
		if l.Size > maxLayerSize {
			return nil, reason.Refusef(reason.OverBound, "layers[%d].size: %d bytes, at most %d", i, l.Size, int64(maxLayerSize))
		}
		if before, ok := sizes[d]; ok && before != l.Size {
			return nil, reason.Refusef(reason.Malformed, "layers[%d].size: %d, and %d where the same blob is listed before", i, l.Size, before)
		}
		sizes[d] = l.Size
		out = append(out, image.Layer{Blob: d, Size: l.Size, MediaType: clip(l.MediaType)})
	}
	return out, nil
}

// list is a JSON array of at most maxEntries values. A few megabytes of "{},{},…" would otherwise
// become some hundreds in memory.
type list[T any] []T

func (l *list[T]) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return errors.New("want an array")
	}
	out := []T{}
	for dec.More() {
		if len(out) == maxEntries {
			return errTooMany
		}
		var v T
		if err := dec.Decode(&v); err != nil {
			return err
		}
		out = append(out, v)
	}
	*l = out
	return nil
}

var errTooMany = fmt.Errorf("an array of more than %d entries", maxEntries)

// clip keeps hostile text from flooding messages and records.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
