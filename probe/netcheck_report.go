package probe

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"hawser/transport"
)

// Report is what a Netcheck found. Its JSON is the one of cli §2. Rows stand
// in the order of the configuration, whichever came first.
type Report struct {
	Profile   string        `json:"profile,omitempty"` // the name of a profile that was checked
	Local     []netip.Addr  `json:"local"`             // from which this machine sends: at most one of a family
	Time      []TimeRow     `json:"time"`
	Clock     ClockFinding  `json:"clock"`
	Resolvers []ResolverRow `json:"resolvers"` // each over UDP, then TCP; none where nothing has a name
	Names     []NameRow     `json:"names"`
	Ways      []WayRow      `json:"ways"` // hosts as configured; ports 443, 5935, 80, then others; addresses as resolved
	Verdict   Finding       `json:"verdict"`
}

// Row is one line of a report: a TimeRow, ResolverRow, NameRow or WayRow. String is its
// form for progress, one line without a line end.
type Row interface {
	fmt.Stringer
	cells() []string
}

// NameRow is what became of one host's name.
type NameRow struct {
	Host     string       `json:"host"`
	OK       bool         `json:"ok"`
	Addrs    []netip.Addr `json:"addrs"`  // at most 4, never nil; an IP literal is its own
	RTT      float64      `json:"rtt_ms"` // of the whole search for it
	Reason   Reason       `json:"reason"` // names §7; empty when OK
	Attempts []Attempt    `json:"-"`      // what each resolver did, when not OK
	ports    []transport.Port
}

// WayRow is what became of one address and port.
type WayRow struct {
	Host      string           `json:"host"`
	Addr      netip.Addr       `json:"addr"`
	Port      transport.Port   `json:"port"`
	Way       string           `json:"way"`    // always direct
	OK        bool             `json:"ok"`     // authenticated TLS completed; of a profile, TLS with anybody
	RTT       float64          `json:"rtt_ms"` // of the TCP connect; zero when it did not complete
	Reason    transport.Reason `json:"reason"` // wire §7; empty when OK
	Issuer    string           `json:"issuer"` // of a foreign certificate, in harmless characters; a profile's always
	Connected bool             `json:"-"`      // TCP completed
	Detail    string           `json:"-"`      // for people, in harmless characters
}

func wayRow(a transport.Attempt) WayRow {
	return WayRow{
		Host: clean(a.Host), Addr: a.Addr.Addr(), Port: transport.Port(a.Addr.Port()), Way: "direct",
		OK: a.Reason == "", RTT: millis(a.RTT), Reason: a.Reason, Issuer: clean(a.Issuer),
		Connected: connected(a), Detail: clean(a.Detail),
	}
}

// connected says whether TCP completed. The round trip alone does not tell:
// a coarse clock measures zero.
func connected(a transport.Attempt) bool {
	switch a.Reason {
	case transport.Refused, transport.Unreachable:
		return false
	case transport.Timeout, transport.Reset, transport.Internal:
		return a.RTT > 0
	}
	return true
}

// newReport puts the rows in order and judges them.
func (c *check) newReport(all []finished) Report {
	slices.SortStableFunc(all, func(a, b finished) int { return cmp.Compare(a.order, b.order) })
	r := Report{Local: []netip.Addr{}, Time: []TimeRow{}, Resolvers: []ResolverRow{}, Names: []NameRow{}, Ways: []WayRow{}}
	unknown := 0
	for _, one := range all {
		switch row := one.row.(type) {
		case TimeRow:
			r.Time = append(r.Time, row)
		case ResolverRow:
			r.Resolvers = append(r.Resolvers, row)
		case NameRow:
			r.Names = append(r.Names, row)
		case WayRow:
			r.Ways = append(r.Ways, row)
		default:
			unknown++
		}
	}
	if c.Profile != nil {
		r.Profile = c.Profile.Name
	}
	r.Clock = judgeTime(r.Time, len(c.TimeSources), c.Floor, c.Ceiling)
	r.Verdict = judgeReport(r, unknown)
	return r
}

// Text is the report for people.
func (r Report) Text() string {
	var b strings.Builder
	r.WriteText(&b) // a Builder does not fail
	return b.String()
}

// WriteText writes the report for people: a section for each part, its
// columns aligned, and the verdict. The error is w's.
func (r Report) WriteText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if r.Profile != "" {
		fmt.Fprintf(tw, "profile\n  %s\n", r.Profile)
	}
	section(tw, "time", r.Time)
	fmt.Fprintf(tw, "clock\n  %s: %s\n", mark(r.Clock.OK), r.Clock)
	section(tw, "resolvers", r.Resolvers)
	section(tw, "names", r.Names)
	section(tw, "ways", r.Ways)
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
func (w WayRow) String() string { return line("way", w) }

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
	switch {
	case w.OK && w.Issuer != "":
		return append(all, rttText(w.RTT), "certificate by "+w.Issuer)
	case w.OK:
		return append(all, rttText(w.RTT))
	case w.Issuer != "":
		return append(all, string(w.Reason)+" by "+w.Issuer)
	}
	return append(all, string(w.Reason))
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

// offsetText is how far a source is ahead, in a unit that a person grasps.
func offsetText(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch abs := d.Abs(); {
	case abs < time.Second:
		return fmt.Sprintf("%+d ms", ms)
	case abs < 100*time.Second:
		return fmt.Sprintf("%+.1f s", d.Seconds())
	case abs < 48*time.Hour:
		return fmt.Sprintf("%+.1f h", d.Hours())
	}
	return fmt.Sprintf("%+.0f days", d.Hours()/24)
}

func joined[S fmt.Stringer](all []S, sep string) string {
	texts := make([]string, len(all))
	for i, s := range all {
		texts[i] = s.String()
	}
	return strings.Join(texts, sep)
}

const maxTextBytes = 200 // of foreign text in a row

// clean keeps of foreign text what no terminal, log or table acts on, and not
// much of it.
func clean(s string) string { return harmless(s[:min(len(s), maxTextBytes)]) }

// harmless makes s printable ASCII: no control characters, and no letters that
// turn the direction of writing or look like others.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
