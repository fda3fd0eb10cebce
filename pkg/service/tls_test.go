package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/tlstest"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serveTLS serves until the test ends, and answers where.
func serveTLS(t *testing.T, files TLSFiles) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })
	go func() { served <- ServeHTTP(ctx, l, h, files, time.Minute, quiet()) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return "https://" + l.Addr().String()
}

func TestServerAsksForClientCertificates(t *testing.T) {
	a, stranger := tlstest.New(t), tlstest.New(t)
	cert, key := a.Issue(t, "127.0.0.1")
	url := serveTLS(t, TLSFiles{Cert: cert, Key: key, ClientCA: a.File})
	get := func(from *tlstest.Authority) error {
		c := &tls.Config{RootCAs: a.Pool}
		if from != nil {
			c.Certificates = from.Server(t, "client").Certificates
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}}
		defer client.CloseIdleConnections()
		resp, err := client.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.ProtoMajor != 2 {
			return fmt.Errorf("served by %s", resp.Proto)
		}
		return nil
	}
	if err := get(a); err != nil {
		t.Error(err)
	}
	for name, from := range map[string]*tlstest.Authority{"none": nil, "another authority's": stranger} {
		if err := get(from); err == nil {
			t.Errorf("a client with certificate %s is answered", name)
		}
	}
}

// A certificate is renewed under a running server; half a renewal changes nothing.
func TestCertificatesAreRenewed(t *testing.T) {
	a := tlstest.New(t)
	cert, key := a.Issue(t, "first.example")
	var log strings.Builder
	c := &certificates{files: TLSFiles{Cert: cert, Key: key}, log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := c.read(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	name := func() string {
		now = now.Add(time.Minute)
		leaf, err := x509.ParseCertificate(c.current(now).Certificates[0].Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.Subject.CommonName
	}
	if got := name(); got != "first.example" {
		t.Fatalf("the certificate is for %s", got)
	}
	before := c.current(now)
	a.IssueTo(t, cert, t.TempDir()+"/elsewhere", "second.example.") // its key is still to come
	for range 2 {
		if got := name(); got != "first.example" {
			t.Errorf("the certificate is for %s while its key is missing", got)
		}
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d complaints, want 1:\n%s", n, log.String())
	}
	a.IssueTo(t, cert, key, "third.example")
	if c.current(now) != before {
		t.Error("the files are looked at for each connection")
	}
	if got := name(); got != "third.example" {
		t.Errorf("the certificate is for %s after its renewal", got)
	}
}

func TestTLSFilesAreChecked(t *testing.T) {
	a := tlstest.New(t)
	cert, key := a.Issue(t, "x")
	for want, f := range map[string]TLSFiles{"cert: ": {Cert: "c"}, "clientCA: ": {ClientCA: "c"}} {
		if err := f.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	for want, f := range map[string]TLSFiles{
		"cert: ": {Cert: "/nonexistent", Key: key}, "key: ": {Cert: cert, Key: "/nonexistent"}, "clientCA: ": {Cert: cert, Key: key, ClientCA: key},
	} {
		if _, err := f.Config(quiet()); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	big := t.TempDir() + "/big"
	if err := os.WriteFile(big, make([]byte, maxPEM+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (TLSFiles{Cert: big, Key: key}).Config(quiet()); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a file without end: %v", err)
	}
}

// NATS behind TLS that asks for client certificates.
func TestNATSOverTLS(t *testing.T) {
	a, stranger := tlstest.New(t), tlstest.New(t)
	conf := a.Server(t, "127.0.0.1")
	conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, a.Pool
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, TLS: true, TLSConfig: conf, TLSTimeout: 10})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("nats-server is not ready")
	}
	cert, key := a.Issue(t, "client")
	strange, strangeKey := stranger.Issue(t, "client")
	for name, tc := range map[string]struct {
		config NATSConfig
		good   bool
	}{
		"ours":                         {NATSConfig{CA: a.File, Cert: cert, Key: key}, true},
		"no client certificate":        {NATSConfig{CA: a.File}, false},
		"another's client certificate": {NATSConfig{CA: a.File, Cert: strange, Key: strangeKey}, false},
		"another authority":            {NATSConfig{CA: stranger.File, Cert: cert, Key: key}, false},
	} {
		tc.config.URL = "tls://" + s.Addr().String()
		if err := tc.config.Validate(); err != nil {
			t.Fatal(err)
		}
		// One attempt, whose error is seen: a service would go on trying.
		nc, err := ConnectNATS(tc.config, "test", &Health{}, quiet(), nats.RetryOnFailedConnect(false), nats.MaxReconnects(0))
		if err == nil {
			err = nc.FlushTimeout(5 * time.Second)
			nc.Close()
		}
		if (err == nil) != tc.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
