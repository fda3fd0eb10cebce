package door

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/pratique-sec/pratique/pkg/image"
)

// Token is one sender's or reader's: where its secret stands, and what that opens.
//
// What it opens is said in patterns. Of repositories: a registry host as references name it, alone for
// all of its repositories ("registry.example:5000", "docker.io"), or with a repository
// ("registry.example/team-a" is team-a and everything below team-a/); "*" is every registry. Of clusters:
// a name, in which a star stands for any run of characters ("prod-*"). An empty list opens nothing.
type Token struct {
	Name   string // what logs call it: letters, digits, dot, dash and underscore
	File   string // the secret in a line; a second line is a second one, while senders are moved to it
	Submit Submit
	Read   []string // repositories whose reports and scans it may read
}

// Submit says what may be sent in.
type Submit struct {
	Events    []string // repositories that notifications may be about
	Scans     []string // repositories of which scans may be asked for
	Manifests []string // clusters that manifests may be posted for
}

const (
	maxName     = 64
	maxCluster  = 253    // bytes
	maxTokens   = 10_000 // configured ones
	maxPatterns = 1000   // of one list
)

// ValidateTokens names everything that is wrong, each with its path below "tokens".
func ValidateTokens(tokens []Token) error {
	var errs []error
	if len(tokens) > maxTokens {
		return fmt.Errorf("tokens: %d of them, at most %d are taken", len(tokens), maxTokens)
	}
	names := map[string]int{}
	for i, t := range tokens {
		at := func(field string, err error) {
			if err != nil {
				errs = append(errs, fmt.Errorf("tokens[%d].%s: %w", i, field, err))
			}
		}
		at("name", checkName(t.Name))
		if first, twice := names[t.Name]; twice && t.Name != "" {
			at("name", fmt.Errorf("%s is the name of tokens[%d] too", t.Name, first))
		}
		names[t.Name] = i
		if t.File == "" {
			at("file", errors.New("name the file that holds the secret"))
		}
		for _, list := range []struct {
			field    string
			patterns []string
			check    func(string) error
		}{
			{"submit.events", t.Submit.Events, checkRepositories},
			{"submit.scans", t.Submit.Scans, checkRepositories},
			{"submit.manifests", t.Submit.Manifests, checkClusters},
			{"read", t.Read, checkRepositories},
		} {
			if len(list.patterns) > maxPatterns {
				at(list.field, fmt.Errorf("%d patterns, at most %d are taken", len(list.patterns), maxPatterns))
				continue
			}
			for k, p := range list.patterns {
				at(fmt.Sprintf("%s[%d]", list.field, k), list.check(p))
			}
		}
		if len(t.Submit.Events)+len(t.Submit.Scans)+len(t.Submit.Manifests)+len(t.Read) == 0 {
			errs = append(errs, fmt.Errorf("tokens[%d]: opens nothing; say what it may submit or read", i))
		}
	}
	return errors.Join(errs...)
}

func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("empty; logs name the sender by it")
	case len(s) > maxName:
		return fmt.Errorf("longer than %d bytes", maxName)
	}
	for i := range len(s) {
		if !nameByte(s[i]) {
			return fmt.Errorf("%q: want letters, digits, dots, dashes and underscores", s)
		}
	}
	return nil
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
}

// every is the pattern of whatever there is.
const every = "*"

func checkRepositories(p string) error {
	if p == every {
		return nil
	}
	host, repository, below := strings.Cut(p, "/")
	if err := image.CheckHost(host); err != nil {
		return fmt.Errorf("%q: want a registry host, host/repository, or * for all: %w", p, err)
	}
	if !below {
		return nil
	}
	if err := image.CheckRepository(repository); err != nil {
		return fmt.Errorf("%q: host/repository covers what is below it without a star or slash at its end: %w", p, err)
	}
	return nil
}

func checkClusters(p string) error {
	if p == "" || len(p) > maxCluster {
		return fmt.Errorf("%q: want a cluster's name of at most %d bytes, with stars for what varies", p, maxCluster)
	}
	for i := range len(p) {
		if !nameByte(p[i]) && p[i] != '*' {
			return fmt.Errorf("%q: want letters, digits, dots, dashes, underscores, and stars for what varies", p)
		}
	}
	return nil
}

// Caller is who a request comes from, and what he may do. All of it is the zero value's, Name aside:
// nothing.
type Caller struct {
	Name string // "" when nobody is asked for a token
	all  bool
	t    Token
}

// MaySubmitEvents tells whether he may tell of what happened to a repository.
func (c *Caller) MaySubmitEvents(host, repository string) bool {
	return c.all || covered(c.t.Submit.Events, host, repository)
}

// MaySubmitScans tells whether he may have a repository's images scanned.
func (c *Caller) MaySubmitScans(host, repository string) bool {
	return c.all || covered(c.t.Submit.Scans, host, repository)
}

// MaySubmitManifests tells whether he may post a cluster's manifests.
func (c *Caller) MaySubmitManifests(cluster string) bool {
	if c.all {
		return true
	}
	for _, p := range c.t.Submit.Manifests {
		if ok, err := path.Match(p, cluster); ok && err == nil && !strings.Contains(cluster, "/") {
			return true
		}
	}
	return false
}

// MayRead tells whether he may read what was found in a repository.
func (c *Caller) MayRead(host, repository string) bool {
	return c.all || covered(c.t.Read, host, repository)
}

// readsAll tells that there is no repository that he may not read.
func (c *Caller) readsAll() bool { return c.MayRead("", "") }

// covered: host and repository are well formed, or empty, which only * covers.
func covered(patterns []string, host, repository string) bool {
	for _, p := range patterns {
		h, prefix, below := strings.Cut(p, "/")
		switch {
		case p == every:
			return true
		case h != host:
		case !below, prefix == repository, strings.HasPrefix(repository, prefix+"/"):
			return true
		}
	}
	return false
}
