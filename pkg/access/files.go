package access

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/jwt/v2"
)

// Names of the files of an installation.
const (
	ServerConfigFile     = "nats.conf"
	SignerFile           = "services.signer"
	SubscriberSignerFile = "subscribers.signer"
	keysFolder           = "keys"
)

// CredsFile is the name of a role's credentials.
func CredsFile(r Role) string { return string(r) + ".creds" }

// ErrThere: the folder holds an installation already; making another would lock everybody out.
var ErrThere = errors.New("holds an installation's keys already")

// Write puts everything into a folder, which it makes: a configuration for nats-server with its store in the
// folder store, the two signers, credentials for each role, and, in "keys", what is needed only to change the
// accounts. It overwrites nothing; ErrThere.
func (in *Installation) Write(dir, root, store string) error {
	keys := filepath.Join(dir, keysFolder)
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return fmt.Errorf("access: %w", err)
	}
	signer, err := in.Issuer.signerFile(in.Account.Token)
	if err != nil {
		return err
	}
	subscribers, err := in.SubscriberIssuer.signerFile(in.Subscribers.Token)
	if err != nil {
		return err
	}
	files := []struct {
		name    string
		content []byte
	}{
		{SignerFile, signer}, // first: it decides whether there is an installation
		{SubscriberSignerFile, subscribers},
		{filepath.Join(keysFolder, "operator.nk"), in.Operator.Seed},
		{filepath.Join(keysFolder, "services.nk"), in.Account.Seed},
		{filepath.Join(keysFolder, "subscribers.nk"), in.Subscribers.Seed},
		{filepath.Join(keysFolder, "system.nk"), in.SystemAccount.Seed},
		{ServerConfigFile, in.ServerConfig(store)},
	}
	for _, r := range Roles {
		creds, err := in.Issuer.IssueRole(root, r)
		if err != nil {
			return err
		}
		files = append(files, struct {
			name    string
			content []byte
		}{CredsFile(r), creds})
	}
	for _, f := range files {
		if err := WriteNew(filepath.Join(dir, f.name), f.content); err != nil {
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("access: %s: %w", dir, ErrThere)
			}
			return err
		}
	}
	return nil
}

// WriteNew makes a file that only its owner may read; an error that is fs.ErrExist where there is one.
func WriteNew(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("access: %w", err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("access: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// signerFile is an issuer as a file: the account's token and the seed of its signing key.
func (i *Issuer) signerFile(accountToken string) ([]byte, error) {
	seed, err := i.signer.Seed()
	if err != nil {
		return nil, fmt.Errorf("access: signing key: %w", err)
	}
	token, err := jwt.DecorateJWT(accountToken)
	if err != nil {
		return nil, fmt.Errorf("access: account token: %w", err)
	}
	key, err := jwt.DecorateSeed(seed)
	if err != nil {
		return nil, fmt.Errorf("access: signing key: %w", err)
	}
	return append(token, key...), nil
}

// ReadIssuer reads a signer file.
func ReadIssuer(path string) (*Issuer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("access: signer: %w", err)
	}
	token, err := jwt.ParseDecoratedJWT(b)
	if err != nil {
		return nil, fmt.Errorf("access: signer %s: %w", path, err)
	}
	pair, err := jwt.ParseDecoratedNKey(b)
	if err != nil {
		return nil, fmt.Errorf("access: signer %s: %w", path, err)
	}
	i, err := newIssuer(token, pair)
	if err != nil {
		return nil, fmt.Errorf("access: signer %s: %w", path, err)
	}
	return i, nil
}
