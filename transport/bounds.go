package transport

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Bounds say where a client lets itself be led by what it is told (wire §8.3): who answers DNS, and who has stolen a
// relay, must not choose which machine beside a gateway is sent a hello, and learn from its answer. It is a value.
type Bounds struct {
	Hosts   []string       // of its configuration, as SplitHost takes them
	Ports   []Port         // of its configuration, beside DefaultPorts
	Private bool           // the infrastructure has private addresses
	LAN     []netip.Prefix // of the machines
	// Allowed reports whether the owner has a rule that names an address and port: a machine is there. Nil: there are no
	// rules.
	Allowed func(netip.AddrPort) bool
}

// Judge returns nil for a candidate that may be dialled, else an *Error with reason bad-address. It is pure.
func (b Bounds) Judge(c Candidate) error {
	if why := b.Refuses(c); why != "" {
		return &Error{Reason: BadAddress, Err: errors.New(why)}
	}
	return nil
}

// AllPorts are those that are dialled, each once.
func (b Bounds) AllPorts() []Port {
	return SearchOrder(slices.Concat(DefaultPorts(), b.Ports, b.own().ports))
}

// Refuses says why a candidate is not dialled; empty: it may be.
func (b Bounds) Refuses(c Candidate) string {
	why := b.refusesAddr(c)
	if why == "" && !slices.Contains(b.AllPorts(), c.Port()) {
		why = fmt.Sprintf("port %d is not 443, 5935 or 80, and not of its configuration", c.Port())
	}
	return why
}

func (b Bounds) refusesAddr(c Candidate) string {
	addr := c.Addr.Addr()
	if c.Proxy != "" {
		literal, err := netip.ParseAddr(c.Host)
		switch {
		case err == nil:
			addr = literal
		case isNumber(c.Host):
			return "an address is written as a name"
		default:
			return ""
		}
	}
	own := b.own().addrs
	if slices.Contains(own, addr.Unmap()) {
		return ""
	}
	if addr.Zone() != "" {
		return "it names an interface of this machine"
	}
	addr = meant(addr)
	switch {
	case isNoServer(addr):
		return "no server can have this address"
	case slices.ContainsFunc(b.LAN, func(p netip.Prefix) bool { return p.Contains(addr) }):
		return "it is on the LAN side, where the machines are"
	case b.Allowed != nil && b.Allowed(netip.AddrPortFrom(addr, c.Addr.Port())):
		return "allow names it, so that it is a machine"
	case addr.IsLoopback() && !slices.ContainsFunc(own, netip.Addr.IsLoopback):
		return "it is this machine, and no address of its configuration is"
	case !b.Private && (addr.IsLoopback() || isPrivate(addr)):
		return "it is private, and the infrastructure is not declared private"
	}
	return ""
}

// literals are the addresses and ports that hosts of a configuration name.
type literals struct {
	addrs []netip.Addr
	ports []Port
}

func (b Bounds) own() (l literals) {
	for _, h := range b.Hosts {
		host, port, err := SplitHost(h)
		if err != nil {
			continue
		}
		if port != 0 {
			l.ports = append(l.ports, port)
		}
		if a, err := netip.ParseAddr(host); err == nil {
			l.addrs = append(l.addrs, a.Unmap())
		}
	}
	return l
}

// meant is the IPv4 address for which one of IPv6 stands, or a itself: a gateway with NAT64 reaches its LAN by
// 64:ff9b::/96 (RFC 6052), one with a tunnel by 2002::/16 (RFC 3056).
func meant(a netip.Addr) netip.Addr {
	if a = a.Unmap(); !a.Is6() {
		return a
	}
	b := a.As16()
	switch {
	case in(a, "2002::/16"):
		return netip.AddrFrom4([4]byte(b[2:6]))
	case in(a, "64:ff9b::/96"), in(a, "::/96") && !a.IsLoopback() && !a.IsUnspecified():
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// isNoServer reports whether no server has such an address, however private its network is.
func isNoServer(a netip.Addr) bool {
	return !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || in(a, "0.0.0.0/8", "240.0.0.0/4")
}

// isPrivate reports whether an address means another machine in each network (RFC 1918, 4193, 6598, 8215, 3879).
func isPrivate(a netip.Addr) bool {
	return a.IsPrivate() || in(a, "100.64.0.0/10", "fec0::/10", "64:ff9b:1::/48")
}

func in(a netip.Addr, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return netip.MustParsePrefix(p).Contains(a) })
}

// isNumber reports whether a host is an IPv4 address in a spelling that ParseAddr does not take and libraries of C do, such
// as 127.1 or 0x7f000001: its last label is a number.
func isNumber(host string) bool {
	name, ok := HostName(host)
	last := name[strings.LastIndexByte(name, '.')+1:]
	_, err := strconv.ParseUint(last, 0, 64) // with 0x
	return !ok || err == nil || strings.Trim(last, "0123456789") == ""
}
