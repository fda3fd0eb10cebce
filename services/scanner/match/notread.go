package match

import (
	"slices"
	"strings"

	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/report"
)

// notRead gathers what was not understood in any layer. A package database that a later layer removes or
// replaces is named, but says nothing about the image.
func notRead(layers []facts.Layer, blobs []ftypes.BlobInfo) []report.NotRead {
	var out []report.NotRead
	for i, l := range layers {
		for _, n := range l.NotRead {
			n.Packages = n.Packages && !slices.ContainsFunc(blobs[i+1:], func(b ftypes.BlobInfo) bool { return covers(b, n.Path) })
			out = append(out, report.NotRead{NotRead: n, DiffID: l.DiffID})
		}
	}
	return out
}

// covers tells whether a layer has a file of its own at path, or hides the one below.
func covers(b ftypes.BlobInfo, path string) bool {
	if slices.ContainsFunc(b.PackageInfos, func(p ftypes.PackageInfo) bool { return p.FilePath == path }) {
		return true
	}
	if slices.ContainsFunc(b.WhiteoutFiles, func(w string) bool { return w == path || strings.HasPrefix(path, w+"/") }) {
		return true
	}
	return slices.ContainsFunc(b.OpaqueDirs, func(dir string) bool { return strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") })
}
