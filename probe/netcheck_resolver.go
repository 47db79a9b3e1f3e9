package probe

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"hawser/transport"
)

// ResolverRow is what one DNS server did over one network, asked by itself for
// the name of a server (names §2). It shows what a Resolver, which is content
// with the first good answer, does not tell.
type ResolverRow struct {
	Server   netip.AddrPort `json:"server"`
	Network  string         `json:"network"` // udp or tcp
	OK       bool           `json:"ok"`      // it gave an address that can be used
	Name     string         `json:"name"`    // that was asked
	Addrs    []netip.Addr   `json:"addrs"`   // as answered, at most 8, never nil
	RTT      float64        `json:"rtt_ms"`  // of the question that was answered, with the connect over TCP
	Reason   Reason         `json:"reason"`  // names §7; empty when OK
	Findings []Oddity       `json:"findings"`
}

// Oddity is something about a resolver that its owner should know, one word of
// a closed list (cli §2). Names are found in spite of most of them.
type Oddity string

// The oddities of a resolver.
const (
	NXDomainHijack Oddity = "nxdomain-hijack" // names that do not exist have addresses
	PrivateAddress Oddity = "private-address" // a public name has an address of a private network
	LocalAddress   Oddity = "local-address"   // a name has an address that no server can have (names §5)
	ChangesCase    Oddity = "changes-case"    // letters come back in another case (0x20)
	NoEDNS         Oddity = "no-edns"         // questions with EDNS are refused, or vanish
	UDPBlocked     Oddity = "udp-blocked"     // it answers over TCP alone
	TCPBlocked     Oddity = "tcp-blocked"     // it answers over UDP alone
)

const (
	plainSilence = 2 * time.Second // for the last try, after two of 1.5 s: 5 s in all, as a connect
	streamBudget = 5 * time.Second // for all questions over TCP
)

// answered says whether anything came back that the server itself said.
func (r ResolverRow) answered() bool {
	return r.Reason != ReasonTimeout && r.Reason != ReasonUnreachable
}

// askedName is the first name that a client here has to resolve, or nothing.
func (c *check) askedName() string {
	for _, h := range c.Hosts {
		if host, _, err := transport.SplitHost(h); err == nil {
			if name, ok := dnsName(host); ok {
				return name
			}
		}
	}
	for _, s := range c.TimeSources {
		if host, _, ok := splitSource(s); ok {
			if name, ok := dnsName(host); ok {
				return name
			}
		}
	}
	return ""
}

func dnsName(host string) (string, bool) {
	if _, err := netip.ParseAddr(host); err == nil {
		return "", false
	}
	return canonicalName(host)
}

// resolver asks one server over both networks at once.
func (c *check) resolver(ctx context.Context, order int, server netip.AddrPort, name string) {
	rows := [2]ResolverRow{}
	var both sync.WaitGroup
	for i, network := range []string{"udp", "tcp"} {
		both.Go(func() {
			a := &asker{dial: c.Resolver.dial, server: server, network: network, mixed: true, edns: true}
			if network == "tcp" {
				c.dials <- struct{}{} // soon free again, since every dial ends with ctx
				defer func() { <-c.dials }()
			}
			rows[i] = a.row(ctx, name, c.Resolver.Private)
		})
	}
	both.Wait()
	switch udp, tcp := rows[0].answered(), rows[1].answered(); {
	case tcp && !udp:
		rows[0].Findings = append(rows[0].Findings, UDPBlocked)
	case udp && !tcp:
		rows[1].Findings = append(rows[1].Findings, TCPBlocked)
	}
	for i, row := range rows {
		if ctx.Err() != nil && !row.answered() {
			c.results <- finished{order: order + i} // cut short, which says nothing
			continue
		}
		c.results <- finished{order + i, row}
	}
}

// asker puts questions to one server over one network, and learns how it wants
// them.
type asker struct {
	dial        func(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error)
	server      netip.AddrPort
	network     string
	mixed, edns bool     // how it is asked
	stream      net.Conn // over TCP, one for all questions
}

// row asks all that a ResolverRow tells, one question after the other.
func (a *asker) row(ctx context.Context, name string, private bool) ResolverRow {
	row := ResolverRow{Server: a.server, Network: a.network, Name: name, Addrs: []netip.Addr{}, Findings: []Oddity{}}
	if a.network == "tcp" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, streamBudget)
		defer cancel()
	}
	begin := time.Now()
	if a.network == "tcp" {
		conn, err := a.dial(ctx, a.network, a.server)
		if err != nil {
			row.Reason = failed(ctx, err).reason
			return row
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		a.stream = conn
	}
	rep, took := a.first(ctx, name, begin)
	if row.Reason = rep.reason; !row.answered() {
		return row
	}
	row.RTT = millis(took)
	row.learn(a, rep, a.again(ctx, name, typeAAAA), private)
	if hijacked(a.again(ctx, strangerUnder("invalid"), typeA).addrs, a.again(ctx, strangerUnder(domainOf(name)), typeA).addrs, row.Addrs) {
		row.Findings = append(row.Findings, NXDomainHijack)
	}
	return row
}

// learn writes down what two answers tell.
func (r *ResolverRow) learn(a *asker, v4, v6 reply, private bool) {
	all := limit(appendNew(v4.addrs, v6.addrs))
	good := usable(all, private)
	r.Addrs = appendNew(r.Addrs, all)
	switch {
	case len(good) > 0:
		r.OK, r.Reason = true, ""
	case len(all) > 0:
		r.Reason = ReasonBadAddress
	}
	r.note(len(good) < len(all), LocalAddress)
	r.note(!private && slices.ContainsFunc(good, netip.Addr.IsPrivate), PrivateAddress)
	r.note(a.network == "udp" && !a.mixed, ChangesCase)
	r.note(a.network == "udp" && !a.edns, NoEDNS)
}

func (r *ResolverRow) note(seen bool, o Oddity) {
	if seen {
		r.Findings = append(r.Findings, o)
	}
}

// first asks for the IPv4 addresses until something comes back, and says how
// long that question took. One lost datagram is no firewall: EDNS is left out
// only at the third try.
func (a *asker) first(ctx context.Context, name string, begin time.Time) (reply, time.Duration) {
	if a.stream != nil {
		rep := a.ask(ctx, name, typeA, streamBudget)
		return rep, time.Since(begin)
	}
	for _, wait := range []time.Duration{silence, silence, plainSilence} {
		a.edns = a.edns && wait == silence
		begin = time.Now()
		rep := a.ask(ctx, name, typeA, wait)
		if rep.verdict == mangled {
			a.mixed, begin = false, time.Now()
			rep = a.ask(ctx, name, typeA, wait)
		}
		if rep.verdict == formErr && a.edns {
			a.edns, begin = false, time.Now()
			rep = a.ask(ctx, name, typeA, wait)
		}
		if rep.reason != ReasonTimeout {
			return rep, time.Since(begin)
		}
	}
	return reply{reason: ReasonTimeout}, 0
}

// again asks in the way that first has found, and once more when it is silent.
func (a *asker) again(ctx context.Context, name string, qtype uint16) reply {
	rep := a.ask(ctx, name, qtype, silence)
	if a.stream == nil && rep.reason == ReasonTimeout {
		rep = a.ask(ctx, name, qtype, silence)
	}
	return rep
}

// ask puts one question: over UDP from a socket of its own.
func (a *asker) ask(ctx context.Context, name string, qtype uint16, wait time.Duration) reply {
	if a.stream != nil {
		return overTCP(ctx, a.stream, newQuestion(name, qtype, false))
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	conn, err := a.dial(ctx, a.network, a.server)
	if err != nil {
		return failed(ctx, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	q := newQuestion(name, qtype, a.mixed)
	if err := sendUDP(conn, q, a.edns); err != nil {
		return failed(ctx, err)
	}
	rep, err := readUDP(conn, q, make([]byte, datagramBytes))
	if err != nil {
		return failed(ctx, err)
	}
	return rep
}

// strangerUnder is a name that nobody has.
func strangerUnder(domain string) string { return strings.ToLower(rand.Text()) + "." + domain }

// domainOf is the domain in which the infrastructure's other names are: never
// a top level, where the registry may answer for all.
func domainOf(name string) string {
	if _, parent, ok := strings.Cut(name, "."); ok && strings.Contains(parent, ".") {
		return parent
	}
	return name
}

// hijacked judges the answers for two names that do not exist: one under
// .invalid, which nobody can own (RFC 6761 §6.4), and one in the domain of the
// server, because resolvers answer for .invalid themselves. There the zone's
// owner may have written "*", which leads to where the server is.
func hijacked(invalid, sibling, own []netip.Addr) bool {
	wildcard := slices.ContainsFunc(sibling, func(a netip.Addr) bool { return slices.Contains(own, a) })
	return len(invalid) > 0 || len(sibling) > 0 && !wildcard
}

// String is the row in one line, for progress.
func (r ResolverRow) String() string { return line("resolver", r) }

func (r ResolverRow) cells() []string {
	all := []string{mark(r.OK), r.Server.String(), r.Network}
	if r.OK {
		all = append(all, joined(r.Addrs, " "), rttText(r.RTT))
	} else {
		all = append(all, string(r.Reason))
	}
	if len(r.Findings) > 0 {
		texts := make([]string, len(r.Findings))
		for i, f := range r.Findings {
			texts[i] = string(f)
		}
		all = append(all, strings.Join(texts, ", "))
	}
	return all
}
