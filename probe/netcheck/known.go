package netcheck

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
)

// Known is what a program knows by itself before it checks anything: from its configuration, its identity, its account.
// All of it may be missing. One struct for both programs: an agent knows it from files of root, a technician's PC from
// the account.
type Known struct {
	Hosts  []string
	Relays []string // of former sessions, see [RelaysIn]
	Ports  []transport.Port
	Roots  *identity.Roots
	DNS    []netip.AddrPort
	Time   []string         // sources of time beside the servers, which tell it over TLS
	Bounds transport.Bounds // what of all that it is told the program dials

	Dial func(ctx context.Context, network, address string) (net.Conn, error) // how everything leaves the machine; nil: net.Dialer

	Proxies func() transport.Proxies // nil: none

	Uplinks []Uplink // of the machine

	Now   func() time.Time                       // nil: time.Now
	Floor time.Time                              // before it, no time is right
	At    func(leaf *x509.Certificate) time.Time // as in transport.Target

	Device     string // what its operator calls the gateway
	Gateway    string // UID and domain
	Unreadable bool   // whether there is an identity: by this user
	Reach      *Reach // of an enrolled gateway; nil: not known
	Note       string // what could not be read, for the person who runs it
}

// Reach is what the owner of a gateway lets sessions reach.
type Reach struct {
	To  []string // rules of his; with LAN, the networks that are there now
	LAN bool     // he has written none, so that it is the LAN side
}

// Check is one of what is known, for Access Servers that speak alpn. Resolver and dialer are new and remember nothing:
// a name that failed a minute ago is asked for again.
func (k Known) Check(alpn string) *Check {
	resolver := &probe.Resolver{Servers: k.DNS, Private: k.Bounds.Private, Dial: k.Dial}
	c := &Check{
		Bounds: k.Bounds, Hosts: k.Hosts, Relays: k.Relays, Remembered: true, Ports: k.Ports, TimeSources: k.Time, Floor: k.Floor, Uplinks: k.Uplinks,
		Resolver: resolver,
		SNTP:     &probe.SNTP{Resolve: resolver.Resolve, Dial: k.Dial, Now: k.Now},
		Dialer:   &transport.Dialer{Resolve: resolver.Resolve, DialContext: k.Dial, Now: k.Now, Proxies: k.Proxies},
		Target: transport.Target{ALPN: alpn, Name: identity.Name{Kind: identity.KindAccess}, Roots: k.Roots, Anyone: k.Roots == nil,
			At: k.At, ClockUnsure: k.At != nil},
	}
	c.Dialer.Bounds = func() transport.Bounds { return c.Bounds }
	return c
}

// maxRemembered is how many relays of former sessions are checked. Each takes three ports and two addresses of the
// minute that all have.
const maxRemembered = 4

// A Good is a port of a host on which a server answered once.
type Good struct {
	Host string
	Port transport.Port
}

// RelaysIn finds Relay Servers among the hosts that a program reached before: those that are no Access Server. One that
// answered on a port of its own is HOST:PORT.
func RelaysIn(good []Good, access []string, ports []transport.Port) (relays []string) {
	if len(ports) == 0 {
		ports = transport.DefaultPorts()
	}
	var known []string
	for _, h := range access {
		if host, _, err := transport.SplitHost(h); err == nil {
			known = append(known, host)
		}
	}
	for _, g := range good {
		if slices.Contains(known, g.Host) {
			continue
		}
		known = append(known, g.Host)
		host := g.Host
		if g.Port != 0 && !slices.Contains(ports, g.Port) {
			host = net.JoinHostPort(host, fmt.Sprint(g.Port))
		}
		if relays = append(relays, host); len(relays) == maxRemembered {
			break
		}
	}
	return relays
}

// HardwareAddr returns the MAC address of the interface that has one of these addresses, or "". The site's IT needs it
// for lists of devices that may use the network.
func HardwareAddr(local []netip.Addr) string {
	interfaces, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil || len(i.HardwareAddr) == 0 {
			continue
		}
		if slices.ContainsFunc(addrs, func(a net.Addr) bool {
			prefix, err := netip.ParsePrefix(a.String())
			return err == nil && slices.Contains(local, prefix.Addr().Unmap())
		}) {
			return i.HardwareAddr.String()
		}
	}
	return ""
}
