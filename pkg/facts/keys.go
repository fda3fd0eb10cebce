package facts

import "github.com/pratique-sec/pratique/pkg/key"

// VerdictKey is where a refusal is remembered that holds for the bytes themselves, wherever they are:
// they were read to their end and had the digest that was asked for. It is the layer's own key.
func VerdictKey(layerKey string) string { return layerKey }

// SourceVerdictKey is where a refusal is remembered that says nothing about the content, since the
// bytes were not what was asked for, or not there: it holds for this repository only, and another
// image's source is tried.
func SourceVerdictKey(layerKey, host, repository string) string {
	return key.Of("verdict.source.v1", layerKey, host, repository)
}
