package netcheck

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"hawser/probe"
	"hawser/transport"
)

// Sheet is the hand-over sheet for the site's IT: what a firewall must let through, and what was found, from a Report.
// Text and HTML render it. It is for people who have never heard of Hawser and decide by a form, so it says first what is
// asked for, then why.
type Sheet struct {
	Report   Report
	Language Language  // empty: English
	At       time.Time // of the measurement, by the machine's own clock
	Program  string    // that measured

	PC         bool   // it was measured from a technician's computer, and not from a gateway
	ALPN       string // of the ways to Access Servers, for whoever tests a rule
	Contact    string // who asks, and whom to call
	Device     string // what its operator calls the gateway
	Machine    string // host name; empty: not known
	Gateway    string // UID and domain; empty: not enrolled
	Unreadable bool   // whether it is enrolled: by this user
	MAC        string // of the interface that leads out
	Reach      *Reach // nil: not known
}

func (s *Sheet) words() *lexicon { return lexiconOf(s.Language) }

// part is one section of the sheet: sentences, then a table whose first row is its head. Text and HTML make every string
// harmless. Both forms are made of the same parts, so that neither lacks a section.
type part struct {
	title string
	lines []string
	table [][]string
}

// parts has what is missing before what is needed: a form is read until it is clear what to do.
func (s *Sheet) parts() (parts []part) {
	l, rules := s.words(), s.rules()
	parts = []part{
		{title: l.say(sFacts), table: s.facts()},
		{title: l.say(sResult), lines: []string{s.Report.judge(l).Text}},
		{title: l.say(sMissing), lines: orElse(s.missing(rules), l.say(sNothingMissing))},
		{title: l.say(sRules), lines: s.remarks(), table: l.ruleTable(rules)},
		{title: l.say(sInbound), lines: []string{l.say(sInboundText)}},
	}
	if s.Report.Profile == "" { // what another maker's gateway does is for that maker to say
		parts = append(parts, part{title: l.say(sTest), lines: s.howToTest()}, part{title: l.say(sAbout), lines: s.about()})
	}
	return append(parts,
		part{title: l.say(sInspection), lines: s.inspection()},
		part{title: l.say(sDNS), lines: s.dns()},
		part{title: l.say(sNTP), lines: s.ntp()})
}

// title says whether anything is asked for. A sheet that asks for nothing says so in its title, so that nobody opens a
// ticket for it.
func (s *Sheet) title() string {
	l := s.words()
	text := l.say(sRequest)
	if s.Report.Verdict.OK && len(s.missing(s.rules())) == 0 {
		text = l.say(sGood)
	}
	if s.PC {
		text += l.say(sFromPC)
	}
	if p := s.Report.Profile; p != "" {
		text += l.say(sProfile) + p
	}
	return text
}

// facts has a row for everything that a form asks for, also where nothing is known: whoever fills it in sees what is
// missing, and asks for it.
func (s *Sheet) facts() [][]string {
	l := s.words()
	gateway := s.Gateway
	switch {
	case gateway != "":
	case s.Unreadable:
		gateway = l.say(sNotReadable)
	default:
		gateway = l.say(sNotEnrolled)
	}
	known := func(text string) string {
		if text == "" {
			return l.say(sNotKnown)
		}
		return text
	}
	contact := s.Contact
	if contact == "" {
		contact = l.say(sNoContact)
	}
	facts := [][]string{{l.say(sFact), l.say(sValue)}, {l.say(sContact), contact}}
	if !s.PC {
		facts = append(facts, []string{l.say(sDevice), known(s.Device)}, []string{l.say(sGateway), gateway})
	}
	if r := s.Reach; r != nil && !s.PC {
		facts = append(facts, []string{l.say(sReach), r.in(l)})
	}
	return append(facts, []string{l.say(sMachine), known(s.Machine)}, []string{l.say(sMAC), known(s.MAC)},
		[]string{l.say(sAddress), known(joined(s.Report.Local, ", "))}, []string{l.say(sMeasured), s.measured()},
		[]string{l.say(sMeasuredBy), s.Program})
}

// in says what sessions may reach. IT asks that before anything else, and the answer stands in a file that only the owner
// sees.
func (r *Reach) in(l *lexicon) string {
	to := strings.Join(r.To, ", ")
	if to == "" {
		to = l.say(sReachNothing)
	}
	if r.LAN {
		return l.say(sReachLAN, to)
	}
	return to
}

// measured is the time of the measurement, and who confirms it. The time is corrected by what the sources say: logs of
// a firewall are searched by it.
func (s *Sheet) measured() string {
	l, clock := s.words(), s.Report.Clock
	const form = "2006-01-02 15:04:05 UTC"
	if !clock.OK {
		return l.say(sOwnClock, s.At.UTC().Format(form))
	}
	at := s.At.Add(time.Duration(clock.Offset) * time.Millisecond).UTC().Format(form)
	return l.say(sGoodClock, at, clock.Agreed, l.offset(clock.Offset))
}

// about is what the IT of a site asks about every gateway.
func (s *Sheet) about() []string {
	l := s.words()
	if s.PC {
		return []string{l.say(sAboutPC), l.say(sAboutVolume)}
	}
	return []string{l.say(sAboutWhat), l.say(sAboutVolume), l.say(sAboutWho), l.say(sAboutReach), l.say(sAboutLog), l.say(sAboutCut)}
}

// howToTest lets IT test a rule without the gateway. With openssl and with our ALPN: a server refuses a hello without
// it (wire §1.2), which would look like a closed port.
func (s *Sheet) howToTest() (lines []string) {
	l := s.words()
	for _, n := range s.Report.Names {
		for _, of := range n.servers {
			alpn := s.ALPN
			if of.role == RoleRelay {
				alpn = transport.ALPNRelay
			}
			if len(of.ports) > 0 {
				lines = append(lines, l.say(sTestHow, alpn, net.JoinHostPort(n.Host, fmt.Sprint(of.ports[0]))))
			}
		}
	}
	return append(lines, l.say(sTestGood), l.say(sTestBrowser))
}

// inspection says which hosts a TLS inspection breaks, and whose it is. By issuer, because that names the box whose
// configuration has to change.
func (s *Sheet) inspection() []string {
	lines := s.byIssuer(func(w WayRow) bool { return w.Reason == transport.TLSIntercepted }, sExempt)
	if s.Report.Profile != "" {
		lines = append(lines, s.byIssuer(WayRow.ok, sExemptProfile)...)
	}
	return orElse(lines, s.words().say(sNoInspection))
}

// byIssuer is a sentence for each issuer of some ways, with their hosts. A site with two inspections has two boxes, and
// often two people who look after them.
func (s *Sheet) byIssuer(keep func(WayRow) bool, form phrase) (lines []string) {
	l := s.words()
	var issuers []string
	hosts := map[string][]string{}
	for _, w := range only(s.Report.Ways, keep) {
		issuers = union(issuers, []string{w.Issuer})
		hosts[w.Issuer] = union(hosts[w.Issuer], []string{w.Host})
	}
	for _, issuer := range issuers {
		lines = append(lines, l.say(form, l.quoted(issuer), strings.Join(hosts[issuer], ", ")))
	}
	return lines
}

// dns says what every resolver did and what is odd about it. Over UDP and TCP each: a rule for one of them is a common
// mistake, and long answers need the other.
func (s *Sheet) dns() (lines []string) {
	l := s.words()
	for _, r := range s.Report.Resolvers {
		what := string(r.Reason)
		if r.OK {
			what = l.say(sDNSAnswers, rttText(r.RTT), joined(r.Addrs, ", "))
		}
		lines = append(lines, l.say(sDNSAsked, r.Server, strings.ToUpper(r.Network), r.Name, what))
		for _, f := range r.Findings {
			lines = append(lines, l.say(sDNSOdd, r.Server, strings.ToUpper(r.Network), l.explain(f)))
		}
	}
	for _, n := range s.Report.Names {
		if !n.OK {
			lines = append(lines, l.brokenName(n))
		}
	}
	return orElse(lines, l.say(sDNSNone))
}

// explain is an oddity in words.
func (l *lexicon) explain(o probe.Oddity) string {
	texts := map[probe.Oddity]phrase{
		probe.NXDomainHijack: oHijack, probe.PrivateAddress: oPrivate, probe.LocalAddress: oLocal, probe.ChangesCase: oCase,
		probe.NoEDNS: oEDNS, probe.UDPBlocked: oUDP, probe.TCPBlocked: oTCP,
	}
	if p, ok := texts[o]; ok {
		return l.say(p)
	}
	return string(o)
}

// ntp says what every time source is worth.
func (s *Sheet) ntp() (lines []string) {
	l := s.words()
	for _, t := range s.Report.Time {
		what := l.say(sNTPRow, t.Verdict, l.offset(t.Offset), rttText(t.RTT), t.Stratum)
		switch {
		case t.Kiss != "":
			what = l.say(sNTPKiss, t.Kiss)
		case t.Stratum == 0:
			what = l.say(sNTPWorthless, t.Reason)
		case t.Reason == probe.ReasonRootDistance && t.sample.RootDistance > freeRunning:
			what = l.say(sNTPWorthless, l.distance(t))
		case !t.OK:
			what = l.say(sNTPBad, t.Reason, l.offset(t.Offset), t.Stratum)
		}
		lines = append(lines, fmt.Sprintf("%s (%s): %s.", t.Source, addrText(t.Addr), what))
	}
	// No source is configured, and none is needed: an optional rule that nobody uses is one more reason to say no.
	if len(lines) == 0 {
		return []string{l.say(sNTPNone)}
	}
	return append(lines, l.say(sNTPAll, l.clock(s.Report.Clock)))
}

// remarks are sentences about the table of rules. Addresses of servers may change, so rules by name are asked for where
// the firewall has them.
func (s *Sheet) remarks() []string {
	l := s.words()
	if s.Report.Profile != "" {
		return []string{l.say(sByName)}
	}
	lines := []string{l.say(sOnePort)}
	// Without this sentence IT opens the Access Server, and the first session fails at a relay: a second round.
	if !slices.ContainsFunc(s.Report.Names, NameRow.isRelay) {
		lines = append(lines, l.say(sRelaysToo))
	}
	if urls := s.Report.proxies(); len(urls) > 0 {
		lines = append(lines, l.say(sProxied, strings.Join(urls, ", ")))
	} else {
		lines = append(lines, l.say(sDirect))
	}
	return append(lines, l.say(sByName))
}

func (n NameRow) isRelay() bool {
	return slices.ContainsFunc(n.servers, func(s server) bool { return s.role == RoleRelay })
}

func orElse(lines []string, none string) []string {
	if len(lines) == 0 {
		return []string{none}
	}
	return lines
}

// missing says, in the words of a firewall, what has to be opened. Each line is a whole sentence with source and
// destination, to be copied into a ticket alone.
func (s *Sheet) missing(rules []rule) (lines []string) {
	l := s.words()
	from := joined(s.Report.Local, ", ")
	if from == "" {
		from = l.say(sThisMachine)
	}
	for _, r := range rules {
		form := sAllow
		// A port that refuses is a server that does not run as often as a firewall: IT should not search for what is not there.
		if r.refused {
			form = sAllowIfUp
		}
		if r.missing {
			lines = append(lines, l.say(form, r.protocol, from, r.destination(), r.port, r.measured, r.purpose))
		}
	}
	for _, w := range only(s.Report.Ways, func(w WayRow) bool { return w.Reason == transport.TLSIntercepted }) {
		lines = union(lines, []string{l.say(sExemptRule, w.Host, l.quoted(w.Issuer))})
	}
	return lines
}

// destination is host and addresses in one. Both: a rule by name is right for longer, and many firewalls have none.
func (r rule) destination() string {
	addrs := joined(r.addrs, ", ")
	switch {
	case addrs == "" || addrs == r.host:
		return r.host
	case r.host == "":
		return addrs
	}
	return r.host + " (" + addrs + ")"
}

func (l *lexicon) ruleTable(rules []rule) [][]string {
	head := []string{}
	for _, p := range []phrase{rDirection, rProtocol, rDestination, rAddress, rPort, rPurpose, rNeed, rMeasured} {
		head = append(head, l.say(p))
	}
	rows := [][]string{head}
	for _, r := range rules {
		host, addrs := r.host, joined(r.addrs, ", ")
		if host == "" {
			host = "-"
		}
		if addrs == "" {
			addrs = "-"
		}
		rows = append(rows, []string{l.say(rOut), r.protocol, host, addrs, fmt.Sprint(r.port), r.purpose, l.say(r.need), r.measured})
	}
	return rows
}

// Text is the sheet as plain text in UTF-8. It has no bound of columns: a table of rules is wider than a terminal, and
// is printed or mailed.
func (s *Sheet) Text() []byte {
	var b strings.Builder
	title := harmless(s.title())
	fmt.Fprintf(&b, "%s\n%s\n", title, strings.Repeat("=", utf8.RuneCountInString(title)))
	for _, p := range s.parts() {
		fmt.Fprintf(&b, "\n%s\n%s\n", p.title, strings.Repeat("-", utf8.RuneCountInString(p.title)))
		for _, l := range p.lines {
			fmt.Fprintf(&b, "* %s\n", harmless(l))
		}
		if len(p.table) > 0 {
			tabulate(&b, p.table)
		}
	}
	return []byte(b.String())
}

func tabulate(b *strings.Builder, table [][]string) {
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, row := range table {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, harmless(cell))
		}
		fmt.Fprintln(tw)
	}
	tw.Flush() // a Builder does not fail
}

// The page loads nothing and runs nothing, whatever got into it.
const (
	pageHead = `<!doctype html>
<html lang="%[2]s">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>%[1]s</title>
<style>
body { font: 15px/1.4 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; width: 100%%; }
th, td { border: 1px solid #999; padding: .25em .5em; text-align: left; vertical-align: top; }
@media print { body { margin: 0; font-size: 11px; } }
</style>
</head>
<body>
<h1>%[1]s</h1>
`
	pageEnd = "</body>\n</html>\n"
)

// HTML is the sheet as a page of one file. Nothing is loaded from elsewhere, so the file can be mailed and printed by
// itself.
func (s *Sheet) HTML() []byte {
	var b strings.Builder
	language := s.Language
	if language == "" {
		language = English
	}
	fmt.Fprintf(&b, pageHead, inert(s.title()), language)
	for _, p := range s.parts() {
		fmt.Fprintf(&b, "<h2>%s</h2>\n", inert(p.title))
		if len(p.lines) > 0 {
			b.WriteString("<ul>\n")
			for _, l := range p.lines {
				fmt.Fprintf(&b, "<li>%s</li>\n", inert(l))
			}
			b.WriteString("</ul>\n")
		}
		htmlTable(&b, p.table)
	}
	b.WriteString(pageEnd)
	return []byte(b.String())
}

// htmlTable is by hand, as inert is: html/template would bring text/template into the agent.
func htmlTable(b *strings.Builder, table [][]string) {
	if len(table) == 0 {
		return
	}
	b.WriteString("<table>\n")
	for i, row := range table {
		tag := "td"
		if i == 0 {
			tag = "th"
		}
		b.WriteString("<tr>")
		for _, cell := range row {
			fmt.Fprintf(b, "<%[1]s>%[2]s</%[1]s>", tag, inert(cell))
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("</table>\n")
}

// inert escapes text for an HTML element; the page puts none into attributes or scripts.
// Package html has a table of all named characters, which makes the agent 64 KiB larger.
func inert(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;").Replace(harmless(s))
}
