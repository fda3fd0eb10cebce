package service

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

// TLSFiles are a server's certificate and key, as paths of PEM files; both or none.
type TLSFiles struct {
	Cert, Key string
	// ClientCA is the authority of the certificates that clients must show; "" asks for none.
	ClientCA string
}

// Validate names the field that is wrong.
func (t TLSFiles) Validate() error {
	switch {
	case (t.Cert == "") != (t.Key == ""):
		return errors.New("cert: certificate and key go together; set both or neither")
	case t.ClientCA != "" && t.Cert == "":
		return errors.New("clientCA: without a certificate of its own the server does not speak TLS; set cert and key")
	}
	return nil
}

const (
	maxPEM = 1 << 20 // bytes of a file
	// lookAgain is how often the files are looked at: as long as a renewed certificate takes to be shown.
	lookAgain = 2 * time.Second
)

// Config reads the files, and again whenever they have changed, so that a certificate is renewed under a
// running server. While what is new can not be used, the old remains.
func (t TLSFiles) Config(log *slog.Logger) (*tls.Config, error) {
	c := &certificates{files: t, log: log}
	if err := c.read(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current(time.Now()), nil },
	}, nil
}

// certificates are what the files held when they were last read.
type certificates struct {
	files TLSFiles
	log   *slog.Logger

	mu     sync.Mutex
	config *tls.Config
	seen   [3]fileState
	bad    [3]fileState
	next   time.Time
}

// fileState tells one state of a file from another.
type fileState struct {
	size     int64
	modified time.Time
}

func (c *certificates) state() (s [3]fileState) {
	for i, path := range []string{c.files.Cert, c.files.Key, c.files.ClientCA} {
		if info, err := os.Stat(path); err == nil {
			s[i] = fileState{info.Size(), info.ModTime()}
		}
	}
	return s
}

func (c *certificates) current(now time.Time) *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.next) {
		return c.config
	}
	c.next = now.Add(lookAgain)
	s := c.state()
	if s == c.seen {
		return c.config
	}
	if err := c.read(); err != nil {
		if s != c.bad { // said once: certificate and key are not replaced in the same moment
			c.bad = s
			c.log.Warn("tls files can not be used: the server goes on with the certificate that it has", slog.Any("error", err))
		}
		return c.config
	}
	c.log.Info("tls files read again")
	return c.config
}

func (c *certificates) read() error {
	s := c.state()
	cert, err := readPEM(c.files.Cert)
	if err != nil {
		return fmt.Errorf("cert: %w", err)
	}
	key, err := readPEM(c.files.Key)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("cert: %s with the key %s: %w", c.files.Cert, c.files.Key, err)
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if c.files.ClientCA != "" {
		authority, err := readPEM(c.files.ClientCA)
		if err != nil {
			return fmt.Errorf("clientCA: %w", err)
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(authority) {
			return fmt.Errorf("clientCA: %s holds no certificate", c.files.ClientCA)
		}
	}
	c.config, c.seen = config, s
	return nil
}

func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxPEM)
	}
	return b, err
}
