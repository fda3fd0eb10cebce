package access

import (
	"fmt"
	"strings"

	"github.com/nats-io/jwt/v2"
)

// inboxPrefix begins every inbox of ours.
const inboxPrefix = "_INBOX_"

// Inbox is the prefix of a user's inboxes, for nats.CustomInboxPrefix: the default one, "_INBOX", is
// nobody's own. What a subject token may not hold becomes "-".
func Inbox(user string) string {
	return inboxPrefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, user)
}

// InboxOf reads from the content of a .creds file under which prefix its user may have inboxes; "" when
// the file leaves that open, as credentials made by somebody else may do.
func InboxOf(creds []byte) (string, error) {
	claims, err := userOf(creds)
	if err != nil {
		return "", err
	}
	for _, s := range claims.Sub.Allow {
		if prefix, ok := strings.CutSuffix(s, ".>"); ok && strings.HasPrefix(prefix, inboxPrefix) {
			return prefix, nil
		}
	}
	return "", nil
}

// userOf reads a user's claims from the content of its .creds file.
func userOf(creds []byte) (*jwt.UserClaims, error) {
	token, err := jwt.ParseDecoratedJWT(creds)
	if err != nil {
		return nil, fmt.Errorf("access: credentials: %w", err)
	}
	claims, err := jwt.DecodeUserClaims(token)
	if err != nil {
		return nil, fmt.Errorf("access: credentials: %w", err)
	}
	return claims, nil
}
