package track

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// A pattern is a tag with placeholders:
//
//	{name}    anything a tag may hold, kept in the track
//	{sha}     7 to 40 lower-case hex digits, at least one of them 0-9
//	{date}    YYYYMMDD of 1970 or later, with or without hhmm or hhmmss
//	{number}  1 to 20 digits
//
// What {sha}, {date} and {number} stand for is written "*" in the track. No tag holds an asterisk, so
// a family never meets a tag.
var placeholders = map[string]struct {
	expr string
	kept bool
}{
	"name":   {`[A-Za-z0-9_][A-Za-z0-9._-]*`, true},
	"sha":    {`[0-9a-f]{7,40}`, false},
	"date":   {`(?:19[7-9][0-9]|20[0-9][0-9])(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:(?:[01][0-9]|2[0-3])[0-5][0-9](?:[0-5][0-9])?)?`, false},
	"number": {`[0-9]{1,20}`, false},
}

const (
	maxPatterns = 64
	maxPattern  = 256
)

// defaults of version 1. They are part of every finding's identity: proto/golden/ids.json freezes what
// they do, and a change is a migration. They are few on purpose. A family that was missed costs an
// asset too many; a family that is none hides an image that is still in use behind one that has
// nothing to do with it. So versions ("1.25", "release-5"), pull requests ("pr-12") and plain hashes,
// which come from any branch, each stay a track of their own.
var defaults = []string{
	"{name}-{date}-{sha}",
	"{name}-{sha}",
	"{name}-{date}",
}

// Patterns map tags to tracks. The zero value makes every tag a track of its own.
type Patterns struct{ list []pattern }

type pattern struct {
	re   *regexp.Regexp
	keep []part // what the track is made of
	sha  []int  // groups that must hold a decimal digit, lest "my-defaced" be a hash
}

type part struct {
	literal string
	group   int // 0: literal
}

// Default returns the patterns of version 1: "<name>-<sha>", "<name>-<date>" and
// "<name>-<date>-<sha>" are families.
func Default() Patterns {
	p, err := Parse(defaults)
	if err != nil {
		panic("track: the default patterns are ours: " + err.Error())
	}
	return p
}

// Parse compiles patterns; the first that matches a tag decides. Errors name the pattern.
func Parse(patterns []string) (Patterns, error) {
	if len(patterns) > maxPatterns {
		return Patterns{}, fmt.Errorf("track patterns: %d, at most %d", len(patterns), maxPatterns)
	}
	var out Patterns
	for _, s := range patterns {
		p, err := parse(s)
		if err != nil {
			return Patterns{}, fmt.Errorf("track pattern %q: %w", s, err)
		}
		out.list = append(out.list, p)
	}
	return out, nil
}

func parse(s string) (pattern, error) {
	if len(s) > maxPattern {
		return pattern{}, fmt.Errorf("longer than %d bytes", maxPattern)
	}
	var p pattern
	var expr strings.Builder
	group, moves := 0, false
	for rest := s; rest != ""; {
		literal, after, found := strings.Cut(rest, "{")
		if strings.ContainsAny(literal, "}*") {
			return pattern{}, errors.New("a brace that was not opened, or an asterisk")
		}
		expr.WriteString(regexp.QuoteMeta(literal))
		p.keep = append(p.keep, part{literal: literal})
		if !found {
			break
		}
		name, after, closed := strings.Cut(after, "}")
		holder, known := placeholders[name]
		if !closed || !known {
			return pattern{}, fmt.Errorf("unknown placeholder {%s}: want {name}, {sha}, {date} or {number}", name)
		}
		group++
		expr.WriteString("(" + holder.expr + ")")
		if holder.kept {
			p.keep = append(p.keep, part{group: group})
		} else {
			p.keep = append(p.keep, part{literal: "*"})
			moves = true
		}
		if name == "sha" {
			p.sha = append(p.sha, group)
		}
		rest = after
	}
	if !moves {
		return pattern{}, errors.New("nothing in it moves: use {sha}, {date} or {number}")
	}
	re, err := regexp.Compile("^" + expr.String() + "$")
	if err != nil {
		return pattern{}, err
	}
	p.re = re
	return p, nil
}

// Of names the track of a tag and tells whether it is a family, whose members follow each other. A tag
// that no pattern matches is its own track.
func (p Patterns) Of(tag string) (name string, family bool) {
	for _, pat := range p.list {
		if name, ok := pat.match(tag); ok {
			return name, true
		}
	}
	return tag, false
}

func (p pattern) match(tag string) (string, bool) {
	m := p.re.FindStringSubmatch(tag)
	if m == nil {
		return "", false
	}
	for _, g := range p.sha {
		if !strings.ContainsAny(m[g], "0123456789") {
			return "", false
		}
	}
	var b strings.Builder
	for _, k := range p.keep {
		if k.group > 0 {
			b.WriteString(m[k.group])
		} else {
			b.WriteString(k.literal)
		}
	}
	return b.String(), true
}
