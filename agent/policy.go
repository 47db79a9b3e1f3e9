package agent

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Rule is one line of the owner's policy: a network and a range of ports that sessions may reach, as CIDR:PORT,
// CIDR:A-B or CIDR:*. An address is a network of one; IPv6 is in brackets. Names are not allowed: whoever answers the
// site's DNS could move the rule to another machine.
type Rule struct {
	Prefix   netip.Prefix
	From, To uint16
}

// ParseRule reads a rule as the owner writes it.
func ParseRule(s string) (Rule, error) {
	bad := func(what string) (Rule, error) {
		return Rule{}, fmt.Errorf("%q: %s; write CIDR:PORT, CIDR:A-B or CIDR:*, IPv6 as [CIDR]:PORT", s, what)
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return bad("no port")
	}
	network, ports := s[:i], s[i+1:]
	if inner, ok := strings.CutPrefix(network, "["); ok {
		if network, ok = strings.CutSuffix(inner, "]"); !ok {
			return bad("bracket without its pair")
		}
	} else if strings.Contains(network, ":") {
		return bad("IPv6 without brackets")
	}
	prefix, err := netip.ParsePrefix(network)
	if err != nil {
		a, err := netip.ParseAddr(network)
		if err != nil || a.Zone() != "" {
			return bad("not an address or network")
		}
		prefix = netip.PrefixFrom(a, a.BitLen())
	}
	// Targets are unmapped before they are compared, so such a rule would never match.
	if prefix.Addr().Is4In6() {
		return bad("IPv4 written as IPv6")
	}
	// 192.168.1.10/24 may mean the one machine or its whole network; what is open must not hang on a guess.
	if prefix != prefix.Masked() {
		return bad("bits set behind the prefix")
	}
	from, to, ok := parseRange(ports)
	if !ok {
		return bad("not a port, a range or *")
	}
	return Rule{prefix, from, to}, nil
}

// parseRange has a word for all ports, "*": an owner who means all must say so. An empty port is an error for the same
// reason.
func parseRange(s string) (from, to uint16, ok bool) {
	if s == "*" {
		return 1, 65535, true
	}
	a, b, isRange := strings.Cut(s, "-")
	if !isRange {
		b = a
	}
	lo, err1 := strconv.ParseUint(a, 10, 16)
	hi, err2 := strconv.ParseUint(b, 10, 16)
	return uint16(lo), uint16(hi), err1 == nil && err2 == nil && lo > 0 && lo <= hi
}

// String is the rule as ParseRule reads it.
func (r Rule) String() string {
	network, ports := r.Prefix.String(), strconv.Itoa(int(r.From))
	if r.Prefix.Addr().Is6() {
		network = "[" + network + "]"
	}
	switch {
	case r.From == 1 && r.To == 65535:
		ports = "*"
	case r.From != r.To:
		ports += "-" + strconv.Itoa(int(r.To))
	}
	return network + ":" + ports
}

func (r Rule) matches(a netip.AddrPort) bool {
	return r.Prefix.Contains(a.Addr()) && a.Port() >= r.From && a.Port() <= r.To
}

// Policy is what the owner lets sessions reach: the targets of the rules, none for an
// empty list, and without a list the networks of the LAN side, on every port. No
// server can widen it. It is a value: a stream is judged by what the owner and the LAN say at its beginning, and keeps
// its connection.
type Policy struct {
	Rules []Rule // nil: LAN counts
	LAN   []netip.Prefix
}

// Allows reports whether sessions may reach target. Loopback, link-local (such as the metadata address of clouds),
// multicast and unspecified addresses need a rule even if they are of a LAN network. Those reach the gateway itself,
// whose own services nobody meant to open by plugging in a cable. It is pure and asked for each stream. Addresses with
// a zone are refused: a zone names an interface of the gateway, and would choose a network that no rule names.
func (p Policy) Allows(target netip.AddrPort) bool {
	a := target.Addr()
	if !target.IsValid() || target.Port() == 0 || a.Zone() != "" {
		return false
	}
	target = netip.AddrPortFrom(a.Unmap(), target.Port()) // ::ffff:127.0.0.1 is 127.0.0.1
	if p.Rules != nil {
		for _, r := range p.Rules {
			if r.matches(target) {
				return true
			}
		}
		return false
	}
	a = target.Addr()
	if a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() {
		return false
	}
	for _, lan := range p.LAN {
		if lan.Contains(a) {
			return true
		}
	}
	return false
}
