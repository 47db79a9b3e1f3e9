package probe

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Inspection is how one DNS server behaved over one network (names §2). A Resolver
// uses the first good answer of any server, so it cannot tell.
type Inspection struct {
	Server   netip.AddrPort
	Network  string        // udp or tcp
	OK       bool          // it gave an address that can be used
	Name     string        // that was asked
	Addrs    []netip.Addr  // as answered, at most 8, never nil
	RTT      time.Duration // of the query that was answered, over TCP with the connect
	Reason   Reason        // names §7; empty when OK
	Findings []Oddity      // never nil
}

// Oddity is something about a resolver that the site's IT should know, as one word of
// a closed list (cli §2). Most of them do not keep a Resolver from finding names.
type Oddity string

// The oddities of a resolver.
const (
	NXDomainHijack Oddity = "nxdomain-hijack" // names that do not exist have addresses
	PrivateAddress Oddity = "private-address" // a public name has an address of a private network
	LocalAddress   Oddity = "local-address"   // a name has an address that no server can have (names §5)
	ChangesCase    Oddity = "changes-case"    // letters come back in another case (0x20)
	NoEDNS         Oddity = "no-edns"         // queries with EDNS are refused or dropped
	UDPBlocked     Oddity = "udp-blocked"     // it answers over TCP alone
	TCPBlocked     Oddity = "tcp-blocked"     // it answers over UDP alone
)

const (
	plainSilence = 2 * time.Second // for the last try, after two of 1.5 s: 5 s in all, as a connect
	streamBudget = 5 * time.Second // for all queries over TCP
)

// Answered reports whether the server itself has said anything.
func (i Inspection) Answered() bool {
	return i.Reason != ReasonTimeout && i.Reason != ReasonUnreachable
}

// Inspect asks one server over one network, udp or tcp, and blocks for a few
// seconds at most. If ctx ends first, the result says nothing about the server.
func (r *Resolver) Inspect(ctx context.Context, server netip.AddrPort, network, name string) Inspection {
	a := &asker{dial: r.dial, server: server, network: network, mixed: true, edns: true}
	return a.inspect(ctx, name, r.Private)
}

// asker sends queries to one server over one network, in the form that it has accepted
// so far.
type asker struct {
	dial        func(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error)
	server      netip.AddrPort
	network     string
	mixed, edns bool     // the form: mixed letter case, EDNS
	stream      net.Conn // over TCP, the same for all queries
}

// inspect sends the queries that fill an Inspection, one after the other.
func (a *asker) inspect(ctx context.Context, name string, private bool) Inspection {
	found := Inspection{Server: a.server, Network: a.network, Name: name, Addrs: []netip.Addr{}, Findings: []Oddity{}}
	if a.network == "tcp" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, streamBudget)
		defer cancel()
	}
	begin := time.Now()
	if a.network == "tcp" {
		conn, err := a.dial(ctx, a.network, a.server)
		if err != nil {
			found.Reason = failed(ctx, err).reason
			return found
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		a.stream = conn
	}
	rep, took := a.first(ctx, name, begin)
	if found.Reason = rep.reason; !found.Answered() {
		return found
	}
	found.RTT = took
	found.learn(a, rep, a.again(ctx, name, typeAAAA), private)
	if hijacked(a.again(ctx, strangerUnder("invalid"), typeA).addrs, a.again(ctx, strangerUnder(domainOf(name)), typeA).addrs, found.Addrs) {
		found.Findings = append(found.Findings, NXDomainHijack)
	}
	return found
}

// learn fills in what the answers for both families show.
func (i *Inspection) learn(a *asker, v4, v6 reply, private bool) {
	all := limit(appendNew(v4.addrs, v6.addrs))
	good := usable(all, private)
	i.Addrs = appendNew(i.Addrs, all)
	switch {
	case len(good) > 0:
		i.OK, i.Reason = true, ""
	case len(all) > 0:
		i.Reason = ReasonBadAddress
	}
	i.note(len(good) < len(all), LocalAddress)
	i.note(!private && slices.ContainsFunc(good, netip.Addr.IsPrivate), PrivateAddress)
	i.note(a.network == "udp" && !a.mixed, ChangesCase)
	i.note(a.network == "udp" && !a.edns, NoEDNS)
}

func (i *Inspection) note(seen bool, o Oddity) {
	if seen {
		i.Findings = append(i.Findings, o)
	}
}

// first asks for the IPv4 addresses until an answer comes, and returns how long that query took. EDNS is left out at
// the third try only, since datagrams get lost.
func (a *asker) first(ctx context.Context, name string, begin time.Time) (reply, time.Duration) {
	if a.stream != nil {
		rep := a.ask(ctx, name, typeA, streamBudget)
		return rep, time.Since(begin)
	}
	for _, wait := range []time.Duration{silence, silence, plainSilence} {
		a.edns = a.edns && wait == silence
		begin = time.Now()
		rep := a.ask(ctx, name, typeA, wait)
		if rep.fit == mangled {
			a.mixed, begin = false, time.Now()
			rep = a.ask(ctx, name, typeA, wait)
		}
		if rep.fit == formErr && a.edns {
			a.edns, begin = false, time.Now()
			rep = a.ask(ctx, name, typeA, wait)
		}
		if rep.reason != ReasonTimeout {
			return rep, time.Since(begin)
		}
	}
	return reply{reason: ReasonTimeout}, 0
}

// again asks in the form that first has found, and a second time after silence.
func (a *asker) again(ctx context.Context, name string, qtype uint16) reply {
	rep := a.ask(ctx, name, qtype, silence)
	if a.stream == nil && rep.reason == ReasonTimeout {
		rep = a.ask(ctx, name, qtype, silence)
	}
	return rep
}

// ask sends one query, over UDP from a new socket.
func (a *asker) ask(ctx context.Context, name string, qtype uint16, wait time.Duration) reply {
	if a.stream != nil {
		return overTCP(ctx, a.stream, newQuery(name, qtype, false))
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	conn, err := a.dial(ctx, a.network, a.server)
	if err != nil {
		return failed(ctx, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	q := newQuery(name, qtype, a.mixed)
	if err := sendUDP(conn, q, a.edns); err != nil {
		return failed(ctx, err)
	}
	rep, err := readUDP(conn, q, make([]byte, datagramBytes))
	if err != nil {
		return failed(ctx, err)
	}
	return rep
}

// strangerUnder is a random name that does not exist.
func strangerUnder(domain string) string { return strings.ToLower(rand.Text()) + "." + domain }

// domainOf is the domain that name is in, or name itself under a top-level domain,
// whose registry may answer for every name.
func domainOf(name string) string {
	if _, parent, ok := strings.Cut(name, "."); ok && strings.Contains(parent, ".") {
		return parent
	}
	return name
}

// hijacked judges the answers for two names that do not exist: one under .invalid,
// which nobody can own (RFC 6761 §6.4), and one in the domain of the server, because
// some resolvers answer for .invalid themselves. The second may have the server's
// address, own, if the zone has a wildcard.
func hijacked(invalid, sibling, own []netip.Addr) bool {
	wildcard := slices.ContainsFunc(sibling, func(a netip.Addr) bool { return slices.Contains(own, a) })
	return len(invalid) > 0 || len(sibling) > 0 && !wildcard
}
