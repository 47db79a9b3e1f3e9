package transport

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// A Candidate is one possible way to a server: directly to an address and port, or
// through a proxy (wire §8.2). It is a value that can be compared. Comparable on purpose: the memory of failures, the
// set of tried candidates and what programs store are keyed by it. So the proxy is a text here, which also keeps its
// password out of every key, log and file.
type Candidate struct {
	Host string // name or IP literal, as configured; sent as SNI when a name
	// Addr is where the server is. Through a proxy only its port is set: the proxy
	// is told the host, and finds the address.
	Addr  netip.AddrPort
	Proxy string // as Proxy.String has it, so without credentials; empty: direct
	Small bool   // in the small form (wire §8.1)
}

// Port is that of the server.
func (c Candidate) Port() Port { return Port(c.Addr.Port()) }

// Where says where the candidate leads, for people: ADDRESS:PORT, or HOST:PORT
// through URL.
func (c Candidate) Where() string {
	if c.Proxy == "" && c.Addr.IsValid() {
		return c.Addr.String()
	}
	where := c.Host
	if c.Addr.Port() != 0 {
		where = net.JoinHostPort(c.Host, strconv.Itoa(int(c.Addr.Port())))
	}
	if c.Proxy != "" {
		where += " through " + c.Proxy
	}
	return where
}

// The words for a way, in measurements (wire §4.8) and in answers.
const (
	// A relay's measurement names its way, so that an operator sees that a slow number includes a proxy.
	WayDirect = "direct"
	WayProxy  = "proxy"
)

// Way is WayDirect or WayProxy.
func (c Candidate) Way() string {
	if c.Proxy == "" {
		return WayDirect
	}
	return WayProxy
}

func (c Candidate) small() Candidate {
	c.Small = true
	return c
}

// full is the candidate whatever its form. It compares what was stored or tried: that a way needed the small form is a
// fact about the path near the gateway, and does not make it another way.
func (c Candidate) full() Candidate {
	c.Small = false
	return c
}

// An Attempt is the result of trying a candidate. Reason is what callers act on. RTT is that of TCP and Took the whole
// of it, the wait for a slot included.
type Attempt struct {
	Candidate
	Reason Reason        // empty: authenticated TLS completed, the port is open
	Detail string        // for people
	Issuer string        // of the certificate that the server showed, if it is a foreign one
	RTT    time.Duration // of the TCP connect, to the proxy if there is one; zero when it did not complete
	Took   time.Duration
	// GivenUp: the search had ended, because another was faster or nobody waited any more. Reason says nothing then.
	GivenUp bool

	proxyFailed bool // what failed is the proxy itself, whatever is behind it
}

// candidates lists the ways to a host in the order of wire §8: for each port all
// addresses, with their families interleaved. Ports are the outer loop, because a firewall closes a port for every
// address: after 443 failed on one address, 5935 is likelier to be open than 443 on the next one.
func candidates(host string, addrs []netip.Addr, ports []Port) []Candidate {
	var list []Candidate
	addrs = interleave(addrs)
	for _, port := range SearchOrder(ports) {
		for _, a := range addrs {
			list = append(list, Candidate{Host: host, Addr: netip.AddrPortFrom(a, uint16(port))})
		}
	}
	return list
}

// proxied lists the ways to a host through proxies: for each port all proxies.
func proxied(host string, proxies []Proxy, ports []Port) (list []Candidate) {
	for _, port := range SearchOrder(ports) {
		for _, p := range proxies {
			list = append(list, Candidate{Host: host, Addr: netip.AddrPortFrom(netip.Addr{}, uint16(port)), Proxy: p.String()})
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
// between hosts, without those that were tried already, and those that failed
// lately last. It is pure. Those that failed lately stay in the list: after an outage every candidate has failed
// lately, and a search that left them out would try nothing for 10 min.
func merge(waiting, found []Candidate, tried, resting func(Candidate) bool) []Candidate {
	var first, last []Candidate
	for i := range max(len(waiting), len(found)) {
		for _, list := range [][]Candidate{waiting, found} {
			if i >= len(list) || tried(list[i]) || slices.Contains(first, list[i]) || slices.Contains(last, list[i]) {
				continue
			}
			if resting(list[i]) {
				last = append(last, list[i])
			} else {
				first = append(first, list[i])
			}
		}
	}
	return append(first, last...)
}
