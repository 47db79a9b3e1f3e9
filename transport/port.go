package transport

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Port is a TCP port on which a server answers.
type Port uint16

// DefaultPorts returns the ports of every Hawser server, in the order in which
// they are tried (wire §8): fewest sites close 443.
func DefaultPorts() []Port { return []Port{443, 5935, 80} }

// inOrder sorts ports as DefaultPorts has them, others behind in the order given.
func inOrder(ports []Port) []Port {
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
// zero where none is given. The host is an IP literal or a DNS name.
func SplitHost(s string) (host string, port Port, err error) {
	host = s
	if _, err := netip.ParseAddr(s); err != nil && strings.Contains(s, ":") {
		var p string
		if host, p, err = net.SplitHostPort(s); err != nil {
			return "", 0, fmt.Errorf("host %q: not HOST or HOST:PORT", s)
		}
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("host %q: port is not 1 to 65535", s)
		}
		port = Port(n)
	}
	if _, err := netip.ParseAddr(host); err != nil && !dnsName(host) {
		return "", 0, fmt.Errorf("host %q: neither an IP address nor a DNS name", s)
	}
	return host, port, nil
}

// dnsName reports whether s can be a host name (RFC 1123 §2.1; underscores,
// which real zones have, are allowed).
func dnsName(s string) bool {
	if s = strings.TrimSuffix(s, "."); s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
