package psaauditor

import (
	"cmp"
	"slices"

	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/services/psaauditor/manifest"
)

// maxOwners bounds how far owners are followed. A pod of a CronJob has two above it.
const maxOwners = 8

// workload is an asset and the objects of a set that speak for it.
type workload struct {
	asset   finding.Asset
	objects []manifest.Object
}

// workloads groups a set's objects by what a person would name: their controller, as far up as the set or
// its owner references lead. When that is in the set its own template speaks for it, and not the pods and
// replica sets of before; else what it made does.
func workloads(set manifest.Set, m event.Manifests) []workload {
	identity := func(namespace, kind, name string) finding.Workload {
		return finding.Workload{Cluster: m.Cluster, Namespace: cmp.Or(namespace, m.Namespace), Kind: kind, Name: name}
	}
	owners := map[finding.Workload]*manifest.Owner{} // of what is in the set
	for _, o := range set.Objects {
		owners[identity(o.Namespace, o.Kind, o.Name)] = o.Owner
	}
	type members struct{ self, made []manifest.Object }
	groups := map[finding.Workload]*members{}
	for _, o := range set.Objects {
		own := identity(o.Namespace, o.Kind, o.Name)
		top := own
		for range maxOwners {
			owner := owners[top]
			if owner == nil {
				break
			}
			top = identity(o.Namespace, owner.Kind, owner.Name)
		}
		g := groups[top]
		if g == nil {
			g = &members{}
			groups[top] = g
		}
		if top == own {
			g.self = append(g.self, o)
		} else {
			g.made = append(g.made, o)
		}
	}
	out := make([]workload, 0, len(groups))
	for w, g := range groups {
		speak := g.self
		if len(speak) == 0 {
			speak = g.made
		}
		out = append(out, workload{finding.Asset{Workload: w}, speak})
	}
	slices.SortFunc(out, func(a, b workload) int {
		x, y := a.asset.Workload, b.asset.Workload
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name))
	})
	return out
}
