package netcheck

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
)

// Report is what a Check found. Its JSON is the one of cli §2. Rows stand
// in the order of the configuration, whichever came first. JSON is for programs of operators, which compare reports of
// many gateways: it has the reasons of wire §7 and no sentence that could be translated, except the verdict's.
type Report struct {
	Profile   string        `json:"profile,omitempty"` // the name of a profile that was checked
	Local     []netip.Addr  `json:"local"`             // from which this machine sends: at most one of a family
	Time      []TimeRow     `json:"time"`
	Clock     ClockFinding  `json:"clock"`
	Resolvers []ResolverRow `json:"resolvers"` // each over UDP, then TCP; none where nothing has a name
	Names     []NameRow     `json:"names"`
	Ways      []WayRow      `json:"ways"` // hosts as configured; ports 443, 5935, 80, then others; addresses as resolved
	Verdict   Finding       `json:"verdict"`

	unknown    int      // rows that are missing because the time was up
	proxyNotes []string // settings of proxies that cannot be used
	remembered bool     // the relays are those of former sessions, and do not decide
	uplinks    []Uplink
}

// Uplink is a network interface that leads out.
type Uplink struct {
	Name  string
	Addrs []netip.Addr
}

// Role is what a server is for.
type Role string

// The roles.
const (
	RoleAccess Role = "access"
	RoleRelay  Role = "relay"
	RoleWeb    Role = "web" // of a profile: a page of its maker
)

// Row is one line of a report: a TimeRow, ResolverRow, NameRow or WayRow. String is its
// form for progress, one line without a line end.
type Row interface {
	fmt.Stringer
	cells() []string
}

// NameRow is what became of one host's name.
type NameRow struct {
	Host     string          `json:"host"`
	OK       bool            `json:"ok"`
	Addrs    []netip.Addr    `json:"addrs"`  // at most 4, never nil; an IP literal is its own
	RTT      float64         `json:"rtt_ms"` // of the whole search for it
	Reason   probe.Reason    `json:"reason"` // names §7; empty when OK
	Attempts []probe.Attempt `json:"-"`      // what each resolver did, when not OK
	servers  []server        // of this name
}

// WayRow is what became of one address and port.
type WayRow struct {
	Host       string           `json:"host"`
	Role       Role             `json:"role"`
	Addr       netip.Addr       `json:"addr"`
	Port       transport.Port   `json:"port"`
	Way        string           `json:"way"`          // direct, or proxy
	Proxy      string           `json:"proxy"`        // its URL without name and password; the address is empty then
	Small      bool             `json:"small"`        // only the small form passed (wire §8.1)
	Packet     int              `json:"packet_bytes"` // the largest packet that was found to pass then; zero: not known
	OK         bool             `json:"ok"`           // authenticated TLS completed; of a profile, TLS with anybody
	RTT        float64          `json:"rtt_ms"`       // of the TCP connect; zero when it did not complete
	Reason     transport.Reason `json:"reason"`       // wire §7; empty when OK
	Issuer     string           `json:"issuer"`       // of a foreign certificate, in harmless characters; a profile's always
	Root       identity.SPKI    `json:"root_sha256"`  // that an unproven server leads to; zero where one had to be proven
	fullReason transport.Reason // why the full form did not pass, where the small one did
	Connected  bool             `json:"-"` // TCP completed
	Detail     string           `json:"-"` // for people, in harmless characters
}

// ResolverRow is what one DNS server did over one network, asked by itself for the name of a server (names §2).
type ResolverRow struct {
	Server   netip.AddrPort `json:"server"`
	Network  string         `json:"network"` // udp or tcp
	OK       bool           `json:"ok"`      // it gave an address that can be used
	Name     string         `json:"name"`    // that was asked
	Addrs    []netip.Addr   `json:"addrs"`   // as answered, at most 8, never nil
	RTT      float64        `json:"rtt_ms"`  // of the question that was answered, with the connect over TCP
	Reason   probe.Reason   `json:"reason"`  // names §7; empty when OK
	Findings []probe.Oddity `json:"findings"`
}

// answered reports whether the server itself has said anything.
func (r ResolverRow) answered() bool { return probe.Inspection{Reason: r.Reason}.Answered() }

func resolverRow(i probe.Inspection) ResolverRow {
	return ResolverRow{Server: i.Server, Network: i.Network, OK: i.OK, Name: i.Name, Addrs: i.Addrs, RTT: millis(i.RTT),
		Reason: i.Reason, Findings: i.Findings}
}

func wayRow(a transport.Attempt, role Role, root identity.SPKI) WayRow {
	return WayRow{
		Host: clean(a.Host), Role: role, Root: root, Addr: a.Addr.Addr(), Port: a.Port(), Way: a.Way(), Proxy: clean(a.Proxy), Small: a.Small && a.Reason == "",
		OK: a.Reason == "", RTT: millis(a.RTT), Reason: a.Reason, Issuer: clean(a.Issuer),
		Connected: connected(a), Detail: clean(a.Detail),
	}
}

// connected reports whether TCP completed. The round trip does not tell, since a coarse
// clock measures zero. It decides whom to ask: before the connect the firewall, behind it whatever looks into TLS.
func connected(a transport.Attempt) bool {
	switch a.Reason {
	case transport.Refused, transport.Unreachable, transport.BadAddress:
		return false
	case transport.Timeout, transport.Reset, transport.Internal:
		return a.RTT > 0
	}
	return true
}

// report puts the rows that were found into the order of places. The verdict is still missing. A row that is nil was cut short.
func (r *run) report(places []place, found map[place]Row, proxyNotes ...string) Report {
	all := Report{proxyNotes: proxyNotes, remembered: r.Remembered, uplinks: r.Uplinks, Local: []netip.Addr{}, Time: []TimeRow{}, Resolvers: []ResolverRow{}, Names: []NameRow{}, Ways: []WayRow{}}
	for _, at := range places {
		row, ended := found[at]
		if !ended {
			continue // there was nothing to measure
		}
		switch row := row.(type) {
		case TimeRow:
			all.Time = append(all.Time, row)
		case ResolverRow:
			all.Resolvers = append(all.Resolvers, row)
		case NameRow:
			all.Names = append(all.Names, row)
		case WayRow:
			all.Ways = append(all.Ways, row)
		default:
			all.unknown++
		}
	}
	if r.Profile != nil {
		all.Profile = r.Profile.Name
	}
	all.Clock = judgeTime(all.Time, len(r.TimeSources), r.Floor, r.Ceiling)
	return all
}

// Text is the report for people.
func (r Report) Text() string {
	var b strings.Builder
	r.WriteText(&b) // a Builder does not fail
	return b.String()
}

// WriteText writes the report for people: a section for each part, its
// columns aligned, and the verdict. The error is w's. In English and without colour, so that it can be pasted into a
// ticket; the sheet is what has a language.
func (r Report) WriteText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if r.Profile != "" {
		fmt.Fprintf(tw, "profile\n  %s\n", r.Profile)
	}
	if r.Clock != (ClockFinding{}) { // else there is no source
		section(tw, "time", r.Time)
		fmt.Fprintf(tw, "clock\n  %s: %s\n", mark(r.Clock.OK), r.Clock)
	}
	section(tw, "resolvers", r.Resolvers)
	section(tw, "names", r.Names)
	relay := func(w WayRow) bool { return w.Role == RoleRelay && r.Profile == "" }
	section(tw, "ways", only(r.Ways, func(w WayRow) bool { return !relay(w) }))
	if relays := only(r.Ways, relay); len(relays) > 0 {
		section(tw, "relays", relays)
	}
	fmt.Fprintf(tw, "verdict\n  %s: %s\n", mark(r.Verdict.OK), r.Verdict.Text)
	return tw.Flush() // a tabwriter keeps what was written until here, and the first error
}

func section[R Row](w io.Writer, title string, rows []R) {
	fmt.Fprintln(w, title)
	if len(rows) == 0 {
		fmt.Fprintln(w, "  nothing known")
	}
	for _, row := range rows {
		fmt.Fprintln(w, "  "+strings.Join(row.cells(), "\t"))
	}
}

// String is the row in one line, for progress.
func (n NameRow) String() string { return line("name", n) }

// String is the row in one line, for progress.
func (w WayRow) String() string {
	if w.Role == RoleRelay {
		return line("relay", w)
	}
	return line("way", w)
}

func line(kind string, row Row) string { return kind + "  " + strings.Join(row.cells(), "  ") }

func (n NameRow) cells() []string {
	if n.OK {
		return []string{mark(true), n.Host, joined(n.Addrs, " "), rttText(n.RTT)}
	}
	why := string(n.Reason)
	if len(n.Attempts) > 0 {
		why += ": " + joined(n.Attempts, ", ")
	}
	return []string{mark(false), n.Host, why}
}

func (w WayRow) cells() []string {
	all := []string{mark(w.OK), w.Host, addrText(w.Addr), fmt.Sprint(w.Port), w.Way}
	if w.Proxy != "" {
		all[len(all)-1] = w.Proxy
	}
	all = append(all, w.result()...)
	if w.Small && w.Packet > 0 {
		return append(all, fmt.Sprintf("packets of at most %d bytes", w.Packet))
	} else if w.Small {
		return append(all, "small packets only")
	}
	return all
}

// result is what became of it, without the form of its packets.
func (w WayRow) result() []string {
	switch {
	case w.OK && w.Issuer != "":
		return []string{rttText(w.RTT), "certificate by " + w.Issuer}
	case w.OK && !w.Root.IsZero():
		return []string{rttText(w.RTT), "unproven, root " + w.Root.String()[:16] + "..."}
	case w.OK:
		return []string{rttText(w.RTT)}
	case w.Issuer != "":
		return []string{string(w.Reason) + " by " + w.Issuer}
	case w.Detail != "" && (w.Proxy != "" || w.Reason == transport.BadAddress):
		return []string{string(w.Reason), w.Detail}
	}
	return []string{string(w.Reason)}
}

func mark(ok bool) string {
	if ok {
		return "ok"
	}
	return "no"
}

func rttText(ms float64) string { return fmt.Sprintf("%.1f ms", ms) }

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

// offsetText is how far a source is ahead, in English.
func offsetText(ms int64) string { return english().offset(ms) }

// offset is how far a source is ahead, in a unit that a person grasps.
func (l *lexicon) offset(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch abs := d.Abs(); {
	case abs < time.Second:
		return fmt.Sprintf("%+d ms", ms)
	case abs < 100*time.Second:
		return fmt.Sprintf("%+.1f s", d.Seconds())
	case abs < 48*time.Hour:
		return fmt.Sprintf("%+.1f h", d.Hours())
	}
	return fmt.Sprintf("%+.0f %s", d.Hours()/24, l.say(wDays))
}

func joined[S fmt.Stringer](all []S, sep string) string {
	texts := make([]string, len(all))
	for i, s := range all {
		texts[i] = s.String()
	}
	return strings.Join(texts, sep)
}

// An issuer may be as long as a certificate allows, and a row is one line of a terminal.
const maxTextBytes = 200 // of foreign text in a row

// clean makes text from elsewhere safe for terminals, logs and tables, and cuts it off.
func clean(s string) string { return harmless(s[:min(len(s), maxTextBytes)]) }

// harmless replaces everything but printable ASCII and the letters of Latin-1, which German needs: control characters, and
// letters that change the direction of writing or look like others. A list of what passes and not of what does not:
// nobody has to know every way to confuse a reader.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if ' ' <= r && r <= '~' || r >= 'À' && r <= 'ÿ' && r != '×' && r != '÷' {
			return r
		}
		return '?'
	}, s)
}

// TimeRow is what one time source said.
type TimeRow struct {
	Source  string       `json:"source"` // as configured
	Addr    netip.Addr   `json:"addr"`   // that answered, or was asked last
	OK      bool         `json:"ok"`     // the sample counts (time §3), and was not outvoted
	Offset  int64        `json:"offset_ms"`
	RTT     float64      `json:"rtt_ms"`
	Stratum uint8        `json:"stratum"`
	Verdict Standing     `json:"verdict"`
	Reason  probe.Reason `json:"reason"` // time §5; empty when OK
	Kiss    string       `json:"kiss"`   // code of a kiss-o'-death, else empty
	sample  probe.Sample
}

// Standing is whether a source is believed, compared with the others (time §4). It is
// empty until all of them are known.
type Standing string

// The standings of a source.
const (
	Agreed   Standing = "agreed"   // one of those that are believed
	Unproven Standing = "unproven" // it counts, but too few agree with it
	Rejected Standing = "rejected" // for the row's reason
)

// ClockFinding is what all sources together say about this machine's clock.
type ClockFinding struct {
	OK          bool         `json:"ok"`        // the sources can be believed
	Reason      probe.Reason `json:"reason"`    // no-majority, or empty when OK
	Offset      int64        `json:"offset_ms"` // by which this machine's clock is behind; zero when not OK
	Uncertainty int64        `json:"uncertainty_ms"`
	Agreed      int          `json:"agreed"` // sources that meet
	Needed      int          `json:"needed"` // of them, to be believed
}

// timeRow is the row of one sample, not yet compared with the others.
func timeRow(s probe.Sample, floor, ceiling time.Time) TimeRow {
	row := TimeRow{Source: clean(s.Source), Addr: s.Addr.Addr(), OK: true, Kiss: s.Kiss, sample: s}
	if err := s.Check(floor, ceiling); err != nil {
		row.OK, row.Reason = false, probe.ReasonBadReply
		if te, ok := errors.AsType[*probe.TimeError](err); ok {
			row.Reason = te.Reason
		}
	}
	if s.Err == nil && s.Kiss == "" { // else nothing was measured
		row.Offset, row.RTT, row.Stratum = s.Offset().Milliseconds(), millis(s.RTT), s.Stratum
	}
	return row
}

// judgeTime compares the sources and writes into each row what it is worth. It
// judges as the agent's clock does, whose word is probe.Combine's. Otherwise netcheck could call a source good that the
// agent then does not believe.
func judgeTime(rows []TimeRow, configured int, floor, ceiling time.Time) ClockFinding {
	if configured == 0 {
		return ClockFinding{}
	}
	samples := make([]probe.Sample, len(rows))
	for i, r := range rows {
		samples[i] = r.sample
	}
	v := probe.Combine(samples, configured, floor, ceiling)
	for i := range rows {
		rows[i].judge(v, rows[:i])
	}
	f := ClockFinding{OK: v.Plausible, Reason: v.Reason, Agreed: len(v.Agreed), Needed: v.Needed}
	if v.Plausible {
		f.Offset, f.Uncertainty = v.Time.Sub(v.Received).Milliseconds(), v.Uncertainty.Milliseconds()
	}
	return f
}

// judge sets the verdict of one row, after those before it.
func (t *TimeRow) judge(v probe.Verdict, before []TimeRow) {
	source := t.sample.Source
	// A source that is named twice has one vote.
	twice := slices.ContainsFunc(before, func(o TimeRow) bool { return o.sample.Source == source && o.Verdict != Rejected })
	outvoted := slices.ContainsFunc(v.Rejected, func(e *probe.TimeError) bool { return e.Source == source && e.Reason == probe.ReasonOutvoted })
	switch {
	case !t.OK:
	case twice:
		t.OK, t.Reason = false, probe.ReasonDuplicate
	case outvoted:
		t.OK, t.Reason = false, probe.ReasonOutvoted
	}
	switch {
	case !t.OK:
		t.Verdict = Rejected
	case v.Plausible:
		t.Verdict = Agreed
	default:
		t.Verdict = Unproven
	}
}

// String is the row in one line, for progress.
func (t TimeRow) String() string { return line("time", t) }

func (t TimeRow) cells() []string {
	all := []string{mark(t.OK), t.Source, addrText(t.Addr)}
	if t.Stratum > 0 { // it answered, whatever that is worth
		all = append(all, "offset "+offsetText(t.Offset), rttText(t.RTT), fmt.Sprintf("stratum %d", t.Stratum))
	}
	switch {
	case t.Kiss != "":
		return append(all, fmt.Sprintf("%s %s", t.Reason, t.Kiss))
	case t.Reason == probe.ReasonRootDistance && t.sample.RootDistance > freeRunning:
		return append(all, english().distance(t))
	case !t.OK:
		return append(all, string(t.Reason))
	case t.Verdict != "":
		return append(all, string(t.Verdict))
	}
	return all
}

// freeRunning is a root distance that w32time reports when it has no source: it starts with 10 s.
const freeRunning = 5 * time.Second

// distance explains a root distance that is far too large.
func (l *lexicon) distance(t TimeRow) string {
	return l.say(sDistance, t.Reason, t.sample.RootDistance.Round(100*time.Millisecond))
}

// String says it in a few words.
func (c ClockFinding) String() string { return english().clock(c) }

func (l *lexicon) clock(c ClockFinding) string {
	switch {
	case c.OK:
		return l.say(sClockGood, l.offset(c.Offset), c.Uncertainty, c.Agreed, c.Needed)
	case c.Reason == "":
		return l.say(sClockNone)
	}
	return l.say(sClockMajority, c.Reason, c.Agreed, c.Needed)
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
