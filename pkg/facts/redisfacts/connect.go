package redisfacts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Config says how to reach Redis. The zero value is no Redis.
type Config struct {
	URL          string // redis://host:6379/0, rediss:// for TLS, unix:///path for a socket
	Username     string // "" is Redis's default user
	PasswordFile string // read for each connection, surrounding white space dropped; "" for none
	CA           string // path of a PEM file with the server's authority; "" for the system's
	Cert         string // client certificate and key, paths of PEM files; both or none
	Key          string
}

// Validate names every field that is wrong.
func (c Config) Validate() error {
	if c.URL == "" {
		if c != (Config{}) {
			return errors.New("url: name the server that the rest is about")
		}
		return nil
	}
	var errs []error
	// The parser's own error is not shown: it would repeat a password.
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix":
		errs = append(errs, errors.New("url: want redis://host:port/database, rediss:// for TLS, or unix:///path"))
	case hasPassword(u):
		errs = append(errs, errors.New("url: holds a password, which logs would show; name a file in passwordFile"))
	default:
		if _, err := redis.ParseURL(c.URL); err != nil {
			errs = append(errs, fmt.Errorf("url: %w; want redis://host:port/database", unrepeated(err)))
		}
	}
	if c.Username != "" && c.PasswordFile == "" {
		errs = append(errs, errors.New("passwordFile: a user name needs one"))
	}
	if (c.Cert == "") != (c.Key == "") {
		errs = append(errs, errors.New("cert: client certificate and key go together; set both or neither"))
	}
	if (c.CA != "" || c.Cert != "") && err == nil && u.Scheme != "rediss" {
		errs = append(errs, errors.New("url: certificates are of no use without TLS; write rediss://"))
	}
	return errors.Join(errs...)
}

// unrepeated is a parser's error without the address that it repeats, password included.
func unrepeated(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

func hasPassword(u *url.URL) bool {
	if u.User == nil {
		return u.Query().Has("password")
	}
	_, ok := u.User.Password()
	return ok || u.Query().Has("password")
}

// Connect makes a client that gives up quickly: the library's own patience with a server that is away is
// longer than a read of the durable store takes. It connects when it is first used. c names a server and
// has been validated.
func Connect(c Config) (*redis.Client, error) {
	opts, err := redis.ParseURL(c.URL)
	if err != nil {
		return nil, fmt.Errorf("redis: url: %w", unrepeated(err))
	}
	opts.DialTimeout, opts.DialerRetries = time.Second, 1
	opts.ReadTimeout, opts.WriteTimeout = time.Second, time.Second
	opts.MaxRetries = 1
	opts.ContextTimeoutEnabled = true
	if c.Username != "" {
		opts.Username = c.Username
	}
	if c.PasswordFile != "" {
		user := opts.Username
		opts.CredentialsProviderContext = func(context.Context) (string, string, error) {
			secret, err := os.ReadFile(c.PasswordFile)
			if err != nil {
				return "", "", fmt.Errorf("redis: passwordFile: %w", err)
			}
			return user, strings.TrimSpace(string(secret)), nil
		}
	}
	if opts.TLSConfig != nil {
		if err := c.tls(opts.TLSConfig); err != nil {
			return nil, err
		}
	}
	return redis.NewClient(opts), nil
}

func (c Config) tls(t *tls.Config) error {
	t.MinVersion = tls.VersionTLS12
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return fmt.Errorf("redis: ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("redis: ca: %s holds no PEM certificate", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return fmt.Errorf("redis: cert: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return nil
}
