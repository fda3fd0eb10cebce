package redisfacts_test

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
	"github.com/pratique-sec/pratique/pkg/tlstest"
)

// startTLS runs a redis-server that speaks TLS only, asks for client certificates and knows one user, and
// answers its address.
func startTLS(t *testing.T, a *tlstest.Authority, user, password string) string {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed: apt-get install redis-server, or the like, to run this test")
	}
	cert, key := a.Issue(t, "127.0.0.1")
	for range 5 { // between the choice of a port and the server's use of it somebody else may take it
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(binary, "--port", "0", "--bind", "127.0.0.1", "--tls-port", strconv.Itoa(port),
			"--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", a.File, "--tls-auth-clients", "yes",
			"--user", user, "on", ">"+password, "~*", "&*", "+@all", "--user", "default", "off",
			"--dir", t.TempDir(), "--save", "", "--appendonly", "no", "--daemonize", "no")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		up := make(chan string, 1)
		go func() {
			var said strings.Builder
			lines := bufio.NewScanner(out)
			for lines.Scan() { // to the end: a full pipe would stop the server
				if strings.Contains(lines.Text(), "eady to accept connections") {
					up <- ""
				}
				said.WriteString(lines.Text() + "\n")
			}
			select {
			case up <- said.String():
			default:
			}
		}()
		select {
		case said := <-up:
			if said == "" {
				return "127.0.0.1:" + strconv.Itoa(port)
			}
			if strings.Contains(said, "TLS") && !strings.Contains(said, "Address already in use") {
				t.Skipf("this redis-server speaks no TLS: %s", said)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("redis-server is not ready")
		}
	}
	t.Fatal("no free port")
	return ""
}

func TestRedisOverTLS(t *testing.T) {
	a, stranger := tlstest.New(t), tlstest.New(t)
	address := startTLS(t, a, "pratique", "hunter2-of-redis")
	password := filepath.Join(t.TempDir(), "password")
	secret := func(s string) {
		t.Helper()
		if err := os.WriteFile(password, []byte(s+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secret("hunter2-of-redis")
	cert, key := a.Issue(t, "client")
	good := redisfacts.Config{URL: "rediss://" + address, Username: "pratique", PasswordFile: password, CA: a.File, Cert: cert, Key: key}
	ping := func(c redisfacts.Config) error {
		t.Helper()
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		client, err := redisfacts.Connect(c)
		if err != nil {
			return err
		}
		defer func() { _ = client.Close() }()
		return client.Ping(t.Context()).Err()
	}
	if err := ping(good); err != nil {
		t.Errorf("ours: %v", err)
	}
	for name, change := range map[string]func(*redisfacts.Config){
		"no client certificate": func(c *redisfacts.Config) { c.Cert, c.Key = "", "" },
		"another authority":     func(c *redisfacts.Config) { c.CA = stranger.File },
		"the system's only":     func(c *redisfacts.Config) { c.CA = "" },
		"no user":               func(c *redisfacts.Config) { c.Username, c.PasswordFile = "", "" },
		"no such file":          func(c *redisfacts.Config) { c.PasswordFile = "/nonexistent" },
		"plain":                 func(c *redisfacts.Config) { c.URL, c.CA, c.Cert, c.Key = "redis://"+address, "", "", "" },
	} {
		c := good
		change(&c)
		if err := ping(c); err == nil {
			t.Errorf("%s: answered", name)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
	// The password is read for each connection: a new one needs no restart.
	secret("wrong")
	client, err := redisfacts.Connect(good)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := client.Ping(t.Context()).Err(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a wrong password: %v", err)
	}
	secret("hunter2-of-redis")
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Errorf("the right one again: %v", err)
	}
}
