package probe

import (
	"fmt"
	"net/netip"
	"slices"

	"hawser/transport"
)

// rule is one line of a firewall: always outgoing.
type rule struct {
	protocol string // TCP or UDP
	host     string // empty where there is but an address
	addrs    []netip.Addr
	port     uint16
	purpose  string
	need     need
	measured string // open or closed, with the reason
	missing  bool   // it is needed, closed, and nothing open stands in for it
}

// need is what a rule is to the whole.
type need string

const (
	isNeeded      need = "needed"
	isAlternative need = "alternative" // to the needed one of the same place
	isOptional    need = "optional"
)

// rules lists all that is dialled: servers, resolvers, time sources.
func (s *Sheet) rules() (all []rule) {
	for _, n := range s.Report.Names {
		all = append(all, s.serverRules(n)...)
	}
	for _, r := range s.Report.Resolvers {
		all = append(all, s.resolverRule(r))
	}
	for _, t := range s.Report.Time {
		all = append(all, s.timeRule(t))
	}
	return all
}

// serverRules are those of one host. One open port is enough.
func (s *Sheet) serverRules(n NameRow) (rules []rule) {
	purpose, need := s.role(n.Host)
	ways := only(s.Report.Ways, func(w WayRow) bool { return w.Host == n.Host })
	open := slices.ContainsFunc(ways, WayRow.passes)
	for _, port := range n.ports {
		r := rule{protocol: "TCP", host: n.Host, addrs: n.Addrs, port: uint16(port), purpose: purpose, need: need}
		of := only(ways, func(w WayRow) bool { return w.Port == port })
		r.measured = measuredWays(of, n)
		r.missing = need == isNeeded && !open && len(of) > 0 && of[telling(of)].Reason != transport.TLSIntercepted
		rules = append(rules, r)
		if need == isNeeded {
			need = isAlternative
		}
	}
	return rules
}

// role says what a host is for, and how much it is needed.
func (s *Sheet) role(host string) (purpose string, n need) {
	p, _ := ProfileNamed(s.Report.Profile)
	switch {
	case s.Report.Profile == "":
		return "Access Server: enrolment, presence, sessions", isNeeded
	case slices.Contains(p.Access, host):
		return "Access Server", isNeeded
	case slices.Contains(p.Relays, host):
		return "Relay Server", isNeeded
	}
	return "web site of the maker", isOptional
}

// passes says whether a firewall lets TLS through to some server, which may be
// the wrong one: that is no matter of rules.
func (w WayRow) passes() bool {
	switch w.Reason {
	case "", transport.WrongRoot, transport.WrongKind, transport.WrongName, transport.BadCertificate, transport.Expired,
		transport.ClockWrong, transport.WrongProtocol, transport.TLSRefused:
		return true
	}
	return false
}

// measuredWays sums up all addresses of one host and port.
func measuredWays(ways []WayRow, n NameRow) string {
	if len(ways) == 0 && !n.OK {
		return "not measured: " + string(n.Reason)
	}
	if len(ways) == 0 {
		return "not measured"
	}
	if i := slices.IndexFunc(ways, func(w WayRow) bool { return w.OK }); i >= 0 {
		return "open, " + rttText(ways[i].RTT)
	}
	switch w := ways[telling(ways)]; {
	case w.passes():
		return "open, but " + string(w.Reason)
	case w.Issuer != "":
		return "closed: " + string(w.Reason) + " by " + w.Issuer
	default:
		return "closed: " + string(w.Reason)
	}
}

// resolverRule is missing over UDP when no resolver at all answers over it; TCP
// is there for long answers, and for sites that block UDP.
func (s *Sheet) resolverRule(r ResolverRow) rule {
	out := rule{protocol: "UDP", addrs: []netip.Addr{r.Server.Addr()}, port: r.Server.Port(), purpose: "DNS", need: isNeeded, measured: "closed: " + string(r.Reason)}
	if r.Network == "tcp" {
		out.protocol, out.need = "TCP", isAlternative
	}
	switch {
	case r.OK:
		out.measured = "open, " + rttText(r.RTT)
	case r.answered():
		out.measured = "open, but " + string(r.Reason)
	}
	out.missing = out.need == isNeeded && !slices.ContainsFunc(s.Report.Resolvers, func(o ResolverRow) bool { return o.Network == r.Network && o.answered() })
	return out
}

// timeRule is optional for our own infrastructure, whose servers tell a signed
// time over TLS (time §6). It is missing when no source at all answers.
func (s *Sheet) timeRule(t TimeRow) rule {
	host, port, ok := splitSource(t.Source)
	if !ok {
		host, port = t.Source, ntpPort
	}
	r := rule{protocol: "UDP", host: host, port: port, purpose: "time (NTP)", need: isOptional, measured: "closed: " + string(t.Reason)}
	if t.Addr.IsValid() {
		r.addrs = []netip.Addr{t.Addr}
	}
	if s.Report.Profile != "" {
		r.need = isNeeded
	}
	switch {
	case t.OK:
		r.measured = fmt.Sprintf("open, %s", rttText(t.RTT))
	case t.answered():
		r.measured = "open, but " + string(t.Reason)
	case !t.Addr.IsValid():
		r.measured = "not measured: " + string(t.Reason)
	}
	r.missing = r.need == isNeeded && t.Addr.IsValid() && !slices.ContainsFunc(s.Report.Time, TimeRow.answered)
	return r
}

// answered says whether a time server sent anything that was an answer.
func (t TimeRow) answered() bool { return t.Stratum > 0 || t.Kiss != "" || t.OK }
