package registry

import (
	"net/netip"
	"net/url"
	"testing"
)

func TestPublic(t *testing.T) {
	for addr, want := range map[string]bool{
		"1.1.1.1": true, "2606:4700::1111": true,
		"0.0.0.0": false, "10.1.2.3": false, "100.100.100.200": false, "127.0.0.1": false,
		"169.254.169.254": false, "172.16.0.1": false, "192.168.1.1": false, "198.18.0.1": false,
		"224.0.0.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "fe80::1": false, "fd00:ec2::254": false, "ff02::1": false,
		"64:ff9b::a9fe:a9fe": false, "2002:a9fe:a9fe::": false, "fec0::1": false,
	} {
		if got := public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("public(%s) = %v, want %v", addr, got, want)
		}
	}
}

func TestCheckAddress(t *testing.T) {
	for _, tc := range []struct {
		host, address string
		named, ok     bool
	}{
		{"registry.example", "1.1.1.1:443", false, true},
		{"registry.example", "10.0.0.1:443", false, false},
		{"registry.example", "10.0.0.1:443", true, true},
		{"registry.example", "[::ffff:10.0.0.1]:443", false, false},
		{"registry.example", "[::1]:443", true, true},
		{"registry.example", "100.64.0.1:443", true, true},
		// A name that leads to the cloud's metadata is an attack, whoever wrote the name.
		{"registry.example", "169.254.169.254:80", true, false},
		{"registry.example", "[fe80::1%eth0]:443", true, false},
		{"169.254.1.1", "169.254.1.1:80", true, true},
		{"169.254.1.1", "169.254.1.1:80", false, false},
		{"registry.example", "0.0.0.0:80", true, false},
		{"registry.example", "not an address", true, false},
	} {
		if err := checkAddress(tc.host, tc.address, tc.named); (err == nil) != tc.ok {
			t.Errorf("checkAddress(%s, %s, named %v) = %v", tc.host, tc.address, tc.named, err)
		}
	}
}

func TestRoles(t *testing.T) {
	for _, tc := range []struct {
		registry, url string
		want          role
	}{
		{"docker.io", "https://registry-1.docker.io/v2/", self},
		{"docker.io", "https://registry-1.docker.io:443/v2/", self},
		{"docker.io", "https://registry-1.docker.io:8443/v2/", stranger},
		{"docker.io", "https://auth.docker.io/token", realm},
		{"docker.io", "https://AUTH.docker.io/token", realm},
		{"docker.io", "https://auth.docker.io.evil.example/token", stranger},
		{"docker.io", "https://evil.example/?auth.docker.io", stranger},
		{"docker.io", "https://docker-images-prod.6aa3.r2.cloudflarestorage.com/x", blobs},
		{"docker.io", "https://docker-images-prod.evil.example/.r2.cloudflarestorage.com", stranger},
		{"ghcr.io", "https://auth.docker.io/token", stranger},
		{"team.azurecr.io", "https://team.azurecr.io/oauth2/token", self},
		{"team.azurecr.io", "https://store1.blob.core.windows.net/x", blobs},
		{"a.b.azurecr.io", "https://store1.blob.core.windows.net/x", stranger},
		{"1.dkr.ecr.eu-west-1.amazonaws.com", "https://prod-eu-west-1-starport-layer-bucket.s3.eu-west-1.amazonaws.com/x", blobs},
	} {
		u, err := url.Parse(tc.url)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := newPolicy(tc.registry, tc.registry, Host{}).role(u); got != tc.want {
			t.Errorf("%s: role of %s = %d, want %d", tc.registry, tc.url, got, tc.want)
		}
	}
}

func TestLookupPrefersTheNarrower(t *testing.T) {
	c := Config{Hosts: map[string]Host{
		"*": {Username: "any"}, "*.example.com": {Username: "pattern"}, "a.example.com": {Username: "name"},
	}}
	for host, want := range map[string]string{"a.example.com": "name", "b.example.com": "pattern", "c.b.example.com": "any"} {
		if h, _, ok := c.lookup(host); !ok || h.Username != want {
			t.Errorf("lookup(%s) = %q, %v, want %q", host, h.Username, ok, want)
		}
	}
	if _, _, ok := (Config{}).lookup("a.example.com"); ok {
		t.Error("the zero configuration allows a host")
	}
}

func TestPresetsAreWellFormed(t *testing.T) {
	for _, p := range presets {
		for _, s := range append(append([]string{p.host}, p.realms...), p.blobs...) {
			if err := checkPattern(s); err != nil {
				t.Errorf("preset %s: %v", p.host, err)
			}
		}
	}
}
