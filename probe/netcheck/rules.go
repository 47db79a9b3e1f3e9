package netcheck

import (
	"net/netip"
	"slices"
	"strings"

	"hawser/probe"
	"hawser/transport"
)

// rule is one line of a firewall: always outgoing. A value, so that a test compares the rules of a report and not the
// text of a sheet.
type rule struct {
	protocol string // TCP or UDP
	host     string // empty where there is but an address
	addrs    []netip.Addr
	port     uint16
	purpose  string
	need     phrase // rNeeded, rAlternative to the needed one of the same place, or rOptional
	measured string // open or closed, with the reason
	missing  bool   // it is needed, closed, and nothing open stands in for it
	refused  bool   // every port of the host was: perhaps nothing listens there
}

// rules lists everything that is dialled: servers, resolvers, time sources.
func (s *Sheet) rules() (all []rule) {
	for _, n := range s.Report.Names {
		for _, server := range n.servers {
			all = append(all, s.serverRules(n, server)...)
		}
	}
	all = append(all, s.proxyRules()...)
	for _, r := range s.Report.Resolvers {
		all = append(all, s.resolverRule(r))
	}
	for _, t := range s.Report.Time {
		all = append(all, s.timeRule(t))
	}
	return all
}

// serverRules are those of one host in one role. One open port is enough. So IT is asked for the first port, and the
// others are named as what may stand in for it.
func (s *Sheet) serverRules(n NameRow, of server) (rules []rule) {
	purpose, need := s.purpose(of.role)
	ways := only(s.Report.Ways, func(w WayRow) bool { return w.Host == n.Host && w.Role == of.role })
	open := slices.ContainsFunc(ways, WayRow.passes)
	direct := only(ways, WayRow.isDirect)
	refused := len(direct) > 0 && !slices.ContainsFunc(direct, func(w WayRow) bool { return w.Reason != transport.Refused })
	for _, port := range of.ports {
		r := rule{protocol: "TCP", host: n.Host, addrs: n.Addrs, port: uint16(port), purpose: purpose, need: need, refused: refused}
		here := only(ways, func(w WayRow) bool { return w.Port == port && w.isDirect() })
		r.measured = s.words().measuredWays(here, n)
		// An interception is no closed port: it gets a sentence of its own, about an exemption. What this machine does not
		// dial no firewall has stopped.
		r.missing = need == rNeeded && !open && len(here) > 0 && !asksNoFirewall(here[telling(here)].Reason)
		rules = append(rules, r)
		if need == rNeeded {
			need = rAlternative
		}
	}
	return rules
}

// asksNoFirewall reports whether no rule of a firewall would help.
func asksNoFirewall(r transport.Reason) bool {
	return r == transport.TLSIntercepted || r == transport.BadAddress
}

// proxyRules are those to the proxies that were tried. A gateway needs a rule to its proxy too, where a firewall stands
// between the two.
func (s *Sheet) proxyRules() (rules []rule) {
	l := s.words()
	for _, url := range s.Report.proxies() {
		_, at, _ := strings.Cut(url, "://")
		host, port, err := transport.SplitHost(at)
		if err != nil {
			continue
		}
		ways := only(s.Report.Ways, func(w WayRow) bool { return w.Proxy == url })
		rules = append(rules, rule{protocol: "TCP", host: host, port: uint16(port), purpose: l.say(rProxy), need: rAlternative,
			measured: l.measuredWays(ways, NameRow{OK: true})})
	}
	return rules
}

// proxies lists the proxies that were tried.
func (r Report) proxies() (urls []string) {
	for _, w := range r.Ways {
		if !w.isDirect() {
			urls = union(urls, []string{w.Proxy})
		}
	}
	return urls
}

// purpose says what a server is for, and how much it is needed.
func (s *Sheet) purpose(role Role) (purpose string, need phrase) {
	l, theirs := s.words(), s.Report.Profile != ""
	switch {
	case role == RoleWeb:
		return l.say(rWeb), rOptional
	case role == RoleRelay && theirs:
		return l.say(rTheirRelay), rNeeded
	case role == RoleRelay:
		return l.say(rRelay), rNeeded
	case theirs:
		return l.say(rTheirAccess), rNeeded
	}
	return l.say(rAccess), rNeeded
}

// passes reports whether firewalls let TLS through to a server. It may be the wrong
// one, which no rule would change. A list of reasons and not w.Connected: something that answers TCP for a server lets
// nothing through.
func (w WayRow) passes() bool {
	switch w.Reason {
	case "", transport.WrongRoot, transport.WrongKind, transport.WrongName, transport.BadCertificate, transport.Expired,
		transport.ClockWrong, transport.WrongProtocol, transport.TLSRefused:
		return true
	}
	return false
}

// measuredWays sums up all addresses of one host and port. One open address is enough for "open", since a program tries
// all of them.
func (l *lexicon) measuredWays(ways []WayRow, n NameRow) string {
	if len(ways) == 0 && !n.OK {
		return l.say(rNotMeasuredFor, n.Reason)
	}
	if len(ways) == 0 {
		return l.say(rNotMeasured)
	}
	if i := slices.IndexFunc(ways, WayRow.ok); i >= 0 {
		return l.say(rOpen, rttText(ways[i].RTT))
	}
	switch w := ways[telling(ways)]; {
	case w.passes():
		return l.say(rOpenBut, w.Reason)
	case w.Issuer != "":
		return l.say(rClosedBy, w.Reason, w.Issuer)
	default:
		return l.say(rClosed, w.Reason)
	}
}

// resolverRule is missing over UDP when no resolver answers over UDP. TCP is for long
// answers, and for sites that block UDP.
func (s *Sheet) resolverRule(r ResolverRow) rule {
	l := s.words()
	out := rule{protocol: "UDP", addrs: []netip.Addr{r.Server.Addr()}, port: r.Server.Port(), purpose: "DNS", need: rNeeded, measured: l.say(rClosed, r.Reason)}
	if r.Network == "tcp" {
		out.protocol, out.need = "TCP", rAlternative
	}
	switch {
	case r.OK:
		out.measured = l.say(rOpen, rttText(r.RTT))
	case r.answered():
		out.measured = l.say(rOpenBut, r.Reason)
	}
	out.missing = out.need == rNeeded && !slices.ContainsFunc(s.Report.Resolvers, func(o ResolverRow) bool { return o.Network == r.Network && o.answered() })
	return out
}

// timeRule is optional for our own infrastructure, whose servers tell a signed
// time over TLS (time §6). It is missing when no source at all answers. So the sheet does not ask for a rule that the
// gateway can do without.
func (s *Sheet) timeRule(t TimeRow) rule {
	l := s.words()
	host, port, ok := probe.SplitSource(t.Source)
	if !ok {
		host = t.Source
	}
	r := rule{protocol: "UDP", host: host, port: port, purpose: l.say(rTime), need: rOptional, measured: l.say(rClosed, t.Reason)}
	if t.Addr.IsValid() {
		r.addrs = []netip.Addr{t.Addr}
	}
	if s.Report.Profile != "" {
		r.need = rNeeded
	}
	switch {
	case t.OK:
		r.measured = l.say(rOpen, rttText(t.RTT))
	case t.answered():
		r.measured = l.say(rOpenBut, t.Reason)
	case !t.Addr.IsValid():
		r.measured = l.say(rNotMeasuredFor, t.Reason)
	}
	r.missing = r.need == rNeeded && t.Addr.IsValid() && !slices.ContainsFunc(s.Report.Time, TimeRow.answered)
	return r
}

// answered reports whether a time server has answered at all.
func (t TimeRow) answered() bool { return t.Stratum > 0 || t.Kiss != "" || t.OK }
