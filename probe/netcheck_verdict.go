package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hawser/transport"
)

// Finding is the verdict of a report: whether there is a way out, and else
// the first broken link of the chain name, TCP, TLS, with what to do.
type Finding struct {
	OK     bool             `json:"ok"`
	Reason transport.Reason `json:"reason"` // wire §7; empty when OK
	Text   string           `json:"text"`   // one or two sentences
}

// clockOff is a clock that is wrong enough to be named as the cause.
const clockOff = time.Minute

// judgeReport finds the first broken link. It is pure. Unknown is how many
// rows are missing because the time was up.
func judgeReport(r Report, unknown int) Finding {
	f := firstBroken(r)
	if !f.OK && unknown > 0 {
		f.Text += " Some tests were cut short: run it again and let it finish."
	}
	return f
}

func firstBroken(r Report) Finding {
	open := only(r.Ways, func(w WayRow) bool { return w.OK })
	connected := only(r.Ways, func(w WayRow) bool { return w.Connected })
	named := slices.ContainsFunc(r.Names, func(n NameRow) bool { return n.OK })
	switch {
	case len(open) > 0:
		return Finding{OK: true, Text: fmt.Sprintf("There is a way out: %s; %d of %d ways are open.", open[0].place(), len(open), len(r.Ways))}
	case len(connected) > 0:
		w := connected[telling(connected)]
		return Finding{Reason: w.Reason, Text: brokenTLS(w, r)}
	case len(r.Ways) > 0:
		return Finding{Reason: r.Ways[telling(r.Ways)].Reason, Text: brokenTCP(r.Ways)}
	case len(r.Names) > 0 && !named:
		return Finding{Reason: transport.DNS, Text: brokenName(r.Names[0])}
	}
	return Finding{Reason: transport.Timeout, Text: "Nothing is known about the way to an Access Server."}
}

// telling returns the index of the row that somebody can act upon best, by
// the same order as everything else that dials. There is at least one row.
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
func brokenName(n NameRow) string {
	asked := "nobody was asked"
	if len(n.Attempts) > 0 {
		asked = joined(n.Attempts, ", ")
	}
	switch n.Reason {
	case ReasonBadName:
		return fmt.Sprintf("%q is not a host name: correct the address of the Access Server.", n.Host)
	case ReasonNoResolver:
		return fmt.Sprintf("No DNS resolver is known for %s: let DHCP give one, or configure one.", n.Host)
	case ReasonNXDomain, ReasonNoAddress:
		return fmt.Sprintf("The site's DNS has no address for %s (%s): check the name, or ask the site's IT to let it be resolved.", n.Host, asked)
	case ReasonBadAddress:
		return fmt.Sprintf("The site's DNS gives a useless address for %s (%s): ask the site's IT not to filter this name.", n.Host, asked)
	case ReasonTimeout, ReasonUnreachable, ReasonTruncated:
		return fmt.Sprintf("No DNS resolver answers for %s (%s): ask the site's IT to allow UDP and TCP 53 to them, or for another resolver.", n.Host, asked)
	}
	return fmt.Sprintf("The site's DNS fails for %s (%s): ask the site's IT to repair it, or for another resolver.", n.Host, asked)
}

// brokenTCP says what to do where no connect completed.
func brokenTCP(ways []WayRow) string {
	if !slices.ContainsFunc(ways, func(w WayRow) bool { return w.Reason != transport.Unreachable }) {
		return fmt.Sprintf("There is no route to %s: check the cable, the address and the default gateway of this machine.", destinations(ways))
	}
	return fmt.Sprintf("No port is open (%s): ask the site's IT to allow outgoing %s.", tally(ways), destinations(ways))
}

// brokenTLS says what to do about a port that opens and leads nowhere.
func brokenTLS(w WayRow, r Report) string {
	place, host := w.place(), w.Host
	switch w.Reason {
	case transport.TLSIntercepted:
		return fmt.Sprintf("TLS on %s is intercepted (certificate of %s): ask the site's IT to exempt %s from TLS inspection.", place, quoted(w.Issuer), host)
	case transport.CaptivePortal:
		return fmt.Sprintf("A login page stands before %s: ask the site's IT to let this machine pass without login.", place)
	case transport.PlainHTTP, transport.NotTLS:
		return fmt.Sprintf("Something that is no Access Server answers on %s (%s): ask the site's IT to allow outgoing %s without a proxy.", place, w.Reason,
			destinations(only(r.Ways, func(o WayRow) bool { return o.Host == host })))
	case transport.Timeout, transport.Reset, transport.ResetAfterHello:
		return fmt.Sprintf("A firewall seems to stop TLS on %s (%s): ask the site's IT to let TLS to %s pass without inspection.", place, w.Reason, host)
	case transport.Expired, transport.ClockWrong:
		return brokenDates(w, r.Time)
	case transport.WrongRoot:
		return fmt.Sprintf("The server on %s belongs to another infrastructure: check the root or pin, and the address of the Access Server.", place)
	case transport.WrongKind, transport.WrongName, transport.WrongProtocol, transport.TLSRefused:
		return fmt.Sprintf("What answers on %s is not the Access Server (%s): check its address.", place, w.Reason)
	}
	return fmt.Sprintf("The server on %s cannot be verified (%s: %s): ask who runs it.", place, w.Reason, w.Detail)
}

// brokenDates says whether the clock or the certificate is wrong, as far as
// time sources tell.
func brokenDates(w WayRow, times []TimeRow) string {
	problem := fmt.Sprintf("The certificate on %s does not fit the clock (%s)", w.place(), w.Reason)
	i := slices.IndexFunc(times, func(t TimeRow) bool { return t.OK })
	switch {
	case len(times) == 0:
		return problem + ": set the clock, and configure a time source."
	case i < 0:
		return fmt.Sprintf("%s and no time source can be used: set the clock, and ask the site's IT to allow outgoing UDP 123 to %s.", problem, times[0].Source)
	case (time.Duration(times[i].Offset) * time.Millisecond).Abs() > clockOff:
		return fmt.Sprintf("%s: set the clock, from which %s differs by %s.", problem, times[i].Source, offsetText(times[i].Offset))
	}
	return fmt.Sprintf("%s, and the clock agrees with %s: ask who runs the server to renew it.", problem, times[i].Source)
}

// tally is one word for each port, in the order of the rows.
func tally(ways []WayRow) string {
	var ports []transport.Port
	for _, w := range ways {
		ports = appendNew(ports, []transport.Port{w.Port})
	}
	texts := make([]string, len(ports))
	for i, p := range ports {
		of := only(ways, func(w WayRow) bool { return w.Port == p })
		texts[i] = fmt.Sprintf("%d %s", p, of[telling(of)].Reason)
	}
	return strings.Join(texts, ", ")
}

// destinations is what a firewall has to let out: the first port of each
// host, which is 443 wherever there is a choice, and all its addresses.
func destinations(ways []WayRow) string {
	var texts, hosts []string
	for _, w := range ways {
		if slices.Contains(hosts, w.Host) {
			continue
		}
		hosts = append(hosts, w.Host)
		var addrs []netip.Addr
		for _, o := range only(ways, func(o WayRow) bool { return o.Host == w.Host }) {
			addrs = appendNew(addrs, []netip.Addr{o.Addr})
		}
		texts = append(texts, portOf(w.Host, w.Port, addrs))
	}
	return strings.Join(texts, " and ")
}

// place names a way for people: TCP 443 to HOST (ADDR).
func (w WayRow) place() string { return portOf(w.Host, w.Port, []netip.Addr{w.Addr}) }

func portOf(host string, port transport.Port, addrs []netip.Addr) string {
	text := fmt.Sprintf("TCP %d to %s", port, host)
	if _, err := netip.ParseAddr(host); err == nil {
		return text
	}
	return text + " (" + joined(addrs, ", ") + ")"
}

// quoted is an issuer's name, which may be missing.
func quoted(issuer string) string {
	if issuer == "" {
		return "an unnamed issuer"
	}
	return fmt.Sprintf("%q", issuer)
}
