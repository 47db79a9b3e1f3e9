package netcheck

import (
	"bytes"
	"encoding/xml"
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/probe"
	"hawser/transport"
)

var update = flag.Bool("update", false, "write the golden files anew")

func goldenSheet() *Sheet {
	return &Sheet{Report: golden(), At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Machine: "gw-7",
		Gateway: "00112233445566778899aabbccddeeff in domain default", Program: "hawser-agent 1.0", ALPN: transport.ALPNAccess, Contact: "Example Machines, +49 711 000", Device: "press 4", MAC: "02:00:00:00:00:01",
		Reach: &Reach{To: []string{"192.168.10.20/32:502", "[2001:db8::/64]:*"}}}
}

// What sessions may reach is what its owner has written, and is said of a gateway alone.
func TestSheetListsWhatSessionsReach(t *testing.T) {
	t.Attr("id", "A4-report")
	rules := []string{"192.168.10.20/32:502", "192.168.10.21/32:80"}
	for _, tt := range []struct {
		reach *Reach
		pc    bool
		want  string // empty: no such line
	}{
		{nil, false, ""}, {&Reach{To: rules}, true, ""},
		{&Reach{To: rules}, false, "192.168.10.20/32:502, 192.168.10.21/32:80"}, {&Reach{}, false, "nothing"},
		{&Reach{To: []string{"192.168.10.0/24"}, LAN: true}, false, "the networks on its LAN side, now 192.168.10.0/24"},
		{&Reach{LAN: true}, false, "the networks on its LAN side, now nothing"},
	} {
		s := goldenSheet()
		s.Reach, s.PC = tt.reach, tt.pc
		got := ""
		for _, fact := range s.facts() {
			if fact[0] == "Sessions may reach" {
				got = fact[1]
			}
		}
		if got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.reach, got, tt.want)
		}
	}
}

func TestSheetIsAsTheGoldenFiles(t *testing.T) {
	t.Attr("id", "A4-report")
	german := goldenSheet()
	german.Language = German
	for name, got := range map[string][]byte{"sheet.txt": goldenSheet().Text(), "sheet.html": goldenSheet().HTML(), "sheet_de.txt": german.Text()} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v; not as %s:\n%s", err, file, got)
			}
		})
	}
}

func TestProfileIsNamedInTheReport(t *testing.T) {
	p, _ := ProfileNamed("combivis")
	r := newRun(&Check{Profile: &p}).report(nil, nil)
	if !strings.HasPrefix(r.Text(), "profile\n  combivis\n") || r.Profile != "combivis" {
		t.Errorf("%s", r.Text())
	}
}

// nasty is text that a name, an issuer or a banner may hold.
var nasty = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='x`, `&lt;b&gt;&amp;`, `</td></table><h1>`, `<!--`, `]]>`,
	"\x1b[2J\x1b]0;title\a", "a\r\nAllow: everything", "a\tb\vc\x00", "\u202egnp.exe", "\u2066x\u2069", "\u200b\ufeff", "\x80\xff\xfe", "pаypal", "%s%d%!n",
}

// poisoned is a sheet with text at every place that takes some.
func poisoned(text string) *Sheet {
	s := goldenSheet()
	r := &s.Report
	now := s.At
	r.Time = []TimeRow{timeRow(mute(text, probe.ReasonDNS), now, now), {Source: clean(text), OK: true}}
	for i := range r.Names {
		r.Names[i].Host = text
	}
	for i := range r.Ways {
		r.Ways[i].Host, r.Ways[i].Issuer, r.Ways[i].Detail = text, text, text
	}
	for i := range r.Resolvers {
		r.Resolvers[i].Name = text
	}
	for _, n := range r.Names {
		for i := range n.servers {
			n.servers[i].host = text
		}
	}
	r.Verdict = r.judge(english())
	s.Machine, s.Gateway, s.Program, s.Contact, s.Device, s.MAC, s.ALPN = text, text, text, text, text, text, text
	return s
}

func TestForeignTextIsInertInTheSheet(t *testing.T) {
	for _, text := range nasty {
		t.Run(harmless(text), func(t *testing.T) {
			t.Attr("id", "A4-report")
			s := poisoned(text)
			plain, page := s.Text(), s.HTML()
			for _, b := range append(slices.Clone(plain), page...) {
				if b != '\n' && (b < ' ' || b > '~') {
					t.Fatalf("byte %#x is in a sheet", b)
				}
			}
			if got, want := elements(t, page), elements(t, poisoned("x").HTML()); !slices.Equal(got, want) {
				t.Errorf("the page has other elements:\n%s", page)
			}
			if got, want := bytes.Count(plain, []byte("\n")), bytes.Count(poisoned("x").Text(), []byte("\n")); got != want {
				t.Errorf("%d lines, want %d:\n%s", got, want, plain)
			}
		})
	}
}

// elements lists the tags and attributes of a page, and fails if it is not well
// formed. It reads as XML what a browser reads as HTML: text in which no "<"
// and no "&" stands by itself is the same to both.
func elements(t *testing.T, page []byte) (list []string) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Strict, d.AutoClose = false, xml.HTMLAutoClose
	for {
		token, err := d.Token()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, page)
		}
		switch token := token.(type) {
		case xml.StartElement:
			list = append(list, token.Name.Local)
			for _, a := range token.Attr {
				list = append(list, a.Name.Local+"="+a.Value)
			}
		case xml.Comment, xml.ProcInst:
			list = append(list, "foreign")
		}
	}
}

func TestInert(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "<b>": "&lt;b&gt;", `a"b'c`: "a&#34;b&#39;c", "&lt;": "&amp;lt;", "a\x00\u202eb\n": "a??b?", "": "",
	} {
		if got := inert(in); got != want {
			t.Errorf("inert(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzSheet(f *testing.F) {
	for _, text := range nasty {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(inert(text), "<>\"'\n\x1b") {
			t.Fatalf("inert(%q) = %q", text, inert(text))
		}
	})
}

func TestMissingRules(t *testing.T) {
	name := NameRow{Host: "a.example", OK: true, Addrs: []netip.Addr{addr1}, servers: accessOn("a.example", 443, 80)}
	resolver := netip.MustParseAddrPort("192.0.2.53:53")
	dns := func(udp, tcp probe.Reason) []ResolverRow {
		return []ResolverRow{{Server: resolver, Network: "udp", OK: udp == "", Reason: udp}, {Server: resolver, Network: "tcp", OK: tcp == "", Reason: tcp}}
	}
	source := netip.MustParseAddr("192.0.2.123")
	tests := []struct {
		name   string
		report Report
		want   []string // the beginnings
	}{
		{"all is open", Report{Names: []NameRow{name}, Ways: []WayRow{to(443, "")}, Resolvers: dns("", "")}, nil},
		{"80 is enough", Report{Names: []NameRow{name}, Ways: []WayRow{shut(443, transport.Timeout), to(80, "")}}, nil},
		{"no port", Report{Names: []NameRow{name}, Ways: []WayRow{shut(443, transport.Timeout), shut(80, transport.Refused)}},
			[]string{"Allow outgoing TCP from this machine to a.example (203.0.113.7) port 443. It is closed: timeout."}},
		{"another infrastructure is no matter of rules", Report{Names: []NameRow{name}, Ways: []WayRow{to(443, transport.WrongRoot)}}, nil},
		{"inspection", Report{Names: []NameRow{name}, Ways: []WayRow{to(443, transport.TLSIntercepted), to(80, transport.TLSIntercepted)}},
			[]string{`Exempt a.example from TLS inspection, whose issuer is "CN=Proxy".`}},
		{"no name, no DNS", Report{Names: []NameRow{{Host: "a.example", servers: name.servers, Reason: probe.ReasonTimeout}}, Resolvers: dns(probe.ReasonTimeout, probe.ReasonTimeout)},
			[]string{"Allow outgoing UDP from this machine to 192.0.2.53 port 53. It is closed: timeout."}},
		{"UDP 53", Report{Resolvers: dns(probe.ReasonTimeout, "")}, []string{"Allow outgoing UDP from this machine to 192.0.2.53 port 53."}},
		{"one resolver of two", Report{Resolvers: append(dns(probe.ReasonTimeout, probe.ReasonTimeout), dns("", "")...)}, nil},
		{"a resolver that says no is no matter of rules", Report{Resolvers: dns(probe.ReasonNXDomain, probe.ReasonRefused)}, nil},
		{"time of our own infrastructure", Report{Time: []TimeRow{{Source: "t", Addr: source, Reason: probe.ReasonTimeout}}}, nil},
		{"time of the profile", Report{Profile: "combivis", Time: []TimeRow{{Source: "t:124", Addr: source, Reason: probe.ReasonTimeout}}},
			[]string{"Allow outgoing UDP from this machine to t (192.0.2.123) port 124. It is closed: timeout. Purpose: time (NTP)."}},
		{"a time source that says no", Report{Profile: "combivis", Time: []TimeRow{{Source: "t", Addr: source, Reason: probe.ReasonKiss, Kiss: "DENY"}}}, nil},
		{"web pages are optional", Report{Profile: "combivis", Names: []NameRow{{Host: "help.combivisconnect.com", OK: true, servers: []server{{role: RoleWeb, ports: []transport.Port{443}}}}},
			Ways: []WayRow{{Host: "help.combivisconnect.com", Role: RoleWeb, Port: 443, Reason: transport.Timeout}}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Attr("id", "A4-report")
			s := &Sheet{Report: tt.report}
			got := s.missing(s.rules())
			if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
				t.Errorf("%q\nwant %q", got, tt.want)
			}
			text := string(s.Text())
			if len(tt.want) == 0 && !strings.Contains(text, english().say(sNothingMissing)) || !strings.Contains(text, "Nothing inbound is needed") {
				t.Errorf("%s", text)
			}
		})
	}
}

func TestSheetTellsTheTimeAndItsQuality(t *testing.T) {
	s := &Sheet{At: truth}
	if got := s.measured(); got != "2026-06-15 12:00:00 UTC (by the machine's own clock; no time source confirms it)" {
		t.Error(got)
	}
	s.Report.Clock = ClockFinding{OK: true, Offset: 3600_000, Agreed: 3, Needed: 3}
	if got := s.measured(); got != "2026-06-15 13:00:00 UTC (by 3 time sources that agree; the machine's own clock must change by +1.0 h)" {
		t.Error(got)
	}
}

func TestEveryOddityIsExplained(t *testing.T) {
	for _, o := range []probe.Oddity{probe.NXDomainHijack, probe.PrivateAddress, probe.LocalAddress, probe.ChangesCase, probe.NoEDNS, probe.UDPBlocked, probe.TCPBlocked} {
		if english().explain(o) == string(o) {
			t.Errorf("%s is not explained", o)
		}
	}
}
