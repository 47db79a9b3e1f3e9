package transport

import (
	"net/netip"
	"slices"
	"time"
)

// A Candidate is one possible way to a server: its address and port, and the
// host that was asked for. The way is always direct.
type Candidate struct {
	Host string // name or IP literal, as configured; sent as SNI when a name
	Addr netip.AddrPort
}

// An Attempt is a candidate that was tried, and what came of it.
type Attempt struct {
	Candidate
	Reason Reason        // empty: authenticated TLS completed, the port is open
	Detail string        // for people
	Issuer string        // of the certificate that was shown, when it was a foreign one
	RTT    time.Duration // of the TCP connect; zero when it did not complete
	Took   time.Duration
}

// candidates puts the addresses of a host in the order of wire §8: ports
// outside, addresses with their families interleaved inside. So a port that a
// firewall closes costs one step, whichever address it is tried on.
func candidates(host string, addrs []netip.Addr, ports []Port) []Candidate {
	var list []Candidate
	addrs = interleave(addrs)
	for _, port := range inOrder(ports) {
		for _, a := range addrs {
			list = append(list, Candidate{host, netip.AddrPortFrom(a, uint16(port))})
		}
	}
	return list
}

// interleave alternates address families and keeps the order within each
// (RFC 8305 §4), so that a broken IPv6 costs one step and not all of them.
func interleave(addrs []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.Unmap().Is4() == addrs[0].Unmap().Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	var out []netip.Addr
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out
}

// merge adds found to the candidates that are still to be tried: alternating
// between hosts, without those that were tried already, resting ones last.
func merge(waiting, found []Candidate, tried, resting func(Candidate) bool) []Candidate {
	var fresh, tired []Candidate
	for i := range max(len(waiting), len(found)) {
		for _, list := range [][]Candidate{waiting, found} {
			if i >= len(list) || tried(list[i]) || slices.Contains(fresh, list[i]) || slices.Contains(tired, list[i]) {
				continue
			}
			if resting(list[i]) {
				tired = append(tired, list[i])
			} else {
				fresh = append(fresh, list[i])
			}
		}
	}
	return append(fresh, tired...)
}
