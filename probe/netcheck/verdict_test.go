package netcheck

import (
	"net/netip"
	"strings"
	"testing"

	"hawser/probe"
	"hawser/transport"
)

// to is a way that TCP let through, and shut is one that it did not.
func to(port transport.Port, r transport.Reason) WayRow {
	return WayRow{Host: "a.example", Role: RoleAccess, Addr: addr1, Port: port, OK: r == "", Reason: r, Connected: true, Issuer: "CN=Proxy", Detail: "what was seen"}
}

func shut(port transport.Port, r transport.Reason) WayRow {
	return WayRow{Host: "a.example", Role: RoleAccess, Addr: addr1, Port: port, Reason: r}
}

func noName(r probe.Reason, servers ...string) NameRow {
	n := NameRow{Host: "a.example", Reason: r}
	for _, s := range servers {
		n.Attempts = append(n.Attempts, probe.Attempt{Server: netip.MustParseAddrPort(s), Network: "udp", Reason: r})
	}
	return n
}

func TestVerdictOnNames(t *testing.T) {
	const asked = "192.0.2.53:53"
	tests := []struct {
		row  NameRow
		text string
	}{
		{noName(probe.ReasonBadName), `"a.example" is not a host name: correct`},
		{noName(probe.ReasonNoResolver), "let DHCP give one"},
		{noName(probe.ReasonNXDomain, asked), "has no address for a.example (192.0.2.53:53 udp nxdomain): check the name"},
		{noName(probe.ReasonNoAddress, asked), "(192.0.2.53:53 udp no-address): check the name"},
		{noName(probe.ReasonBadAddress, asked), "not to filter this name"},
		{noName(probe.ReasonTimeout, asked, "192.0.2.54:53"), "(192.0.2.53:53 udp timeout, 192.0.2.54:53 udp timeout): ask the site's IT to allow UDP and TCP 53"},
		{noName(probe.ReasonUnreachable, asked), "allow UDP and TCP 53"},
		{noName(probe.ReasonTruncated, asked), "allow UDP and TCP 53"},
		{noName(probe.ReasonServFail, asked), "(192.0.2.53:53 udp servfail): ask the site's IT to repair it"},
		{noName(probe.ReasonRefused), "(nobody was asked): ask the site's IT to repair it"},
	}
	for _, tt := range tests {
		t.Run(string(tt.row.Reason), func(t *testing.T) {
			expect(t, Report{Names: []NameRow{tt.row, noName(probe.ReasonServFail)}}, transport.DNS, tt.text)
		})
	}
}

// Where nothing comes back, the machine's other way out is named, and that which the system uses.
func TestOtherUplinkIsNamed(t *testing.T) {
	const text = "The system sends everything out by eth0, and wwan0 may lead out too"
	eth0 := Uplink{"eth0", []netip.Addr{netip.MustParseAddr("10.20.0.2"), netip.MustParseAddr("2001:db8:20::2")}}
	wwan0 := Uplink{"wwan0", []netip.Addr{netip.MustParseAddr("10.30.0.2")}}
	both := []Uplink{eth0, wwan0}
	silent, local := []WayRow{shut(443, transport.Timeout)}, eth0.Addrs[:1]
	for name, c := range map[string]struct {
		report Report
		want   bool
	}{
		"nothing comes back":         {Report{Ways: silent, Local: local, uplinks: both}, true},
		"no route":                   {Report{Ways: []WayRow{shut(443, transport.Unreachable)}, Local: local, uplinks: both}, true},
		"nothing comes of the hello": {Report{Ways: []WayRow{to(443, transport.Timeout)}, Local: local, uplinks: both}, true},
		"no resolver answers":        {Report{Names: []NameRow{noName(probe.ReasonTimeout, "192.0.2.53:53")}, Local: local, uplinks: both}, true},
		"no such name":               {Report{Names: []NameRow{noName(probe.ReasonNXDomain, "192.0.2.53:53")}, Local: local, uplinks: both}, false},
		"refused":                    {Report{Ways: []WayRow{shut(443, transport.Refused)}, Local: local, uplinks: both}, false},
		"open":                       {Report{Ways: []WayRow{to(443, "")}, Local: local, uplinks: both}, false},
		"one uplink":                 {Report{Ways: silent, Local: local, uplinks: both[:1]}, false},
		"both are used":              {Report{Ways: silent, Local: []netip.Addr{eth0.Addrs[1], wwan0.Addrs[0]}, uplinks: both}, false},
		"not known which":            {Report{Ways: silent, uplinks: both}, false},
	} {
		if got := c.report.judge(english()).Text; strings.Contains(got, text) != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestVerdictOnWays(t *testing.T) {
	right := TimeRow{Source: "ntp.example", OK: true, Offset: 59_000}
	off := TimeRow{Source: "ntp.example", OK: true, Offset: 2 * 3600_000}
	mute := TimeRow{Source: "mute.example", Reason: probe.ReasonTimeout}
	tests := []struct {
		name   string
		ways   []WayRow
		times  []TimeRow
		reason transport.Reason
		text   string
	}{
		{"one open", []WayRow{shut(443, transport.Timeout), to(80, "")}, nil, "", "TCP 80 to a.example (203.0.113.7); 1 of 2 ways are open"},
		{"open beside interception", []WayRow{to(443, transport.TLSIntercepted), to(80, "")}, nil, "", "TCP 80 to a.example"},
		{"all refused", []WayRow{shut(443, transport.Refused), shut(80, transport.Refused)}, nil, transport.Refused, "Every port is refused (443 refused, 80 refused): is hawser-server running there? A firewall mostly drops. If it runs, ask the site's IT to allow outgoing TCP 443 to a.example (203.0.113.7)."},
		{"no route", []WayRow{shut(443, transport.Unreachable), shut(80, transport.Unreachable)}, nil, transport.Unreachable, "no route to TCP 443 to a.example"},
		{"reset at once", []WayRow{shut(443, transport.Reset)}, nil, transport.Reset, "No port is open (443 reset)"},
		{"TLS counts before TCP", []WayRow{shut(443, transport.Refused), to(80, transport.ResetAfterHello)}, nil, transport.ResetAfterHello, "stop TLS on TCP 80 to a.example (203.0.113.7) (reset-after-hello)"},
		{"silence after TCP", []WayRow{shut(443, transport.Refused), to(80, transport.Timeout)}, nil, transport.Timeout, "stop TLS on TCP 80"},
		{"interception is named first", []WayRow{to(443, transport.PlainHTTP), to(80, transport.TLSIntercepted)}, nil, transport.TLSIntercepted, `(certificate of "CN=Proxy"): ask the site's IT to exempt a.example`},
		{"portal", []WayRow{to(80, transport.CaptivePortal)}, nil, transport.CaptivePortal, "A login page stands before TCP 80"},
		{"HTTP", []WayRow{shut(443, transport.Timeout), to(80, transport.PlainHTTP)}, nil, transport.PlainHTTP, "allow outgoing TCP 443 to a.example (203.0.113.7) without a proxy"},
		{"not TLS on a port of its own", []WayRow{to(8443, transport.NotTLS)}, nil, transport.NotTLS, "allow outgoing TCP 8443 to a.example"},
		{"another infrastructure", []WayRow{to(443, transport.WrongRoot)}, nil, transport.WrongRoot, "check the root or pin"},
		{"another kind", []WayRow{to(443, transport.WrongKind)}, nil, transport.WrongKind, "not the Access Server (wrong-kind)"},
		{"alert", []WayRow{to(443, transport.TLSRefused)}, nil, transport.TLSRefused, "not the Access Server (tls-refused)"},
		{"nothing proved", []WayRow{to(443, transport.BadCertificate)}, nil, transport.BadCertificate, "(bad-certificate: what was seen)"},
		{"dates, no sources", []WayRow{to(443, transport.ClockWrong)}, nil, transport.ClockWrong, "name a time source with --time"},
		{"dates, sources silent", []WayRow{to(443, transport.ClockWrong)}, []TimeRow{mute}, transport.ClockWrong, "allow outgoing UDP 123 to mute.example"},
		{"dates, clock wrong", []WayRow{to(443, transport.Expired)}, []TimeRow{mute, off}, transport.Expired, "set the clock, from which ntp.example differs by +2.0 h"},
		{"dates, clock right", []WayRow{to(443, transport.Expired)}, []TimeRow{mute, right}, transport.Expired, "the clock agrees with ntp.example: ask who runs the server"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			expect(t, Report{Time: tt.times, Names: []NameRow{{Host: "a.example", OK: true}}, Ways: tt.ways}, tt.reason, tt.text)
		})
	}
}

func expect(t *testing.T, r Report, reason transport.Reason, text string) {
	t.Helper()
	got := r.judge(english())
	if got.OK != (reason == "") || got.Reason != reason || !strings.Contains(got.Text, text) {
		t.Errorf("%+v\nwant %s: %q", got, reason, text)
	}
	r.unknown = 1
	if cut := r.judge(english()); strings.Contains(cut.Text, "cut short") == got.OK {
		t.Errorf("with a row missing: %+v", cut)
	}
}

func TestFirewallRequestNamesEveryHost(t *testing.T) {
	b := WayRow{Host: "203.0.113.9", Role: RoleAccess, Addr: netip.MustParseAddr("203.0.113.9"), Port: 8443, Reason: transport.Timeout}
	six := shut(443, transport.Timeout)
	six.Addr = addr2
	expect(t, Report{Ways: []WayRow{shut(443, transport.Refused), six, shut(80, transport.Refused), b}}, transport.Refused,
		"(443 refused, 80 refused, 8443 timeout): ask the site's IT to allow outgoing TCP 443 to a.example (203.0.113.7, 2001:db8::7) and TCP 8443 to 203.0.113.9.")
}

func TestInterceptionWithoutAnIssuer(t *testing.T) {
	w := to(443, transport.TLSIntercepted)
	w.Issuer = ""
	expect(t, Report{Ways: []WayRow{w}}, transport.TLSIntercepted, "(certificate of an unnamed issuer)")
}

func TestTCPCompletedOrNot(t *testing.T) {
	for _, tt := range []struct {
		a    transport.Attempt
		want bool
	}{
		{transport.Attempt{}, true},
		{transport.Attempt{Reason: transport.Refused}, false},
		{transport.Attempt{Reason: transport.Unreachable}, false},
		{transport.Attempt{Reason: transport.Timeout}, false},
		{transport.Attempt{Reason: transport.Timeout, RTT: 1}, true},
		{transport.Attempt{Reason: transport.Reset}, false},
		{transport.Attempt{Reason: transport.TLSIntercepted}, true}, // on a clock too coarse for the round trip
	} {
		if got := connected(tt.a); got != tt.want {
			t.Errorf("connected(%+v) = %v", tt.a, got)
		}
	}
}
