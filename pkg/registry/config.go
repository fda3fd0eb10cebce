package registry

import (
	"errors"
	"fmt"
	"maps"
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
	// DockerConfig is the path of a Docker config.json whose credentials are used for allowed hosts that
	// have none of their own here; "" for none. It is read again for each login.
	DockerConfig string
}

// Host is one registry, or those that match one pattern.
type Host struct {
	Plain    bool // plain HTTP where the host does not speak TLS
	Insecure bool // any TLS certificate; of the named realms and blob hosts too

	Username     string
	PasswordFile string // read for each login, surrounding white space dropped

	// Realms are hosts of token servers, Blobs hosts that downloads may be redirected to, beside the
	// registry itself and the presets of the public ones; names or patterns. Credentials go to the
	// registry and its realms, never to blob hosts.
	Realms, Blobs []string
}

func (c Config) validate() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Hosts)) {
		h := c.Hosts[name]
		if err := checkPattern(name); err != nil {
			errs = append(errs, fmt.Errorf("hosts: %w", err))
		}
		if (h.Username == "") != (h.PasswordFile == "") {
			errs = append(errs, fmt.Errorf("hosts[%s]: username and password file go together; set both or neither", name))
		}
		if h.Username != "" && isPattern(name) && strings.HasPrefix(name, "*") && strings.Count(name, ".") < 2 {
			errs = append(errs, fmt.Errorf("hosts[%s]: credentials for so wide a pattern would go to strangers; name the host", name))
		}
		for _, r := range h.Realms {
			if err := checkPattern(r); err != nil {
				errs = append(errs, fmt.Errorf("hosts[%s].realms: %w", name, err))
			}
		}
		for _, b := range h.Blobs {
			if err := checkPattern(b); err != nil {
				errs = append(errs, fmt.Errorf("hosts[%s].blobs: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

func isPattern(s string) bool { return strings.Contains(s, "*") }

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

// lookup finds a host's configuration: its name goes before patterns, a longer pattern before a shorter.
func (c Config) lookup(host string) (Host, bool) {
	if h, ok := c.Hosts[host]; ok {
		return h, true
	}
	best, found := "", false
	for p := range c.Hosts {
		if !matches(p, host) {
			continue
		}
		if !found || len(p) > len(best) || len(p) == len(best) && p < best {
			best, found = p, true
		}
	}
	return c.Hosts[best], found
}
