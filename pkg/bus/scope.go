package bus

import (
	"strings"

	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/pkg/image"
)

// unresolved stands for a platform in subjects and keys while it is not known.
const unresolved = "unresolved"

// scope lists a registry host and each component of a repository: the tokens of a subject's or key's
// scope before they are escaped.
func scope(host, repository string) []string {
	return append([]string{host}, strings.Split(repository, "/")...)
}

// assetTokens is scope and leaf of an asset: host, components, track, platform; or cluster, namespace,
// kind, name.
func assetTokens(a finding.Asset) []string {
	if w := a.Workload; w != (finding.Workload{}) {
		return []string{w.Cluster, w.Namespace, w.Kind, w.Name}
	}
	return append(scope(a.Host, a.Repository), a.Track, platformToken(a.Platform))
}

func platformToken(p image.Platform) string {
	if p == (image.Platform{}) {
		return unresolved
	}
	return p.Token()
}

// subjectOf escapes tokens and joins them below a prefix, which is not escaped.
func (b *Bus) subjectOf(prefix string, tokens ...string) string {
	escaped := make([]string, 1, 1+len(tokens))
	escaped[0] = prefix
	for _, t := range tokens {
		escaped = append(escaped, Token(t))
	}
	return b.subject(escaped...)
}
