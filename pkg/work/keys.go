package work

import (
	"slices"
	"strconv"

	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/key"
)

// unresolved stands in an image id for the platform of a job whose reference may name an index.
const unresolved = "unresolved"

// ImageID names an image job: host, repository, tag, digest and platform. A push and a delete of the
// same reference are one job, since the planner asks the registry what is true.
func ImageID(j ImageJob) string {
	platform := unresolved
	if j.Platform != nil {
		platform = j.Platform.String()
	}
	r := j.Reference
	return key.Of("image.v1", r.Host, r.Repository, r.Tag, string(r.Digest), platform)
}

// LayerKey names the analysis of a blob: its digest and everything else that facts depend on.
func LayerKey(blob image.Digest, analysis string) string {
	return key.Of("layer.v1", string(blob), analysis)
}

// MatchKey names a judgement: the image, whose findings it decides, and what it is judged on.
func MatchKey(j MatchJob) string {
	asset := make([]string, 4) // all empty: a report only
	if a := j.Asset; a != nil {
		asset = []string{a.Host, a.Repository, a.Track, a.Platform.String()}
	}
	return key.Of("match.v1",
		string(j.Image.Digest), j.Image.Platform.String(),
		asset[0], asset[1], asset[2], asset[3], strconv.FormatUint(j.Generation, 10),
		j.Database, j.Analysis, j.Close)
}

// Upper bounds of the cost classes, in compressed bytes.
const (
	maxXS = 1 << 20
	maxS  = 10 << 20
	maxM  = 100 << 20
)

// ClassOf predicts the cost class of a layer from its compressed size in bytes.
func ClassOf(size int64) Class {
	switch {
	case size <= maxXS:
		return XS
	case size <= maxS:
		return S
	case size <= maxM:
		return M
	default:
		return L
	}
}

// Higher tells whether l is served before o. An unknown lane is below all others.
func (l Lane) Higher(o Lane) bool { return l.rank() < o.rank() }

func (l Lane) rank() int {
	if i := slices.Index(Lanes, l); i >= 0 {
		return i
	}
	return len(Lanes)
}
