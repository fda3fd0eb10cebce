package registry

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/pratique-sec/pratique/pkg/reason"
)

const dialTimeout = 10 * time.Second

// special are the ranges that are not the public internet, beside those that net/netip knows by name.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carrier-grade NAT, and where some clouds keep their metadata
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), // NAT64: an IPv4 address in disguise
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"), // 6to4: the same
	netip.MustParsePrefix("2001::/32"), // Teredo: the same
	netip.MustParsePrefix("fec0::/10"),
}

// public tells whether a is an address on the public internet.
func public(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// dialer connects to public addresses only, except for hosts that the operator named.
type dialer struct {
	named map[string]bool // "host" or "host:port", exact names only
}

// isNamed tells whether the operator wrote this very host.
func (d *dialer) isNamed(host, port string) bool {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return d.named[host+":"+port] || (port == "443" || port == "80") && d.named[host]
}

// DialContext checks the address that is really being connected to, after resolving: a name that was
// public when somebody looked may be private now.
func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	named := d.isNamed(host, port)
	nd := net.Dialer{
		Timeout: dialTimeout,
		Control: func(_, address string, _ syscall.RawConn) error {
			return checkAddress(host, address, named)
		},
	}
	return nd.DialContext(ctx, network, addr)
}

// checkAddress judges the resolved address "ip:port" of a host. A link-local address (where clouds keep
// their metadata and its credentials) needs to be named itself: a name that leads there is an attack.
func checkAddress(host, address string, named bool) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return reason.Refusef(reason.HostNotAllowed, "host %s: address %q: %w", host, address, err)
	}
	a := ap.Addr().Unmap().WithZone("")
	switch {
	case public(a):
		return nil
	case named && (a.IsLoopback() || a.IsPrivate() || !a.IsLinkLocalUnicast() && a.IsGlobalUnicast()):
		return nil
	case named && host == a.String():
		return nil
	}
	return reason.Refusef(reason.HostNotAllowed,
		"host %s has the address %s, which is not public; configure the registry by its name if that is meant", host, a)
}
