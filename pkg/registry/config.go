package registry

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/pratique-sec/pratique/pkg/image"
)

// Config says which registries may be talked to, and how. The zero value allows none.
type Config struct {
	// Hosts by name as it stands in references ("docker.io", "registry.example:5000"), or by pattern: a
	// star stands for any run of characters without a dot ("*.azurecr.io"), "*" alone for every host.
	// Naming a host allows its loopback and private addresses too; a pattern allows public ones only.
	Hosts map[string]Host
	// DockerConfig is the path of a Docker config.json whose credentials, credential helpers included, are
	// used for allowed hosts that have none of their own here; "" for none. It is read again for each login.
	DockerConfig string
	// CA is the path of a PEM file with authorities that are believed beside the system's, for every host
	// and for the proxy; "" for none.
	CA    string
	Proxy Proxy
}

// Proxy is what stands between us and the registries. The zero value is none, whatever the environment
// says. A proxy connects for us: the addresses of what it connects to are its own matter then.
type Proxy struct {
	URL          string // "http://proxy.example:3128"; https for TLS to the proxy itself
	Username     string
	PasswordFile string   // read for each request that opens a connection
	NoProxy      []string // hosts, domains (".example"), addresses and networks that are reached directly
	// FromEnvironment takes HTTPS_PROXY, HTTP_PROXY and NO_PROXY instead of the above.
	FromEnvironment bool
}

// Host is one registry, or those that match one pattern.
type Host struct {
	Plain    bool // plain HTTP where the host does not speak TLS
	Insecure bool // any TLS certificate; of the named realms and blob hosts too
	// Endpoint is the host that serves it ("registry.internal:5000"), when that is another than the one in
	// references; "" for the same. It is what a name is that leads elsewhere from here.
	Endpoint string

	Username     string
	PasswordFile string // read for each login, surrounding white space dropped
	// Repositories have credentials of their own: those of the longest prefix that a repository is, or is
	// below, go before the host's.
	Repositories map[string]Credentials

	CA string // path of a PEM file with authorities that are believed for this host too, and for its named realms and blob hosts
	// Cert and Key, paths of PEM files, are shown to the host and to realms that are named; both or none.
	Cert, Key string

	// Realms are hosts of token servers, Blobs hosts that downloads may be redirected to, beside the
	// registry itself and the presets of the public ones; names or patterns. Credentials go to the
	// registry and its realms, never to blob hosts.
	Realms, Blobs []string
}

// Credentials of one repository, or of all below a prefix.
type Credentials struct {
	Username     string
	PasswordFile string
}

// Validate names everything that is wrong, each with its path. It reads no file.
func (c Config) Validate() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Hosts)) {
		for _, err := range c.Hosts[name].problems(name) {
			errs = append(errs, fmt.Errorf("hosts[%s]%w", name, err))
		}
		if c.Proxy.used() && isPattern(name) && !hasDomain(name) {
			errs = append(errs, fmt.Errorf("hosts[%s]: a proxy connects to whatever such a name leads to, private addresses included; name hosts, or patterns with a domain as in *.example.com", name))
		}
	}
	for _, err := range c.Proxy.problems() {
		errs = append(errs, fmt.Errorf("proxy%w", err))
	}
	return errors.Join(errs...)
}

// problems of a host, each beginning with what follows its name in a path.
func (h Host) problems(name string) (errs []error) {
	if err := checkPattern(name); err != nil {
		errs = append(errs, fmt.Errorf(": %w", err))
	}
	if h.Endpoint != "" {
		switch err := image.CheckHost(h.Endpoint); {
		case err != nil:
			errs = append(errs, fmt.Errorf(".endpoint: %q: want a host name with an optional port, lower case, without a scheme: %w", h.Endpoint, err))
		case isPattern(name):
			errs = append(errs, errors.New(".endpoint: a pattern is many registries; name the one that this is about"))
		}
	}
	secrets := h.Username != "" || h.Cert != "" || len(h.Repositories) > 0
	if secrets && isPattern(name) && !hasDomain(name) {
		errs = append(errs, errors.New(": credentials for so wide a pattern would go to strangers; name the host"))
	}
	if err := checkCredentials(h.Username, h.PasswordFile); err != nil {
		errs = append(errs, fmt.Errorf(".%w", err))
	}
	for _, prefix := range slices.Sorted(maps.Keys(h.Repositories)) {
		c := h.Repositories[prefix]
		if err := image.CheckRepository(prefix); err != nil {
			errs = append(errs, fmt.Errorf(".repositories[%s]: want a repository, or the first parts of one, without a slash at its end: %w", prefix, err))
		}
		if err := checkCredentials(c.Username, c.PasswordFile); err != nil {
			errs = append(errs, fmt.Errorf(".repositories[%s].%w", prefix, err))
		} else if c.Username == "" {
			errs = append(errs, fmt.Errorf(".repositories[%s].username: empty; this entry is for credentials", prefix))
		}
	}
	if (h.Cert == "") != (h.Key == "") {
		errs = append(errs, errors.New(".cert: client certificate and key go together; set both or neither"))
	}
	for i, r := range h.Realms {
		if err := checkPattern(r); err != nil {
			errs = append(errs, fmt.Errorf(".realms[%d]: %w", i, err))
		}
	}
	for i, b := range h.Blobs {
		if err := checkPattern(b); err != nil {
			errs = append(errs, fmt.Errorf(".blobs[%d]: %w", i, err))
		}
	}
	return errs
}

func checkCredentials(username, passwordFile string) error {
	switch {
	case username == "" && passwordFile != "":
		return errors.New("username: missing; user name and password file go together")
	case username != "" && passwordFile == "":
		return errors.New("passwordFile: missing; user name and password file go together")
	case strings.Contains(username, ":"):
		return errors.New("username: holds a colon, which HTTP can not carry")
	}
	return nil
}

func (p Proxy) used() bool { return p.URL != "" || p.FromEnvironment }

func (p Proxy) problems() (errs []error) {
	if p.FromEnvironment && (p.URL != "" || p.Username != "" || len(p.NoProxy) > 0) {
		errs = append(errs, errors.New(".fromEnvironment: the environment says all of it; take this or the rest away"))
	}
	if p.URL != "" {
		// The parser's own error would repeat a password.
		u, err := url.Parse(p.URL)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "":
			errs = append(errs, errors.New(".url: want http://host:port, or https://host:port for TLS to the proxy itself"))
		case u.User != nil:
			errs = append(errs, errors.New(".url: holds credentials, which logs would show; set username and passwordFile"))
		}
	} else if p.Username != "" || p.PasswordFile != "" || len(p.NoProxy) > 0 {
		errs = append(errs, errors.New(".url: name the proxy that the rest is about"))
	}
	if err := checkCredentials(p.Username, p.PasswordFile); err != nil {
		errs = append(errs, fmt.Errorf(".%w", err))
	}
	for i, n := range p.NoProxy {
		if n == "" || strings.ContainsAny(n, ", \t") {
			errs = append(errs, fmt.Errorf(".noProxy[%d]: %q: want one host, .domain, address or network", i, n))
		}
	}
	return errs
}

func isPattern(s string) bool { return strings.Contains(s, "*") }

// hasDomain tells whether a pattern's last two labels are fixed: then who answers to it belongs to
// somebody.
func hasDomain(pattern string) bool {
	labels := strings.Split(pattern, ".")
	return len(labels) > 2 && !isPattern(labels[len(labels)-1]) && !isPattern(labels[len(labels)-2])
}

// checkPattern accepts host names whose labels may hold stars.
func checkPattern(s string) error {
	if err := image.CheckHost(strings.ReplaceAll(s, "*", "x")); err != nil {
		return fmt.Errorf("%q: want a host name with an optional port, lower case, without a scheme: %w", s, err)
	}
	return nil
}

// matches tells whether host is the name, or fits the pattern. host has passed image.CheckHost.
func matches(pattern, host string) bool {
	if !isPattern(pattern) {
		return pattern == host
	}
	if pattern == "*" {
		return true
	}
	ok, err := path.Match(strings.ReplaceAll(pattern, ".", "/"), strings.ReplaceAll(host, ".", "/"))
	return err == nil && ok
}

// lookup finds a host's configuration and the name or pattern that it stands under: a name goes before
// patterns, a longer pattern before a shorter.
func (c Config) lookup(host string) (h Host, under string, found bool) {
	if h, ok := c.Hosts[host]; ok {
		return h, host, true
	}
	for p := range c.Hosts {
		if !matches(p, host) {
			continue
		}
		if !found || len(p) > len(under) || len(p) == len(under) && p < under {
			under, found = p, true
		}
	}
	return c.Hosts[under], under, found
}

// credentials are those of the longest prefix of a repository, else the host's.
func (h Host) credentials(repository string) Credentials {
	for prefix := repository; prefix != ""; prefix = parent(prefix) {
		if c, ok := h.Repositories[prefix]; ok {
			return c
		}
	}
	return Credentials{h.Username, h.PasswordFile}
}

// parent is a repository without its last component; "" above the first.
func parent(repository string) string {
	return repository[:max(strings.LastIndexByte(repository, '/'), 0)]
}
