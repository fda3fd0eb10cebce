package facts

import (
	"strconv"

	"github.com/pratique-sec/pratique/pkg/key"
)

// WholeHost stands for a repository in PutHolder and Holds: the blob was read to its end from some
// repository of the host. No repository has this name.
const WholeHost = "*"

// VerdictKey is where a refusal is remembered that holds for the bytes themselves, wherever they are:
// they were read to their end and had the digest that was asked for. It is the layer's own key.
func VerdictKey(layerKey string) string { return layerKey }

// SourceVerdictKey is where a refusal is remembered that says nothing about the content, since the
// bytes were not what was asked for, or not there: it holds for this repository only, and another
// image's source is tried. It holds for the claimed compressed size only, too: a manifest that lies
// about it says nothing about one that does not.
func SourceVerdictKey(layerKey, host, repository string, size int64) string {
	return key.Of("verdict.source.v2", layerKey, host, repository, strconv.FormatInt(size, 10))
}
