package transport

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Port is a TCP port on which a server answers. Servers answer in the same way on each of their ports; which one is
// used says only what a firewall lets out.
type Port uint16

// DefaultPorts returns the ports of every Hawser server, in the order in which
// they are tried (wire §8): fewest sites close 443.
func DefaultPorts() []Port { return []Port{443, 5935, 80} }

// SearchOrder returns ports, each once, in the order in which they are tried: as
// DefaultPorts has them, others behind as given. The order of the configuration does not count for the three: whoever
// lists 80 first to say "also 80" would slow down every search.
func SearchOrder(ports []Port) []Port {
	rank := func(p Port) int {
		if i := slices.Index(DefaultPorts(), p); i >= 0 {
			return i
		}
		return len(DefaultPorts())
	}
	var sorted []Port
	for _, p := range ports {
		if !slices.Contains(sorted, p) {
			sorted = append(sorted, p)
		}
	}
	slices.SortStableFunc(sorted, func(a, b Port) int { return rank(a) - rank(b) })
	return sorted
}

// SplitHost splits HOST, HOST:PORT or [IPV6]:PORT as users write it. Port is
// zero where none is given. The host is an IP literal or a DNS name. What people type goes through ParseHost first. What a
// configuration, a command line and a hello (wire §4.3) call a host is what
// this function takes: with two grammars, a relay enrolled under a name that
// the Access Server then refused in its hello.
func SplitHost(s string) (host string, port Port, err error) {
	host = s
	if _, err := netip.ParseAddr(s); err != nil && strings.Contains(s, ":") {
		var p string
		if host, p, err = net.SplitHostPort(s); err != nil {
			return "", 0, fmt.Errorf("host %.100q: not HOST or HOST:PORT", s)
		}
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("host %.100q: port is not 1 to 65535", s)
		}
		port = Port(n)
	}
	if _, ok := HostName(host); !ok && !isAddr(host) {
		return "", 0, fmt.Errorf("host %.100q: neither an IP address nor a DNS name", s)
	}
	return host, port, nil
}

// ParseHost reads a host as a person types or pastes it, and returns it as SplitHost takes it: HOST or HOST:PORT. Spaces
// around it, https:// before it and a slash behind it are removed; in a URL an IPv6 address without a port has brackets,
// too. Every command line and configuration file reads hosts by this function. The error quotes at most 100 bytes of
// what was typed, and says nothing of networks: none is asked.
func ParseHost(typed string) (string, error) {
	s := strings.TrimSpace(typed)
	if scheme, rest, ok := strings.Cut(s, "://"); ok && strings.EqualFold(scheme, "https") {
		s = rest
	}
	s = strings.TrimSuffix(s, "/")
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") && strings.Contains(inner, ":") {
		s = strings.TrimSuffix(inner, "]")
	}
	if strings.ContainsAny(s, "/@?#") {
		return "", fmt.Errorf("host %.100q: want HOST or HOST:PORT, no URL", typed)
	}
	if _, _, err := SplitHost(s); err != nil {
		return "", err
	}
	return s, nil
}

// From names §1. A name has 253 bytes where the RFC has 255 octets: those on the wire have a length before each label
// and the root's.
const (
	nameBytes  = "abcdefghijklmnopqrstuvwxyz0123456789-_"
	maxName    = 253 // bytes of a name without the final dot (RFC 1035 §2.3.4)
	maxLabel   = 63  // bytes
	maxZoneLen = 32  // bytes; an interface of Linux has 15
)

// HostName returns a DNS name as DNS compares it: in lower case, without the
// final dot. ok is false for an IP literal and for what no host is called
// (names §1), so that a name needs no escaping behind it. Underscores pass, which RFC 1123 does not have for hosts:
// sites have such names, and DNS carries them.
func HostName(host string) (name string, ok bool) {
	name = strings.ToLower(strings.TrimSuffix(host, "."))
	if len(name) > maxName {
		return "", false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return "", false
		}
	}
	return name, true
}

func isLabel(s string) bool {
	return s != "" && len(s) <= maxLabel && strings.Trim(s, nameBytes) == "" && s[0] != '-' && s[len(s)-1] != '-'
}

// isAddr reports whether s is an IP literal that can be printed: netip takes
// any bytes as the zone of an IPv6 address.
func isAddr(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && len(a.Zone()) <= maxZoneLen && strings.Trim(strings.ToLower(a.Zone()), nameBytes+".") == ""
}
