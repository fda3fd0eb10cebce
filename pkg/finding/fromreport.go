package finding

import (
	"cmp"
	"slices"
	"strings"

	"github.com/pratique-sec/pratique/pkg/report"
)

// FromReport turns a report's vulnerabilities into an asset's findings, sorted by ID, with neither
// revision nor times. Several advisories that name one vulnerability of one package, and several
// installed versions of a package at one place, are one finding: it has the highest severity, all
// versions, and all fixes.
func FromReport(a Asset, r *report.Report) []Finding {
	places := map[place][]report.Vulnerability{}
	for _, res := range r.Results {
		for _, v := range res.Vulnerabilities {
			p := placeOf(res, v.Package, v.Version, v.Path)
			places[p] = append(places[p], v)
		}
	}
	var out []Finding
	for p, vulns := range places {
		for _, group := range groupByAlias(vulns) {
			out = append(out, merge(a, p, group))
		}
	}
	slices.SortFunc(out, func(x, y Finding) int { return cmp.Compare(x.ID, y.ID) })
	return out
}

// place is where a package is: what remains of it over versions and layers.
type place struct{ typ, pkg, path string }

// osPackages is the class of results whose packages have no path: the OS package database lists them.
const osPackages = "os-pkgs"

func placeOf(res report.Result, pkg, version, path string) place {
	if path == "" {
		path = res.Target
	}
	if res.Class == osPackages {
		path = ""
	}
	return place{res.Type, pkg, StablePath(path, version)}
}

// group is one vulnerability of one package: all ids that name it, and the advisories.
type group struct {
	ids     []string
	members []report.Vulnerability
}

// groupByAlias joins vulnerabilities that share an id that names one vulnerability, directly or through
// others.
func groupByAlias(vulns []report.Vulnerability) []group {
	parent := make([]int, len(vulns))
	for i := range parent {
		parent[i] = i
	}
	find := func(i int) int {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	first := map[string]int{} // id → the first vulnerability that has it
	for i, v := range vulns {
		for _, id := range idsOf(v) {
			if j, seen := first[id]; seen {
				parent[find(i)] = find(j)
			} else {
				first[id] = i
			}
		}
	}
	byRoot := map[int]*group{}
	for i, v := range vulns {
		g := byRoot[find(i)]
		if g == nil {
			g = &group{}
			byRoot[find(i)] = g
		}
		g.ids = append(g.ids, idsOf(v)...)
		g.members = append(g.members, v)
	}
	out := make([]group, 0, len(byRoot))
	for _, g := range byRoot {
		out = append(out, *g)
	}
	return out // in no order: FromReport sorts
}

// idsOf are the ids that name the vulnerability: its own, whatever that is, and its aliases.
func idsOf(v report.Vulnerability) []string {
	ids := []string{v.ID}
	for _, list := range [][]string{v.Aliases, v.VendorIDs} {
		for _, id := range list {
			if IsAlias(id) && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

func merge(a Asset, p place, g group) Finding {
	id, aliases := Canonical(g.ids)
	// The first speaks for all: the advisory that bears the name, else the worst; the rest of the order
	// only makes the choice the same each time.
	slices.SortFunc(g.members, func(x, y report.Vulnerability) int {
		return cmp.Or(
			-compareBool(x.ID == id, y.ID == id),
			-cmp.Compare(x.Severity, y.Severity),
			cmp.Compare(x.ID, y.ID),
			cmp.Compare(x.Version, y.Version),
			cmp.Compare(x.PkgID, y.PkgID),
			cmp.Compare(x.Path, y.Path),
			cmp.Compare(x.Layer, y.Layer),
			cmp.Compare(x.CreatedBy, y.CreatedBy),
			cmp.Compare(x.Fixed, y.Fixed),
			cmp.Compare(x.Status, y.Status),
			cmp.Compare(x.Title, y.Title),
			cmp.Compare(x.URL, y.URL),
		)
	})
	lead := g.members[0]
	f := Finding{
		ID:    ID(a, ClassVuln, id, p.typ, p.pkg, p.path),
		Class: ClassVuln, Vulnerability: id, Aliases: aliases,
		Type: p.typ, Package: p.pkg, Path: p.path,
		Title: lead.Title, URL: lead.URL, Layer: lead.Layer, CreatedBy: lead.CreatedBy,
		Fixed: joinFixes(g.members), Status: joinStatuses(g.members),
	}
	for _, v := range g.members {
		f.Severity = max(f.Severity, v.Severity)
		f.Versions = append(f.Versions, v.Version)
	}
	slices.Sort(f.Versions)
	f.Versions = slices.Compact(f.Versions)
	return f
}

func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	default:
		return -1
	}
}

// fixSeparator stands between the versions that fix one vulnerability in several release lines.
const fixSeparator = ", "

// joinFixes keeps one answer as it is, and makes of several the list of all that they name.
func joinFixes(members []report.Vulnerability) string {
	var whole, each []string
	for _, v := range members {
		if v.Fixed == "" || slices.Contains(whole, v.Fixed) {
			continue
		}
		whole = append(whole, v.Fixed)
		for s := range strings.SplitSeq(v.Fixed, fixSeparator) {
			if s = strings.TrimSpace(s); s != "" {
				each = append(each, s)
			}
		}
	}
	if len(whole) == 1 {
		return whole[0]
	}
	slices.Sort(each)
	return strings.Join(slices.Compact(each), fixSeparator)
}

// statuses in the order in which one decides for a merged finding: what one can act on first.
var statuses = []string{"fixed", "affected", "will_not_fix", "fix_deferred", "under_investigation", "end_of_life"}

func joinStatuses(members []report.Vulnerability) string {
	rank := func(s string) int {
		if i := slices.Index(statuses, s); i >= 0 {
			return i
		}
		return len(statuses)
	}
	best := members[0].Status
	for _, v := range members[1:] {
		if cmp.Or(cmp.Compare(rank(v.Status), rank(best)), cmp.Compare(v.Status, best)) < 0 {
			best = v.Status
		}
	}
	return best
}
