package build

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/types"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/vulnerability"
)

// precedence of sources for title, description and severity; those not named come last.
var precedence = []types.SourceID{"cve", vulnerability.RubySec, vulnerability.NodejsSecurityWg, vulnerability.GHSA, vulnerability.OSV, vulnerability.GoVulnDB, "cisa-kev"}

func rank(source string) int {
	if i := slices.Index(precedence, types.SourceID(source)); i >= 0 {
		return i
	}
	return len(precedence)
}

// merge makes one record of what several sources say.
func merge(said []Vulnerability) types.Vulnerability {
	said = slices.Clone(said)
	slices.SortStableFunc(said, func(a, b Vulnerability) int {
		return cmp.Or(cmp.Compare(rank(a.Source), rank(b.Source)), cmp.Compare(a.Source, b.Source))
	})
	out := types.Vulnerability{VendorSeverity: types.VendorSeverity{}, CVSS: types.VendorCVSS{}}
	for _, s := range said {
		id := types.SourceID(s.Source)
		out.Title = cmp.Or(out.Title, s.Title)
		out.Description = cmp.Or(out.Description, s.Description)
		if len(out.CweIDs) == 0 {
			out.CweIDs = s.CWEs
		}
		if sev := s.severity(); sev != types.SeverityUnknown {
			out.VendorSeverity[id] = sev
			out.Severity = cmp.Or(out.Severity, sev.String())
		}
		if s.V2Vector+s.V3Vector+s.V40Vector != "" {
			out.CVSS[id] = types.CVSS{
				V2Vector: s.V2Vector, V3Vector: s.V3Vector, V40Vector: s.V40Vector,
				V2Score: s.V2Score, V3Score: s.V3Score, V40Score: s.V40Score,
			}
		}
		out.References = union(out.References, s.References)
		out.PublishedDate = cmp.Or(out.PublishedDate, parseTime(s.Published))
		out.LastModifiedDate = cmp.Or(out.LastModifiedDate, parseTime(s.Modified))
	}
	out.Severity = cmp.Or(out.Severity, types.SeverityUnknown.String())
	slices.Sort(out.References)
	return out
}

func parseTime(s string) *time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() <= 1 {
		return nil
	}
	return &t
}

// severity is the source's own word, else by the newest score that it gives.
func (v Vulnerability) severity() types.Severity {
	if s, err := types.NewSeverity(v.Severity); err == nil && s != types.SeverityUnknown {
		return s
	}
	switch score := cmp.Or(v.V40Score, v.V3Score, v.V2Score); {
	case score >= 9:
		return types.SeverityCritical
	case score >= 7:
		return types.SeverityHigh
	case score >= 4:
		return types.SeverityMedium
	case score > 0:
		return types.SeverityLow
	}
	return types.SeverityUnknown
}

var sources = []struct {
	bucket string // whole, or a prefix that ends with a space
	source types.DataSource
}{
	{"debian ", types.DataSource{ID: vulnerability.Debian, Name: "Debian Security Tracker", URL: "https://salsa.debian.org/security-tracker-team/security-tracker"}},
	{"alpine ", types.DataSource{ID: vulnerability.Alpine, Name: "Alpine Secdb", URL: "https://secdb.alpinelinux.org/"}},
	{"go::The Go Vulnerability Database", types.DataSource{ID: vulnerability.GoVulnDB, Name: "The Go Vulnerability Database", URL: "https://pkg.go.dev/vuln/"}},
	{"pip::Python Packaging Advisory Database", types.DataSource{ID: vulnerability.OSV, Name: "Python Packaging Advisory Database", URL: "https://github.com/pypa/advisory-db"}},
	{"cargo::RustSec Advisory Database", types.DataSource{ID: vulnerability.OSV, Name: "RustSec Advisory Database", URL: "https://github.com/RustSec/advisory-db"}},
	{"rubygems::Ruby Advisory Database", types.DataSource{ID: vulnerability.RubySec, Name: "Ruby Advisory Database", URL: "https://github.com/rubysec/ruby-advisory-db"}},
	{"npm::Node.js Ecosystem Security Working Group", types.DataSource{ID: vulnerability.NodejsSecurityWg, Name: "Node.js Ecosystem Security Working Group", URL: "https://github.com/nodejs/security-wg"}},
}

// sourceOf is the data source that a bucket's advisories come from. Trivy picks severities by it.
func sourceOf(bucket string) (types.DataSource, error) {
	for _, s := range sources {
		if s.bucket == bucket || strings.HasSuffix(s.bucket, " ") && strings.HasPrefix(bucket, s.bucket) {
			return s.source, nil
		}
	}
	if _, ecosystem, ok := strings.Cut(bucket, "::GitHub Security Advisory "); ok {
		return types.DataSource{
			ID: vulnerability.GHSA, Name: "GitHub Security Advisory " + ecosystem,
			URL: "https://github.com/advisories?query=type%3Areviewed+ecosystem%3A" + strings.ToLower(ecosystem),
		}, nil
	}
	return types.DataSource{}, fmt.Errorf("bucket %q: its data source is not known here", bucket)
}
