package bus

import (
	"strconv"
	"strings"
)

// Token makes one subject token out of any string, one to one: every byte but A-Z a-z 0-9 - _ becomes
// %XX. The empty string becomes "%", which no other string does, because a token may not be empty.
func Token(s string) string { return escape(s, '%') }

// keyToken is Token for a key-value bucket, whose keys may not hold a percent sign: the escape is "=".
func keyToken(s string) string { return escape(s, '=') }

func escape(s string, mark byte) string {
	const hex = "0123456789ABCDEF"
	if s == "" {
		return string(mark)
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{mark, hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// fromKeyToken is keyToken's inverse; false for what keyToken never makes.
func fromKeyToken(t string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(t); i++ {
		if t[i] != '=' {
			b.WriteByte(t[i])
			continue
		}
		if i+2 >= len(t) {
			break
		}
		c, err := strconv.ParseUint(t[i+1:i+3], 16, 8)
		if err != nil {
			break
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), keyToken(b.String()) == t
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// validRoot: the root is also a part of stream and bucket names, which know no escape.
func validRoot(s string) bool {
	for i := range len(s) {
		if !plain(s[i]) {
			return false
		}
	}
	return s != ""
}
