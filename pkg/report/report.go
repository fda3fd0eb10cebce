// Package report is the full truth about one image on one database: what is in it, what is known
// about that, where it came from, and what could not be read.
package report

import (
	"time"

	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

// Outcome is how an evaluation ended.
type Outcome string

const (
	Clean    Outcome = "clean"    // read whole, nothing known against it
	Findings Outcome = "findings" // read whole, something is known against it
	Partial  Outcome = "partial"  // some package database could not be read: never clean, resolves nothing
	Failed   Outcome = "failed"   // not evaluated: Reason says why
	Skipped  Outcome = "skipped"  // not an image: noted, never scanned
	Closed   Outcome = "closed"   // the image is gone: its findings were resolved
)

// Severity orders vulnerabilities. The zero value is "unknown".
type Severity int

const (
	Unknown Severity = iota
	Low
	Medium
	High
	Critical
)

func (s Severity) String() string {
	return [...]string{"unknown", "low", "medium", "high", "critical"}[min(max(s, 0), Critical)]
}

// ParseSeverity reads what String writes.
func ParseSeverity(s string) (Severity, bool) {
	for of := Unknown; of <= Critical; of++ {
		if of.String() == s {
			return of, true
		}
	}
	return Unknown, false
}

// Database names the advisories that a report was judged on.
type Database struct {
	Digest    string // content digest, "sha256:…"
	UpdatedAt time.Time
	Sequence  uint64 // order in which databases were loaded here; a later one never yields to an earlier
}

// Engine names the program that read and judged.
type Engine struct {
	Version  string // Pratique's
	Trivy    string // "0.74.0"
	Analysis string // the analysis id that the facts were made with
	JavaDB   string // content digest of the Java index; "" when there is none
}

// Report is the current knowledge of an image digest on a platform.
type Report struct {
	Image    image.Image
	Outcome  Outcome
	Reason   reason.Code // Failed only
	Detail   string      // Failed only, for people
	OS       OS
	Results  []Result
	NotRead  []NotRead
	Database Database
	Engine   Engine
	Created  time.Time
}

// OS is the distribution that the image's packages belong to.
type OS struct {
	Family, Name string // "debian", "12.5"
	EndOfLife    bool
	Extended     bool   // under an extended support programme: Ubuntu ESM, Debian ELTS
	Repository   string // "family release" that the packages come from, where it is another; "" usually
}

// NotRead is a file of one layer that was not understood.
type NotRead struct {
	facts.NotRead
	DiffID image.Digest
}

// Result is one source of packages: the OS package database, or one kind of language package at one
// place. It mirrors a Trivy result, without its Target where that would name the artifact.
type Result struct {
	Class           string // "os-pkgs", "lang-pkgs"
	Type            string // "debian", "gobinary", "node-pkg", …
	Target          string // path of the file that holds the packages; "" for OS packages
	Packages        []Package
	Vulnerabilities []Vulnerability
}

// Package is an installed package.
type Package struct {
	ID, Name, Version     string // Version as the ecosystem prints it, with epoch and release
	Source, SourceVersion string // the source package, where there is one
	Arch                  string
	Path                  string // the file it was read from, when that is not the result's Target
	PURL                  string
	Licenses              []string
	Layer                 image.Digest // diffID of the layer that put it there
	CreatedBy             string
	Indirect              bool

	// What follows carries no judgement; it is kept so that Trivy's own report can be written from ours.

	UID          string // Trivy's hash of the package and its place
	Maintainer   string
	Modularity   string // Red Hat's module label
	Origin       string // class of the repository it came from: "official", "third-party", ""
	Relationship string // "root", "workspace", "direct", "indirect", ""
	DependsOn    []string
	AnalyzedBy   string // analyzer that found it: "dpkg", "jar", …
}

// Vulnerability is one advisory that affects one installed package.
type Vulnerability struct {
	ID                      string
	Aliases                 []string // other ids of it, by the database's own cross references, sorted
	VendorIDs               []string // as the database lists them: DSA-…, GHSA-…
	PkgID, Package, Version string
	Path                    string
	PURL                    string
	Fixed                   string // "" when there is no fix
	Status                  string // Trivy's: "fixed", "affected", "will_not_fix", …
	Severity                Severity
	SeveritySource          string
	Title, Description      string
	URL                     string
	References              []string
	CWEs                    []string
	CVSS                    map[string]CVSS // by source id
	Published, Modified     time.Time
	Source                  string // id of the advisory's data source
	SourceBase              string // id of the data source that Source builds on; "" usually
	SourceName, SourceURL   string
	VendorSeverities        map[string]Severity // by source id
	UID                     string              // of the package
	Layer                   image.Digest
	CreatedBy               string
}

// CVSS holds one source's scores; a zero score means none.
type CVSS struct {
	V2Vector, V3Vector, V40Vector string
	V2Score, V3Score, V40Score    float64
}

// Counts are vulnerabilities by severity.
type Counts struct{ Critical, High, Medium, Low, Unknown int }

// Count adds up a report's vulnerabilities.
func (r *Report) Count() Counts {
	var c Counts
	for _, res := range r.Results {
		for i := range res.Vulnerabilities {
			c.Add(res.Vulnerabilities[i].Severity)
		}
	}
	return c
}

// Add counts one more.
func (c *Counts) Add(s Severity) {
	switch s {
	case Critical:
		c.Critical++
	case High:
		c.High++
	case Medium:
		c.Medium++
	case Low:
		c.Low++
	default:
		c.Unknown++
	}
}

// Total is the sum over all severities.
func (c Counts) Total() int { return c.Critical + c.High + c.Medium + c.Low + c.Unknown }
