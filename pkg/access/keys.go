package access

import (
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// Installation is everything that a NATS server and its users of one installation are made from: made
// once, by NewInstallation. The operator's key is needed again only to change the accounts.
//
// Subscribers have an account of their own, from which nothing leads to the streams but pulling from a
// consumer, acknowledging, asking about it and resetting it. In the account of the streams it would not do to
// permit just that: JetStream sends its answer to whatever subject a request names, an empty one (nothing to
// pull) included, and an empty message on $JS.API.STREAM.PURGE.STATE is a request, too.
type Installation struct {
	Operator      Identity // signs the accounts
	Account       Identity // holds streams and services
	Subscribers   Identity // holds subscribers
	SystemAccount Identity // the server's own; nobody of ours uses it

	Issuer           *Issuer // of Account
	SubscriberIssuer *Issuer // of Subscribers
}

// Identity is a key with the token that says what it is.
type Identity struct {
	PublicKey string
	Seed      []byte // secret
	Token     string // JWT
}

// NewInstallation makes keys and tokens for an installation with this root ("" is the default one).
func NewInstallation(name, root string) (*Installation, error) {
	operator, err := newKey(nkeys.CreateOperator)
	if err != nil {
		return nil, err
	}
	var keys [5]key
	for i := range keys {
		if keys[i], err = newKey(nkeys.CreateAccount); err != nil {
			return nil, err
		}
	}
	services, subscribers, system, signer, subscriberSigner := keys[0], keys[1], keys[2], keys[3], keys[4]

	ac := jwt.NewAccountClaims(services.public)
	ac.Name = name
	ac.SigningKeys.Add(signer.public)
	ac.Limits.JetStreamLimits = jwt.JetStreamLimits{
		MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit, MaxAckPending: jwt.NoLimit,
	}
	sc := jwt.NewAccountClaims(subscribers.public)
	sc.Name = name + "-subscribers"
	sc.SigningKeys.Add(subscriberSigner.public)
	for _, bridge := range bridges(root) {
		export := &jwt.Export{Name: bridge.subject, Subject: jwt.Subject(bridge.subject), Type: bridge.kind}
		if bridge.kind == jwt.Service {
			export.ResponseType = jwt.ResponseTypeStream // one pull, many messages
		}
		ac.Exports.Add(export)
		sc.Imports.Add(&jwt.Import{
			Name: bridge.subject, Subject: jwt.Subject(bridge.subject), LocalSubject: jwt.RenamingSubject(bridge.local),
			Account: services.public, Type: bridge.kind,
		})
	}
	yc := jwt.NewAccountClaims(system.public)
	yc.Name = "SYS"
	oc := jwt.NewOperatorClaims(operator.public)
	oc.Name = name
	oc.SystemAccount = system.public

	in := &Installation{
		Issuer:           &Issuer{account: services.public, signer: signer.pair},
		SubscriberIssuer: &Issuer{account: subscribers.public, signer: subscriberSigner.pair},
	}
	for _, part := range []struct {
		of     *Identity
		key    key
		claims jwt.Claims
	}{{&in.Operator, operator, oc}, {&in.Account, services, ac}, {&in.Subscribers, subscribers, sc}, {&in.SystemAccount, system, yc}} {
		token, err := part.claims.Encode(operator.pair)
		if err != nil {
			return nil, fmt.Errorf("access: sign token of %s: %w", part.claims.Claims().Name, err)
		}
		*part.of = Identity{PublicKey: part.key.public, Seed: part.key.seed, Token: token}
	}
	return in, nil
}

// Issuer makes users of one account, by the account's signing key.
type Issuer struct {
	account string
	signer  nkeys.KeyPair
}

// newIssuer makes an issuer of an account's token and one of its signing keys.
func newIssuer(accountToken string, signer nkeys.KeyPair) (*Issuer, error) {
	claims, err := jwt.DecodeAccountClaims(accountToken)
	if err != nil {
		return nil, fmt.Errorf("account token: %w", err)
	}
	public, err := signer.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	if !claims.SigningKeys.Contains(public) {
		return nil, fmt.Errorf("signing key %s is none of account %s (%s)", public, claims.Name, claims.Subject)
	}
	return &Issuer{account: claims.Subject, signer: signer}, nil
}

// Account is the public key of the account whose users it makes.
func (i *Issuer) Account() string { return i.account }

// User is one set of credentials.
type User struct {
	Name        string // shown by the server; its inboxes begin with it
	Permissions Permissions
	Expires     time.Time // zero: never
}

// Issue makes a user and answers its credentials: the content of a .creds file, a secret.
func (i *Issuer) Issue(u User) ([]byte, error) {
	k, err := newKey(nkeys.CreateUser)
	if err != nil {
		return nil, err
	}
	claims := jwt.NewUserClaims(k.public)
	claims.Name, claims.IssuerAccount = u.Name, i.account
	claims.Pub.Allow.Add(u.Permissions.Publish...)
	claims.Pub.Deny.Add(u.Permissions.Deny...)
	if len(u.Permissions.Publish) == 0 {
		claims.Pub.Deny.Add(">") // nothing listed would allow everything
	}
	claims.Sub.Allow.Add(u.Permissions.Subscribe...)
	claims.Sub.Allow.Add(Inbox(u.Name) + ".>")
	if !u.Expires.IsZero() {
		claims.Expires = u.Expires.Unix()
	}
	token, err := claims.Encode(i.signer)
	if err != nil {
		return nil, fmt.Errorf("access: sign token of %s: %w", u.Name, err)
	}
	creds, err := jwt.FormatUserConfig(token, k.seed)
	if err != nil {
		return nil, fmt.Errorf("access: credentials of %s: %w", u.Name, err)
	}
	return creds, nil
}

// IssueRole makes a user of a role.
func (i *Issuer) IssueRole(root string, r Role) ([]byte, error) {
	p, err := Of(root, r)
	if err != nil {
		return nil, err
	}
	return i.Issue(User{Name: string(r), Permissions: p})
}

// key is a pair of keys, written out.
type key struct {
	pair   nkeys.KeyPair
	public string
	seed   []byte
}

func newKey(create func() (nkeys.KeyPair, error)) (key, error) {
	pair, err := create()
	if err != nil {
		return key{}, fmt.Errorf("access: make key: %w", err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		return key{}, fmt.Errorf("access: make key: %w", err)
	}
	seed, err := pair.Seed()
	if err != nil {
		return key{}, fmt.Errorf("access: make key: %w", err)
	}
	return key{pair, public, seed}, nil
}
