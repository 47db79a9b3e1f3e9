package netcheck

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
)

// Finding is the verdict of a report: whether there is a way out, and else
// the first broken link of the chain name, TCP, TLS, with what to do. One reason and no list: a person acts on the
// first broken link, and what is behind it cannot be measured before that.
type Finding struct {
	OK     bool             `json:"ok"`
	Reason transport.Reason `json:"reason"` // wire §7; empty when OK
	Text   string           `json:"text"`   // one or two sentences
}

// clockOff is a clock that is wrong enough to be named as the cause. Less does not make a certificate invalid: those of
// servers live for 30 days.
const clockOff = time.Minute

// judge finds the first broken link. It is pure. The language is a parameter: the report is judged in English, and the
// sheet once more in its own.
func (r Report) judge(l *lexicon) Finding {
	f := r.firstBroken(l)
	f.Text += r.otherUplinks(l, f.Reason)
	if !f.OK && r.unknown > 0 {
		f.Text += " " + l.say(vCut)
	}
	return f
}

// firstBroken looks at the Access Servers first: without one there is no session, whatever the relays do. Of a profile all
// servers are alike.
func (r Report) firstBroken(l *lexicon) Finding {
	relay := func(role Role) bool { return role == RoleRelay && r.Profile == "" }
	ways := only(r.Ways, func(w WayRow) bool { return !relay(w.Role) })
	direct, through := only(ways, WayRow.isDirect), only(ways, func(w WayRow) bool { return !w.isDirect() })
	open := only(ways, WayRow.ok)
	told := only(ways, WayRow.tells)
	var nameless []NameRow
	named := false
	for _, n := range r.Names {
		switch {
		case n.is(relay):
		case n.OK:
			named = true
		default:
			nameless = append(nameless, n)
		}
	}
	switch {
	// The order is that of the chain from its end: who got through TLS needs no word about names or ports.
	case len(open) > 0:
		return r.pastAccess(l, l.say(vOpen, l.place(open[0]), len(open), len(ways))+l.peculiar(open), relay)
	case len(told) > 0:
		w := told[telling(told)]
		return Finding{Reason: w.Reason, Text: l.brokenTLS(w, r) + r.notes(l)}
	case len(direct) > 0:
		return Finding{Reason: direct[telling(direct)].Reason, Text: l.brokenTCP(direct) + l.deadProxy(through) + r.notes(l)}
	case !named && len(nameless) > 0:
		return Finding{Reason: transport.DNS, Text: l.brokenName(nameless[0]) + l.deadProxy(through) + r.notes(l)}
	}
	return Finding{Reason: transport.Timeout, Text: l.say(vNothing)}
}

func (w WayRow) isDirect() bool { return w.Proxy == "" }

// tells reports whether what ended a way is behind the connect. Of a proxy that does not answer, nothing is known.
func (w WayRow) tells() bool {
	if w.isDirect() {
		return w.Connected
	}
	switch w.Reason {
	case transport.Refused, transport.Timeout, transport.Unreachable, transport.Reset, transport.DNS, transport.Internal:
		return false
	}
	return !w.OK
}

// peculiar says what is remarkable about the ways that are open: a proxy that is the only one, packets that have to be
// small. Said although the way is open: Hawser copes with it, other programs at that site do not.
func (l *lexicon) peculiar(open []WayRow) (text string) {
	if !slices.ContainsFunc(open, WayRow.isDirect) {
		text += " " + l.say(vThroughProxy, open[0].Proxy)
	}
	small := only(open, func(w WayRow) bool { return w.Small })
	if len(small) == 0 {
		return text
	}
	measured := only(small, func(w WayRow) bool { return w.Packet > 0 })
	switch {
	case len(measured) > 0:
		return text + " " + l.say(vSmall, measured[0].Packet)
	case small[0].fullReason == transport.ResetAfterHello:
		return text + " " + l.say(vFirstSegment)
	}
	return text + " " + l.say(vSmallUnknown)
}

// deadProxy names a proxy that was configured and does not answer. Beside the direct way's fault: whoever has
// configured a proxy expects to hear of it.
func (l *lexicon) deadProxy(through []WayRow) string {
	if len(through) == 0 {
		return ""
	}
	w := through[telling(through)]
	return " " + l.say(vProxyDead, w.Proxy, w.Reason)
}

// notes names the settings of proxies that cannot be used. Only beside a failure: a PAC file that is not read harms
// nobody whose direct way is open.
func (r Report) notes(l *lexicon) (text string) {
	for _, n := range r.proxyNotes {
		text += " " + l.say(vProxyNote, n)
	}
	return text
}

// otherUplinks says that there is another way out of the machine, where nothing came back on the one that the system uses.
func (r Report) otherUplinks(l *lexicon, why transport.Reason) string {
	silent := why == transport.Timeout || why == transport.Unreachable || why == transport.DNS &&
		slices.ContainsFunc(r.Names, func(n NameRow) bool { return n.Reason == probe.ReasonTimeout || n.Reason == probe.ReasonUnreachable })
	var used, others []string
	for _, u := range r.uplinks {
		if slices.ContainsFunc(u.Addrs, func(a netip.Addr) bool { return slices.Contains(r.Local, a) }) {
			used = append(used, u.Name)
		} else {
			others = append(others, u.Name)
		}
	}
	if !silent || len(used) == 0 || len(others) == 0 {
		return ""
	}
	return " " + l.say(vUplinks, strings.Join(used, ", "), strings.Join(others, ", "))
}

// pastAccess judges the relays, when an Access Server has a way: at least one of those that were named must have one,
// too. One relay is enough, since the Access Server chooses among those that both ends reach (access §8).
func (r Report) pastAccess(l *lexicon, text string, relay func(Role) bool) Finding {
	open := false
	var shut []WayRow
	var nameless []NameRow
	for _, n := range r.Names {
		ways := only(r.Ways, func(w WayRow) bool { return relay(w.Role) && w.Host == n.Host })
		switch {
		case !n.OK && n.is(relay):
			nameless = append(nameless, n)
		case slices.ContainsFunc(ways, WayRow.ok):
			open = true
		default:
			shut = append(shut, ways...)
		}
	}
	switch {
	case open || r.remembered || len(shut)+len(nameless) == 0:
	case len(shut) > 0:
		return Finding{Reason: shut[telling(shut)].Reason, Text: l.say(vNoRelay, l.tally(shut), l.destinations(shut)) + r.notes(l)}
	default:
		return Finding{Reason: transport.DNS, Text: text + " " + l.brokenName(nameless[0])}
	}
	if len(shut) > 0 {
		text += " " + l.say(vRelayShut, l.tally(shut), l.destinations(shut))
	}
	if len(nameless) > 0 {
		text += " " + l.brokenName(nameless[0])
	}
	if roots := r.unproven(); len(roots) == 1 {
		text += " " + l.say(vUnproven, roots[0])
	} else if len(roots) > 1 {
		text += " " + l.say(vSeveralRoots, joined(roots, ", "))
	}
	return Finding{OK: true, Text: text}
}

// unproven lists the roots of servers that had to prove none. Several roots mean that somebody is in between on some of
// the ways, or that two infrastructures were named.
func (r Report) unproven() (roots []identity.SPKI) {
	for _, w := range r.Ways {
		if !w.Root.IsZero() {
			roots = union(roots, []identity.SPKI{w.Root})
		}
	}
	return roots
}

func (w WayRow) ok() bool { return w.OK }

// is reports whether a host has that role and no other.
func (n NameRow) is(role func(Role) bool) bool {
	return len(n.servers) > 0 && !slices.ContainsFunc(n.servers, func(s server) bool { return !role(s.role) })
}

// telling returns the index of the row that somebody can best act upon, in the order of
// transport.DialError. There is at least one row. By the same order, so that netcheck and the agent's log name the same
// reason.
func telling(ways []WayRow) int {
	var all transport.DialError
	for _, w := range ways {
		all.Attempts = append(all.Attempts, transport.Attempt{Reason: w.Reason})
	}
	why := all.Why()
	return slices.IndexFunc(ways, func(w WayRow) bool { return w.Reason == why })
}

func only(ways []WayRow, keep func(WayRow) bool) (some []WayRow) {
	for _, w := range ways {
		if keep(w) {
			some = append(some, w)
		}
	}
	return some
}

// brokenName says what to do about a host without an address, and which
// resolvers were asked.
func (l *lexicon) brokenName(n NameRow) string {
	asked := l.say(vNobodyAsked)
	if len(n.Attempts) > 0 {
		asked = joined(n.Attempts, ", ")
	}
	switch n.Reason {
	case probe.ReasonBadName:
		return l.say(vBadName, n.Host)
	case probe.ReasonNoResolver:
		return l.say(vNoResolver, n.Host)
	case probe.ReasonNXDomain, probe.ReasonNoAddress:
		return l.say(vNoAddress, n.Host, asked)
	case probe.ReasonBadAddress:
		return l.say(vBadAddress, n.Host, asked)
	case probe.ReasonTimeout, probe.ReasonUnreachable, probe.ReasonTruncated:
		return l.say(vNoAnswer, n.Host, asked)
	}
	return l.say(vDNSFails, n.Host, asked)
}

// brokenTCP says what to do where no connect completed. A firewall that refuses every port is rarer than a server that
// does not run, and IT would look for a rule that is there.
func (l *lexicon) brokenTCP(ways []WayRow) string {
	all := func(reason transport.Reason) bool {
		return !slices.ContainsFunc(ways, func(w WayRow) bool { return w.Reason != reason })
	}
	switch {
	case all(transport.BadAddress):
		_, why, _ := strings.Cut(ways[0].Detail, ": ")
		return l.say(vOutOfBounds, l.place(ways[0]), why)
	case all(transport.Unreachable):
		return l.say(vNoRoute, l.destinations(ways))
	case all(transport.Refused):
		return l.say(vStopped, l.tally(ways), l.destinations(ways))
	}
	return l.say(vShut, l.tally(ways), l.destinations(ways))
}

// brokenTLS says what to do about a port that accepts TCP but not our TLS.
func (l *lexicon) brokenTLS(w WayRow, r Report) string {
	place, host := l.place(w), w.Host
	switch w.Reason {
	case transport.ProxyAuth:
		return l.say(vProxyAuth, w.Proxy, w.Detail)
	case transport.ProxyRefused:
		return l.say(vProxyRefused, w.Proxy, host, w.Detail, w.Port, l.destinations(only(r.Ways, func(o WayRow) bool { return o.Host == host })))
	case transport.TLSIntercepted:
		return l.say(vIntercepted, place, l.quoted(w.Issuer), host)
	case transport.CaptivePortal:
		return l.say(vPortal, place)
	case transport.PlainHTTP, transport.NotTLS:
		return l.say(vForeign, place, w.Reason, l.destinations(only(r.Ways, func(o WayRow) bool { return o.Host == host })))
	case transport.Timeout, transport.Reset, transport.ResetAfterHello:
		return l.say(vTLSStopped, place, w.Reason, host)
	case transport.Expired, transport.ClockWrong:
		return l.brokenDates(w, r.Time)
	case transport.WrongRoot:
		return l.say(vWrongRoot, place)
	case transport.WrongKind, transport.WrongName, transport.WrongProtocol, transport.TLSRefused:
		return l.say(vNotAccess, place, w.Reason)
	}
	return l.say(vUnverified, place, w.Reason, w.Detail)
}

// brokenDates says whether the clock or the certificate is wrong, as far as
// time sources tell. Two things may be wrong, and they are different people's: the clock is the gateway owner's, the
// certificate is the operator's.
func (l *lexicon) brokenDates(w WayRow, times []TimeRow) string {
	problem := l.say(vDates, l.place(w), w.Reason)
	i := slices.IndexFunc(times, func(t TimeRow) bool { return t.OK })
	switch {
	case len(times) == 0:
		return l.say(vDatesNoSource, problem)
	case i < 0:
		return l.say(vDatesNoAnswer, problem, times[0].Source)
	case (time.Duration(times[i].Offset) * time.Millisecond).Abs() > clockOff:
		return l.say(vDatesClock, problem, times[i].Source, l.offset(times[i].Offset))
	}
	return l.say(vDatesServer, problem, times[i].Source)
}

// tally is one word for each port, in the order of the rows. By port and not by address: a firewall's rule is about a
// port.
func (l *lexicon) tally(ways []WayRow) string {
	var ports []transport.Port
	for _, w := range ways {
		ports = union(ports, []transport.Port{w.Port})
	}
	texts := make([]string, len(ports))
	for i, p := range ports {
		of := only(ways, func(w WayRow) bool { return w.Port == p })
		texts[i] = fmt.Sprintf("%d %s", p, of[telling(of)].Reason)
	}
	return strings.Join(texts, ", ")
}

// destinations lists what a firewall has to allow: the first port of each host, which
// is 443 wherever there is a choice, and all its addresses.
func (l *lexicon) destinations(ways []WayRow) string {
	var texts, hosts []string
	for _, w := range ways {
		if slices.Contains(hosts, w.Host) {
			continue
		}
		hosts = append(hosts, w.Host)
		var addrs []netip.Addr
		for _, o := range only(ways, func(o WayRow) bool { return o.Host == w.Host && o.isDirect() }) {
			addrs = union(addrs, []netip.Addr{o.Addr})
		}
		texts = append(texts, l.portOf(w.Host, w.Port, addrs))
	}
	return strings.Join(texts, l.say(wAnd))
}

// place names a way for people: TCP 443 to HOST (ADDR).
func (l *lexicon) place(w WayRow) string {
	if w.Proxy != "" {
		return l.say(wThrough, w.Port, w.Host, w.Proxy)
	}
	return l.portOf(w.Host, w.Port, []netip.Addr{w.Addr})
}

func (l *lexicon) portOf(host string, port transport.Port, addrs []netip.Addr) string {
	text := l.say(wPlace, port, host)
	if _, err := netip.ParseAddr(host); err == nil || len(addrs) == 0 {
		return text
	}
	return text + " (" + joined(addrs, ", ") + ")"
}

// quoted is an issuer's name, which may be missing.
func (l *lexicon) quoted(issuer string) string {
	if issuer == "" {
		return l.say(wUnnamed)
	}
	return fmt.Sprintf("%q", issuer)
}
