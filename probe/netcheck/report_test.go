package netcheck

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
)

// mute is a sample of a source that was not heard.
func mute(source string, reason probe.Reason) probe.Sample {
	return probe.Sample{Source: source, Err: &probe.TimeError{Source: source, Reason: reason}}
}

// golden is a site with one row of each kind.
func golden() Report {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	good := probe.Sample{Source: "ntp.example", Addr: netip.MustParseAddrPort("192.0.2.123:123"), Received: now,
		At: now.Add(-1500 * time.Millisecond), RTT: 23_456 * time.Microsecond, Stratum: 2}
	mute := mute("mute.example", probe.ReasonDNS)
	tried := []probe.Attempt{{Server: netip.MustParseAddrPort("192.0.2.53:53"), Network: "udp", Reason: probe.ReasonNXDomain}}
	at := func(port uint16) transport.Candidate {
		return transport.Candidate{Host: "a.example", Addr: netip.AddrPortFrom(addr1, port)}
	}
	c := newRun(&Check{TimeSources: []string{"ntp.example", "mute.example", "kiss.example"}, Floor: now.Add(-time.Hour), Ceiling: now.Add(time.Hour)})
	r := reportOf(c,
		timeRow(good, now.Add(-time.Hour), now.Add(time.Hour)),
		timeRow(mute, now.Add(-time.Hour), now.Add(time.Hour)),
		timeRow(probe.Sample{Source: "kiss.example", Addr: good.Addr, Received: now, Kiss: "RATE"}, now.Add(-time.Hour), now.Add(time.Hour)),
		ResolverRow{Server: tried[0].Server, Network: "udp", OK: true, Name: "a.example", Addrs: []netip.Addr{addr1}, RTT: 3, Findings: []probe.Oddity{probe.NXDomainHijack, probe.ChangesCase}},
		ResolverRow{Server: tried[0].Server, Network: "tcp", Name: "a.example", Addrs: []netip.Addr{}, Reason: probe.ReasonTimeout, Findings: []probe.Oddity{probe.TCPBlocked}},
		NameRow{Host: "a.example", OK: true, Addrs: []netip.Addr{addr1}, RTT: 12.3, servers: accessOn("a.example", 443, 80)},
		NameRow{Host: "b.example", Addrs: []netip.Addr{}, RTT: 4, Reason: probe.ReasonNXDomain, Attempts: tried, servers: accessOn("b.example", 443)},
		wayRow(transport.Attempt{Candidate: at(443), Reason: transport.TLSIntercepted, RTT: 8 * time.Millisecond, Issuer: "CN=Proxy\u202e"}, RoleAccess, identity.SPKI{}),
		wayRow(transport.Attempt{Candidate: at(80), Reason: transport.Refused, Detail: "dial tcp: connection refused"}, RoleAccess, identity.SPKI{}),
	)
	r.Local = []netip.Addr{netip.MustParseAddr("192.0.2.100")}
	return r
}

// accessOn is an Access Server with its ports.
func accessOn(host string, ports ...transport.Port) []server {
	return []server{{role: RoleAccess, host: host, ports: ports, addrs: checkedAddrs}}
}

// reportOf is the report of a run that found these rows.
func reportOf(r *run, rows ...Row) Report {
	var places []place
	found := map[place]Row{}
	for i, row := range rows {
		places = append(places, place{nth: i})
		found[place{nth: i}] = row
	}
	report := r.report(places, found)
	report.Verdict = report.judge(english())
	return report
}

func TestReportJSON(t *testing.T) {
	got, err := json.MarshalIndent(golden(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"local":["192.0.2.100"],"time":[
{"source":"ntp.example","addr":"192.0.2.123","ok":true,"offset_ms":-1500,"rtt_ms":23.5,"stratum":2,"verdict":"unproven","reason":"","kiss":""},
{"source":"mute.example","addr":"","ok":false,"offset_ms":0,"rtt_ms":0,"stratum":0,"verdict":"rejected","reason":"dns","kiss":""},
{"source":"kiss.example","addr":"192.0.2.123","ok":false,"offset_ms":0,"rtt_ms":0,"stratum":0,"verdict":"rejected","reason":"kiss","kiss":"RATE"}
],"clock":{"ok":false,"reason":"no-majority","offset_ms":0,"uncertainty_ms":0,"agreed":1,"needed":2},"resolvers":[
{"server":"192.0.2.53:53","network":"udp","ok":true,"name":"a.example","addrs":["203.0.113.7"],"rtt_ms":3,"reason":"","findings":["nxdomain-hijack","changes-case"]},
{"server":"192.0.2.53:53","network":"tcp","ok":false,"name":"a.example","addrs":[],"rtt_ms":0,"reason":"timeout","findings":["tcp-blocked"]}
],"names":[
{"host":"a.example","ok":true,"addrs":["203.0.113.7"],"rtt_ms":12.3,"reason":""},
{"host":"b.example","ok":false,"addrs":[],"rtt_ms":4,"reason":"nxdomain"}
],"ways":[
{"host":"a.example","role":"access","addr":"203.0.113.7","port":443,"way":"direct","proxy":"","small":false,"packet_bytes":0,"ok":false,"rtt_ms":8,"reason":"tls-intercepted","issuer":"CN=Proxy?","root_sha256":""},
{"host":"a.example","role":"access","addr":"203.0.113.7","port":80,"way":"direct","proxy":"","small":false,"packet_bytes":0,"ok":false,"rtt_ms":0,"reason":"refused","issuer":"","root_sha256":""}
],"verdict":{"ok":false,"reason":"tls-intercepted","text":
"TLS on TCP 443 to a.example (203.0.113.7) is intercepted (certificate of \"CN=Proxy?\"): ask the site's IT to exempt a.example from TLS inspection."}}`
	var indented bytes.Buffer
	if err := json.Indent(&indented, []byte(want), "", "  "); err != nil {
		t.Fatal(err)
	}
	if string(got) != indented.String() {
		t.Errorf("%s\nwant %s", got, &indented)
	}
}

func TestReportText(t *testing.T) {
	want := `time
  ok  ntp.example   192.0.2.123  offset -1.5 s  23.5 ms  stratum 2  unproven
  no  mute.example  -            dns
  no  kiss.example  192.0.2.123  kiss RATE
clock
  no: no-majority; sources that agree: 1, needed: 2
resolvers
  ok  192.0.2.53:53  udp  203.0.113.7  3.0 ms  nxdomain-hijack, changes-case
  no  192.0.2.53:53  tcp  timeout      tcp-blocked
names
  ok  a.example  203.0.113.7  12.3 ms
  no  b.example  nxdomain: 192.0.2.53:53 udp nxdomain
ways
  no  a.example  203.0.113.7  443  direct  tls-intercepted by CN=Proxy?
  no  a.example  203.0.113.7  80   direct  refused
verdict
  no: TLS on TCP 443 to a.example (203.0.113.7) is intercepted (certificate of "CN=Proxy?"): ask the site's IT to exempt a.example from TLS inspection.
`
	if got := golden().Text(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestEmptyReportHasListsAndSaysSo(t *testing.T) {
	r := reportOf(newRun(new(Check)))
	b, err := json.Marshal(r)
	if err != nil || !strings.HasPrefix(string(b), `{"local":[],"time":[],"clock":{"ok":false,"reason":"","offset_ms":0,"uncertainty_ms":0,"agreed":0,"needed":0},"resolvers":[],"names":[],"ways":[],"verdict":{"ok":false,"reason":"timeout",`) {
		t.Errorf("%s, %v", b, err)
	}
	if n := strings.Count(r.Text(), "nothing known"); n != 3 {
		t.Errorf("%d sections say that nothing is known:\n%s", n, r.Text())
	}
}

func TestRowsInOneLine(t *testing.T) {
	r := golden()
	for row, want := range map[Row]string{
		r.Time[0]: "time  ok  ntp.example  192.0.2.123  offset -1.5 s  23.5 ms  stratum 2  unproven",
		r.Time[1]: "time  no  mute.example  -  dns",
		r.Time[2]: "time  no  kiss.example  192.0.2.123  kiss RATE",
		r.Ways[1]: "way  no  a.example  203.0.113.7  80  direct  refused",
	} {
		if row.String() != want {
			t.Errorf("%q, want %q", row, want)
		}
	}
	if got, want := r.Resolvers[1].String(), "resolver  no  192.0.2.53:53  tcp  timeout  tcp-blocked"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := r.Names[1].String(), "name  no  b.example  nxdomain: 192.0.2.53:53 udp nxdomain"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestForeignTextIsHarmless(t *testing.T) {
	row := wayRow(transport.Attempt{Candidate: transport.Candidate{Host: "a\x00b"}, Issuer: "x\x1b[2J\u202ey\n\xff", Detail: strings.Repeat("ж", 500)}, RoleAccess, identity.SPKI{})
	if row.Host != "a?b" || row.Issuer != "x?[2J?y??" || len(row.Detail) > maxTextBytes || strings.Trim(row.Detail, "?") != "" {
		t.Errorf("%q %q %q", row.Host, row.Issuer, row.Detail)
	}
	if source := timeRow(mute("a\tb", probe.ReasonBadSource), time.Time{}, time.Time{}).Source; source != "a?b" {
		t.Errorf("source %q", source)
	}
}

func TestOffsetText(t *testing.T) {
	for ms, want := range map[int64]string{
		0: "+0 ms", -999: "-999 ms", 1500: "+1.5 s", -99_900: "-99.9 s", 3 * 3600_000: "+3.0 h", -1_767_225_600_000: "-20454 days",
	} {
		if got := offsetText(ms); got != want {
			t.Errorf("offsetText(%d) = %q, want %q", ms, got, want)
		}
	}
}

// broken fails at the first write.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriteTextReturnsTheErrorOfTheWriter(t *testing.T) {
	if err := golden().WriteText(broken{}); err == nil {
		t.Error("no error")
	}
}
