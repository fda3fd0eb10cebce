package finding

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/pratique-sec/pratique/pkg/key"
)

// aliasPrefixes begin the ids that name one vulnerability, so that two of them can name the same one.
// Ids of vendor advisories (DSA-, DLA-, RHSA-, ELSA-, USN-, ALAS, …) are not among them: each covers
// several vulnerabilities, and would melt these into one.
var aliasPrefixes = []string{"CVE-", "GHSA-", "GO-", "RUSTSEC-", "PYSEC-", "OSV-", "GSD-", "MAL-", "BIT-", "PSF-", "RSEC-", "HSEC-", "JLSEC-"}

// IsAlias tells whether an id names one vulnerability.
func IsAlias(id string) bool {
	return slices.ContainsFunc(aliasPrefixes, func(p string) bool { return strings.HasPrefix(id, p) })
}

// Canonical picks from the ids of one vulnerability the one that names it, and returns the others,
// sorted and each once: the lowest CVE by year and number, else the lowest GHSA, else the lowest other.
func Canonical(ids []string) (id string, others []string) {
	all := slices.DeleteFunc(slices.Clone(ids), func(s string) bool { return s == "" })
	slices.SortFunc(all, compareIDs)
	all = slices.Compact(all)
	if len(all) == 0 {
		return "", nil
	}
	id, others = all[0], slices.Clone(all[1:])
	slices.Sort(others)
	if len(others) == 0 {
		others = nil
	}
	return id, others
}

func compareIDs(a, b string) int {
	ac, bc := parseCVE(a), parseCVE(b)
	if c := cmp.Compare(kindOf(a, ac.ok), kindOf(b, bc.ok)); c != 0 {
		return c
	}
	if ac.ok && bc.ok {
		if c := cmp.Or(cmp.Compare(ac.year, bc.year), compareDecimal(ac.number, bc.number)); c != 0 {
			return c
		}
	}
	return cmp.Compare(a, b)
}

func kindOf(id string, isCVE bool) int {
	switch {
	case isCVE:
		return 0
	case strings.HasPrefix(id, "GHSA-"):
		return 1
	default:
		return 2
	}
}

type cve struct {
	year, number string
	ok           bool
}

func parseCVE(id string) cve {
	rest, found := strings.CutPrefix(id, "CVE-")
	if !found {
		return cve{}
	}
	year, number, found := strings.Cut(rest, "-")
	if !found || len(year) != 4 || number == "" || strings.Trim(year+number, "0123456789") != "" {
		return cve{}
	}
	return cve{year, number, true}
}

// compareDecimal orders digit strings of any length by value.
func compareDecimal(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// ID is a finding's identity: whose it is and what is wrong where, without version, layer or database.
// path is a stable one, see StablePath.
func ID(a Asset, c Class, vulnerability, typ, pkg, path string) string {
	return key.Of("finding.v1",
		a.Host, a.Repository, a.Track, a.Platform.String(), string(c), vulnerability, typ, pkg, path)
}

// EventID names one transition of a finding.
func EventID(id string, revision uint64) string {
	return key.Of("delta.v1", id, strconv.FormatUint(revision, 10))
}

// ScanID names one evaluation: of whom (an asset, or a reference where there is none), of what, on
// which database and which loading of it, for whom, and how it ended.
func ScanID(s Scan) string {
	if a := s.Asset; a != nil && a.Workload != (Workload{}) {
		return workloadScanID(s, a.Workload)
	}
	kind, host, repository, leaf, platform := "reference", s.Reference.Host, s.Reference.Repository, s.Reference.Tag, s.Platform.String()
	if a := s.Asset; a != nil {
		kind, host, repository, leaf, platform = "asset", a.Host, a.Repository, a.Track, a.Platform.String()
	}
	return key.Of("scan.v1", kind, host, repository, leaf, platform,
		string(s.Reference.Digest), strconv.FormatUint(s.Generation, 10), s.Database.Digest, strconv.FormatUint(s.Database.Sequence, 10), string(s.Outcome), s.Request)
}

// StablePath is a package's path as it stands in identities: where the path holds the installed
// version as a part of its own ("lib/log4j-core-2.14.1.jar", "foo-1.0.dist-info/METADATA"), it is
// written "*". Otherwise each upgrade would close one finding and open another.
func StablePath(path, version string) string {
	const least = 3 // "1" or "v2" may stand in a path for anything
	if len(version) < least || !strings.ContainsAny(version, "0123456789") {
		return path
	}
	var b strings.Builder
	for at := 0; ; {
		i := strings.Index(path[at:], version)
		if i < 0 {
			b.WriteString(path[at:])
			return b.String()
		}
		start, end := at+i, at+i+len(version)
		if endsNumber(path[:start]) || startsNumber(path[end:]) {
			b.WriteString(path[at : start+1])
			at = start + 1
			continue
		}
		b.WriteString(path[at:start] + "*")
		at = end
	}
}

// endsNumber tells whether what precedes a version belongs to it: "1" or "1." before "2.0", but not a
// "v".
func endsNumber(s string) bool {
	s, dot := strings.CutSuffix(s, ".")
	if s == "" {
		return false
	}
	c := s[len(s)-1]
	return c >= '0' && c <= '9' || !dot && c != 'v' && isLetter(c)
}

// startsNumber tells the same of what follows: "1" or ".1", but not ".jar".
func startsNumber(s string) bool {
	s, dot := strings.CutPrefix(s, ".")
	if s == "" {
		return false
	}
	c := s[0]
	return c >= '0' && c <= '9' || !dot && isLetter(c)
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
