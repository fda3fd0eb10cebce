package image

import (
	"fmt"
	"strings"
)

const maxPlatformPart = 32

// ParsePlatform reads "os/architecture" or "os/architecture/variant". Each part is up to 32 lower-case
// letters, digits and underscores, which every GOOS and GOARCH is; so a platform makes a safe token.
func ParsePlatform(s string) (Platform, error) {
	parts := strings.SplitN(s, "/", 4)
	if len(parts) != 2 && len(parts) != 3 {
		return Platform{}, fmt.Errorf("platform %q: want os/architecture[/variant]", clip(s))
	}
	for _, p := range parts {
		if !goodPlatformPart(p) {
			return Platform{}, fmt.Errorf("platform %q: bad part %q", clip(s), clip(p))
		}
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

func goodPlatformPart(s string) bool {
	if s == "" || len(s) > maxPlatformPart {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !digit(c) && !lower(c) && c != '_' {
			return false
		}
	}
	return true
}

// String is "linux/arm64/v8"; "" of the zero value.
func (p Platform) String() string { return p.join("/") }

// UnmarshalText reads what ParsePlatform does.
func (p *Platform) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePlatform(string(text))
	return err
}

// MarshalText writes String.
func (p Platform) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Token is "linux-arm64-v8", as it stands in subjects and keys; "" of the zero value.
func (p Platform) Token() string { return p.join("-") }

func (p Platform) join(sep string) string {
	if p == (Platform{}) {
		return ""
	}
	s := p.OS + sep + p.Architecture
	if p.Variant != "" {
		s += sep + p.Variant
	}
	return s
}

// Normal is the platform as it is compared: an architecture's default variant is left out where tools
// write it or not as they like (amd64/v1, arm64/v8), and written where leaving it out means it (arm).
func (p Platform) Normal() Platform {
	switch {
	case p.Architecture == "amd64" && p.Variant == "v1",
		p.Architecture == "arm64" && (p.Variant == "v8" || p.Variant == "8"):
		p.Variant = ""
	case p.Architecture == "arm" && (p.Variant == "" || p.Variant == "7"):
		p.Variant = "v7"
	case p.Architecture == "arm" && (p.Variant == "5" || p.Variant == "6" || p.Variant == "8"):
		p.Variant = "v" + p.Variant
	}
	return p
}
