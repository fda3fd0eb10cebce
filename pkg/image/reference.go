package image

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of what a name from outside may be. Repository and tag are the distribution
// specification's, the host's is DNS's.
const (
	maxHost       = 255
	maxRepository = 255
	maxTag        = 128
)

// What a name without a host means, as every container tool has it.
const (
	defaultHost      = "docker.io"
	legacyHost       = "index.docker.io"
	defaultNamespace = "library"
	defaultTag       = "latest"
)

// ParseReference reads what people write: "nginx", "nginx:1.25", "team/app@sha256:…",
// "registry.example:5000/team/app:v1@sha256:…". A first component without a dot, a colon or upper-case
// letters that is not "localhost" is no host: docker.io is meant, and "library" where there is only
// one component. Without tag and digest the tag is "latest".
func ParseReference(s string) (Reference, error) {
	const most = maxHost + maxRepository + maxTag + 100
	if len(s) > most {
		return Reference{}, fmt.Errorf("reference %q: longer than %d bytes", clip(s), most)
	}
	if strings.Contains(s, "://") {
		return Reference{}, fmt.Errorf("reference %q: write it without a scheme", clip(s))
	}
	var r Reference
	name := s
	if before, after, found := strings.Cut(name, "@"); found {
		d, err := ParseDigest(after)
		if err != nil {
			return Reference{}, fmt.Errorf("reference %q: %w", clip(s), err)
		}
		name, r.Digest = before, d
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, r.Tag = name[:i], name[i+1:]
		if r.Tag == "" {
			return Reference{}, fmt.Errorf("reference %q: nothing after the colon", clip(s))
		}
	} else if r.Digest == "" {
		r.Tag = defaultTag
	}
	r.Host, r.Repository = splitHost(name)
	if err := r.Validate(); err != nil {
		return Reference{}, fmt.Errorf("reference %q: %w", clip(s), err)
	}
	return r, nil
}

func splitHost(name string) (host, repository string) {
	first, rest, found := strings.Cut(name, "/")
	if found && (strings.ContainsAny(first, ".:") || first == "localhost" || strings.ToLower(first) != first) {
		host, repository = strings.ToLower(first), rest
	} else {
		host, repository = defaultHost, name
	}
	if host == legacyHost {
		host = defaultHost
	}
	if host == defaultHost && !strings.Contains(repository, "/") {
		repository = defaultNamespace + "/" + repository
	}
	return host, repository
}

// Validate tells whether every part that is set is well formed. Host and Repository must be set; what
// comes in pieces (an event) is checked with it before anything else is done with it.
func (r Reference) Validate() error {
	if err := CheckHost(r.Host); err != nil {
		return err
	}
	if err := CheckRepository(r.Repository); err != nil {
		return err
	}
	if r.Tag != "" {
		if err := CheckTag(r.Tag); err != nil {
			return err
		}
	}
	if r.Digest != "" {
		if _, err := ParseDigest(string(r.Digest)); err != nil {
			return err
		}
	}
	return nil
}

// Name is "host/repository".
func (r Reference) Name() string { return r.Host + "/" + r.Repository }

// String is "host/repository[:tag][@digest]", which ParseReference reads back.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// CheckHost accepts a lower-case host name, IPv4 address or bracketed IPv6 address, with or without a
// port.
func CheckHost(s string) error {
	if s == "" {
		return errors.New("host: empty")
	}
	if len(s) > maxHost {
		return fmt.Errorf("host %q: longer than %d bytes", clip(s), maxHost)
	}
	name, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return fmt.Errorf("host %q: bracket not closed", clip(s))
		}
		a, err := netip.ParseAddr(s[1:end])
		if err != nil || !a.Is6() || a.Zone() != "" || strings.ToLower(s) != s {
			return fmt.Errorf("host %q: not an IPv6 address", clip(s))
		}
		name = ""
		port = s[end+1:]
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		name, port = s[:i], s[i:]
		if name == "" {
			return fmt.Errorf("host %q: nothing before the port", clip(s))
		}
	}
	if port != "" && !goodPort(port) {
		return fmt.Errorf("host %q: bad port", clip(s))
	}
	if name == "" {
		return nil
	}
	for label := range strings.SplitSeq(name, ".") {
		if !goodLabel(label) {
			return fmt.Errorf("host %q: want lower-case letters, digits, dots and inner hyphens", clip(s))
		}
	}
	return nil
}

func goodPort(s string) bool {
	digits, found := strings.CutPrefix(s, ":")
	if !found || digits == "" || !digit(digits[0]) {
		return false
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	return err == nil && n > 0
}

func goodLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !digit(c) && !lower(c) && c != '-' {
			return false
		}
	}
	return true
}

// CheckRepository accepts a repository name of the distribution specification: components of lower-case
// letters and digits, joined inside by one dot, one or two underscores or hyphens; 255 bytes in all.
func CheckRepository(s string) error {
	if s == "" {
		return errors.New("repository: empty")
	}
	if len(s) > maxRepository {
		return fmt.Errorf("repository %q: longer than %d bytes", clip(s), maxRepository)
	}
	for c := range strings.SplitSeq(s, "/") {
		if !goodComponent(c) {
			return fmt.Errorf("repository %q: bad component %q", clip(s), clip(c))
		}
	}
	return nil
}

func goodComponent(s string) bool {
	alnum := func(c byte) bool { return digit(c) || lower(c) }
	if s == "" || !alnum(s[0]) || !alnum(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if alnum(s[i]) {
			i++
			continue
		}
		start := i
		for i < len(s) && !alnum(s[i]) {
			i++
		}
		sep := s[start:i]
		if sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
	}
	return true
}

// CheckTag accepts a tag of the distribution specification: up to 128 letters, digits, underscores,
// dots and hyphens, not beginning with a dot or hyphen.
func CheckTag(s string) error {
	if s == "" {
		return errors.New("tag: empty")
	}
	if len(s) > maxTag {
		return fmt.Errorf("tag %q: longer than %d bytes", clip(s), maxTag)
	}
	for i := range len(s) {
		c := s[i]
		if digit(c) || lower(c) || upper(c) || c == '_' || i > 0 && (c == '.' || c == '-') {
			continue
		}
		return fmt.Errorf("tag %q: bad character %q", clip(s), c)
	}
	return nil
}
