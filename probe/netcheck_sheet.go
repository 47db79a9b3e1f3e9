package probe

import (
	"fmt"
	"strings"
	"time"

	"hawser/transport"
)

// Sheet is the hand-over sheet for the site's IT: what a firewall must let
// through, and what was found, from a Report. Text and HTML render it.
type Sheet struct {
	Report  Report
	At      time.Time // of the measurement, by the machine's own clock
	Machine string    // host name; empty: not known
	Gateway string    // UID and domain; empty: not enrolled, or not readable
	Program string    // that measured
}

// part is one section of the sheet: sentences, then a table whose first row is
// its head. What renders it makes every string harmless.
type part struct {
	title string
	lines []string
	table [][]string
}

const nothingMissing = "Nothing: what was measured is enough."

func (s *Sheet) parts() []part {
	rules := s.rules()
	return []part{
		{title: "Site and gateway", table: s.facts()},
		{title: "Result", lines: []string{s.Report.Verdict.Text}},
		{title: "Missing rules", lines: orElse(s.missing(rules), nothingMissing)},
		{title: "Rules needed (stateful, outgoing; answers come back on the same connection)", lines: s.remarks(), table: ruleTable(rules)},
		{title: "Incoming connections", lines: []string{"Nothing inbound is needed: no open port, no port forwarding, no public address. " +
			"This machine only dials out."}},
		{title: "TLS inspection", lines: s.inspection()},
		{title: "DNS", lines: s.dns()},
		{title: "Time (NTP)", lines: s.ntp()},
	}
}

func (s *Sheet) title() string {
	if p := s.Report.Profile; p != "" {
		return "Firewall request: remote maintenance gateway, profile " + p
	}
	return "Firewall request: remote maintenance gateway"
}

func (s *Sheet) facts() [][]string {
	gateway, from := s.Gateway, joined(s.Report.Local, ", ")
	if gateway == "" {
		gateway = "not enrolled"
	}
	if from == "" {
		from = "not known"
	}
	machine := s.Machine
	if machine == "" {
		machine = "not known"
	}
	return [][]string{{"Fact", "Value"}, {"Measured", s.measured()}, {"Machine", machine}, {"Gateway", gateway},
		{"Address at the site", from}, {"Measured by", s.Program}}
}

// measured is the time of the measurement, and what it is worth.
func (s *Sheet) measured() string {
	clock := s.Report.Clock
	const form = "2006-01-02 15:04:05 UTC"
	if !clock.OK {
		return s.At.UTC().Format(form) + " (by the machine's own clock; no time source confirms it)"
	}
	at := s.At.Add(time.Duration(clock.Offset) * time.Millisecond).UTC().Format(form)
	return fmt.Sprintf("%s (by %d time sources that agree; the machine's own clock must change by %s)", at, clock.Agreed, offsetText(clock.Offset))
}

// inspection says which hosts a TLS inspection breaks, and whose it is.
func (s *Sheet) inspection() []string {
	lines := s.byIssuer(func(w WayRow) bool { return w.Reason == transport.TLSIntercepted },
		"Exemption needed: a certificate issued by %s was shown instead of the server's own. Exempt from TLS inspection, on all ports: %s.")
	if s.Report.Profile != "" {
		lines = append(lines, s.byIssuer(func(w WayRow) bool { return w.OK },
			"Certificates issued by %s were shown for %s. If that is an issuer of this site, exempt these hosts from TLS inspection.")...)
	}
	return orElse(lines, "No inspection was seen. Exempt the servers from it in any case: a foreign certificate ends the connection.")
}

// byIssuer is a sentence for each issuer of some ways, with their hosts.
func (s *Sheet) byIssuer(keep func(WayRow) bool, form string) (lines []string) {
	var issuers []string
	hosts := map[string][]string{}
	for _, w := range only(s.Report.Ways, keep) {
		issuers = appendNew(issuers, []string{w.Issuer})
		hosts[w.Issuer] = appendNew(hosts[w.Issuer], []string{w.Host})
	}
	for _, issuer := range issuers {
		lines = append(lines, fmt.Sprintf(form, quoted(issuer), strings.Join(hosts[issuer], ", ")))
	}
	return lines
}

// dns says what every resolver did and what is odd about it.
func (s *Sheet) dns() (lines []string) {
	for _, r := range s.Report.Resolvers {
		what := string(r.Reason)
		if r.OK {
			what = fmt.Sprintf("answers in %s: %s", rttText(r.RTT), joined(r.Addrs, ", "))
		}
		lines = append(lines, fmt.Sprintf("%s over %s, asked for %s: %s.", r.Server, strings.ToUpper(r.Network), r.Name, what))
		for _, f := range r.Findings {
			lines = append(lines, fmt.Sprintf("%s over %s: %s.", r.Server, strings.ToUpper(r.Network), explain(f)))
		}
	}
	for _, n := range s.Report.Names {
		if !n.OK {
			lines = append(lines, brokenName(n))
		}
	}
	return orElse(lines, "Not needed: every server is given by its address.")
}

// explain is an oddity in words.
func explain(o Oddity) string {
	texts := map[Oddity]string{
		NXDomainHijack: "names that do not exist are given an address (NXDOMAIN hijacking); exempt this machine from it",
		PrivateAddress: "a public name is given a private address; check whether a filter or a local zone does it",
		LocalAddress:   "a name is given an address that no server can have; a filter seems to block it",
		ChangesCase:    "the letter case of names is changed, so that forged answers are harder to tell; no rule is needed",
		NoEDNS:         "questions with EDNS (RFC 6891) are refused or dropped; let them pass",
		UDPBlocked:     "UDP 53 is blocked while TCP 53 answers; names are found, but slower",
		TCPBlocked:     "TCP 53 is blocked while UDP 53 answers; long answers will be lost",
	}
	return texts[o]
}

// ntp says what every time source is worth.
func (s *Sheet) ntp() (lines []string) {
	for _, t := range s.Report.Time {
		what := fmt.Sprintf("%s, offset %s, %s, stratum %d", t.Verdict, offsetText(t.Offset), rttText(t.RTT), t.Stratum)
		switch {
		case t.Kiss != "":
			what = fmt.Sprintf("rejected, it wants not to be asked (%s)", t.Kiss)
		case t.Stratum == 0:
			what = fmt.Sprintf("rejected, %s", t.Reason)
		case !t.OK:
			what = fmt.Sprintf("rejected (%s), offset %s, stratum %d", t.Reason, offsetText(t.Offset), t.Stratum)
		}
		lines = append(lines, fmt.Sprintf("%s (%s): %s.", t.Source, addrText(t.Addr), what))
	}
	if len(lines) == 0 {
		return []string{"No time source is configured."}
	}
	return append(lines, "All together: "+s.Report.Clock.String()+".")
}

// remarks are what the table of rules cannot say.
func (s *Sheet) remarks() []string {
	if s.Report.Profile != "" {
		return []string{"Addresses are those of today: rules by name are better where the firewall can do it."}
	}
	return []string{"One open TCP port of each server is enough, 443 where there is a choice. TLS is spoken on every port, 80 included.",
		"The Relay Servers of the same infrastructure need the same rules: its operator names them.",
		"Addresses are those of today: rules by name are better where the firewall can do it."}
}

func orElse(lines []string, none string) []string {
	if len(lines) == 0 {
		return []string{none}
	}
	return lines
}

// missing says, in the words of a firewall, what has to be opened.
func (s *Sheet) missing(rules []rule) (lines []string) {
	from := joined(s.Report.Local, ", ")
	if from == "" {
		from = "this machine"
	}
	for _, r := range rules {
		if r.missing {
			lines = append(lines, fmt.Sprintf("Allow outgoing %s from %s to %s port %d. It is %s. Purpose: %s.", r.protocol, from, r.destination(), r.port, r.measured, r.purpose))
		}
	}
	for _, w := range only(s.Report.Ways, func(w WayRow) bool { return w.Reason == transport.TLSIntercepted }) {
		lines = appendNew(lines, []string{fmt.Sprintf("Exempt %s from TLS inspection, whose issuer is %s.", w.Host, quoted(w.Issuer))})
	}
	return lines
}

// destination is host and addresses in one.
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

func ruleTable(rules []rule) [][]string {
	rows := [][]string{{"Direction", "Protocol", "Destination", "Address", "Port", "Purpose", "Need", "Measured"}}
	for _, r := range rules {
		host, addrs := r.host, joined(r.addrs, ", ")
		if host == "" {
			host = "-"
		}
		if addrs == "" {
			addrs = "-"
		}
		rows = append(rows, []string{"out", r.protocol, host, addrs, fmt.Sprint(r.port), r.purpose, string(r.need), r.measured})
	}
	return rows
}
