//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"slices"
)

// segment is one switch and the network on it. Its name is also that of the interfaces plugged into it.
type segment struct {
	name   string
	v4, v6 string // prefixes without the host's number; v6 may be empty
}

// The addresses are set apart for documentation (RFC 5737, RFC 3849), except those of the two networks that are private in life
// as well: those behind the customer's firewall.
func segments() []segment {
	return []segment{
		{"wan", "203.0.113.", "2001:db8:113::"},
		{"site", "10.20.0.", "2001:db8:20::"},
		{"lan", "192.168.10.", ""},
	}
}

// addrs are the addresses of the host with that number. The last digits of both families read the same.
func (s segment) addrs(number int) []netip.Prefix {
	all := []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("%s%d/24", s.v4, number))}
	if s.v6 != "" {
		all = append(all, netip.MustParsePrefix(fmt.Sprintf("%s%d/64", s.v6, number)))
	}
	return all
}

// host is one network namespace.
type host struct {
	name   string
	cables []cable // the first one leads to the way out
}

// cable plugs a host into a segment.
type cable struct {
	segment segment
	number  int // of the host on the segment
	gateway int // number of the way to everywhere else; 0 is none
}

// port is the far end of the cable, in the switch.
func (h host) port(c cable) string { return h.name + "-" + c.segment.name }

// addrs are all addresses of h, those of its first cable first.
func (h host) addrs() (all []netip.Addr) {
	for _, c := range h.cables {
		for _, p := range c.segment.addrs(c.number) {
			all = append(all, p.Addr())
		}
	}
	return all
}

// hosts is everybody in the lab. The last digits follow the model where it has some (53 for DNS, 123 for time), so that an
// address in a log or a packet says whose it is.
func (o options) hosts() []host {
	wan, site, lan := segments()[0], segments()[1], segments()[2]
	all := []host{
		{"site", []cable{{wan, 1, 0}, {site, 1, 0}}},
		{"device", []cable{{site, 2, 1}, {lan, 1, 0}}},
		{"access1", []cable{{wan, 11, 0}}},
		{"access2", []cable{{wan, 12, 0}}},
		{"dns", []cable{{wan, 53, 0}}},
		{"dns-tcp", []cable{{wan, 54, 0}}},
		{"dns-lame", []cable{{wan, 55, 0}}},
		{"dns-hijack", []cable{{wan, 56, 0}}},
		{"time", []cable{{wan, 123, 0}}},
		{"time-ahead", []cable{{wan, 124, 0}}},
		{"time-lost", []cable{{wan, 125, 0}}},
		{"time-limit", []cable{{wan, 126, 0}}},
		{"time-ntpsec", []cable{{wan, 127, 0}}},
		{"time-kod", []cable{{wan, 128, 0}}},
		{"tech", []cable{{wan, 200, 0}}},
	}
	for i := range o.relays {
		all = append(all, host{fmt.Sprintf("relay%d", i+1), []cable{{wan, 21 + i, 0}}})
	}
	// PLCs have no way out, as in most machine halls: only who stands on their network reaches them.
	for i := range o.plcs {
		all = append(all, host{fmt.Sprintf("plc%d", i+1), []cable{{lan, 11 + i, 0}}})
	}
	return all
}

// names are what the lab's resolver knows, each with the host it leads to: the reference infrastructure, and HOST.example
// for every host on the WAN. With fewer relays than reference names, several names share one.
func (o options) names() map[string]string {
	all := map[string]string{
		"ccas1.keb.de": "access1", "ccas2.keb.de": "access2",
		"combivisconnect.com": "access1", "webapi.combivisconnect.com": "access1", "help.combivisconnect.com": "access1",
	}
	for i := range maxRelays {
		all[fmt.Sprintf("ubiquityrs%d.asem.it", i+1)] = fmt.Sprintf("relay%d", i%o.relays+1)
	}
	for _, h := range o.hosts() {
		if h.cables[0].segment.name == "wan" {
			all[h.name+".example"] = h.name
		}
	}
	return all
}

// find returns the host of that name.
func find(hosts []host, name string) (host, bool) {
	i := slices.IndexFunc(hosts, func(h host) bool { return h.name == name })
	if i < 0 {
		return host{}, false
	}
	return hosts[i], true
}
