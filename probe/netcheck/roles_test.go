package netcheck

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/probe"
	"hawser/transport"
)

// relayTo is a way to a relay.
func relayTo(host string, reason transport.Reason) WayRow {
	return WayRow{Host: host, Role: RoleRelay, Addr: addr2, Port: 443, OK: reason == "", Reason: reason, Connected: reason == ""}
}

func TestVerdictOnRelays(t *testing.T) {
	name := func(host string, role Role, reason probe.Reason) NameRow {
		return NameRow{Host: host, OK: reason == "", Reason: reason, servers: []server{{role: role, host: host, ports: []transport.Port{443}}}}
	}
	access := name("a.example", RoleAccess, "")
	r1, r2, lost := name("r1.example", RoleRelay, ""), name("r2.example", RoleRelay, ""), name("r3.example", RoleRelay, probe.ReasonNXDomain)
	open := to(443, "")
	tests := []struct {
		name   string
		report Report
		reason transport.Reason
		text   string
	}{
		{"both open", Report{Names: []NameRow{access, r1}, Ways: []WayRow{open, relayTo("r1.example", "")}}, "", "1 of 1 ways are open."},
		{"one relay of two", Report{Names: []NameRow{access, r1, r2}, Ways: []WayRow{open, relayTo("r1.example", ""), relayTo("r2.example", transport.Timeout)}}, "",
			"There is none to a Relay Server (443 timeout): a session over it fails. Ask the site's IT to allow outgoing TCP 443 to r2.example (2001:db8::7)."},
		{"no relay", Report{Names: []NameRow{access, r1}, Ways: []WayRow{open, relayTo("r1.example", transport.Timeout)}}, transport.Timeout,
			"none to a Relay Server (443 timeout), so that no session can begin"},
		{"no name of a relay", Report{Names: []NameRow{access, lost}, Ways: []WayRow{open}}, transport.DNS, "no address for r3.example"},
		{"a relay alone is no way", Report{Names: []NameRow{access, r1}, Ways: []WayRow{shut(443, transport.Timeout), relayTo("r1.example", "")}}, transport.Timeout,
			"No port is open (443 timeout)"},
		{"the name of the Access Server alone counts", Report{Names: []NameRow{name("a.example", RoleAccess, probe.ReasonNXDomain), r1}}, transport.DNS, "no address for a.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { expect(t, tt.report, tt.reason, tt.text) })
	}
}

func TestUnprovenServersAreNamedByTheirRoot(t *testing.T) {
	one, two := to(443, ""), to(80, "")
	one.Root, two.Root = identity.SPKI{1}, identity.SPKI{1}
	expect(t, Report{Ways: []WayRow{one, two}}, "", "its root has the SHA-256 0100")
	two.Root = identity.SPKI{2}
	expect(t, Report{Ways: []WayRow{one, two}}, "", "not all ways lead to the same servers")
}

// A relay is asked for as a relay, at the addresses of its name, and proves the same root.
func TestRelaysAreCheckedBesideAccessServers(t *testing.T) {
	onSite(t, func(s *site) {
		s.server("192.0.2.53", zone)
		s.listen(443, s.speaksTLS(s.leaf)) // an Access Server, whatever it is asked for
		s.check.Relays = []string{"r1.example", "access.example:443"}
		s.check.Ports = []transport.Port{443}
		r := s.check.Run(s.t.Context())
		if len(r.Names) != 2 || len(r.Ways) != 6 || r.Verdict.OK || !strings.Contains(r.Verdict.Text, "none to a Relay Server (443 tls-refused)") {
			t.Errorf("%s", r.Text())
		}
		for i, w := range r.Ways {
			if want := []Role{RoleAccess, RoleAccess, RoleRelay}[min(i, 2)]; w.Role != want || w.OK != (want == RoleAccess) {
				t.Errorf("%d: %+v", i, w)
			}
		}
		text := string((&Sheet{Report: r, ALPN: transport.ALPNAccess}).Text())
		for _, want := range []string{"Relay Server: sessions", "-alpn hawser-relay/1 -connect r1.example:443"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in\n%s", want, text)
			}
		}
	})
}

// Without a root, a pin or a file, a server of ours is recognised, and a box that breaks TLS open is named.
func TestWhoIsThereWithoutARoot(t *testing.T) {
	onSite(t, func(s *site) {
		s.check.Hosts, s.check.Ports = []string{"203.0.113.7"}, []transport.Port{443, 80}
		s.listen(443, s.speaksTLS(s.leaf))
		s.listen(80, s.speaksTLS(s.foreign("Big Proxy")))
		s.check.Target.Roots, s.check.Target.Anyone = nil, true
		r := s.check.Run(s.t.Context())
		if len(r.Ways) != 2 || !r.Ways[0].OK || r.Ways[0].Root.IsZero() || r.Ways[1].Reason != transport.TLSIntercepted || r.Ways[1].Issuer != "CN=Big Proxy" {
			t.Fatalf("%s", r.Text())
		}
		if !r.Verdict.OK || !strings.Contains(r.Verdict.Text, r.Ways[0].Root.String()) {
			t.Errorf("%s", r.Verdict.Text)
		}
	})
}

func TestFreeRunningWindowsTimeServerIsNamed(t *testing.T) {
	row := TimeRow{Source: "dc1", Addr: netip.MustParseAddr("192.0.2.9"), Stratum: 1, Reason: probe.ReasonRootDistance, Verdict: Rejected,
		sample: probe.Sample{RootDistance: 10_020 * time.Millisecond}}
	if got := row.String(); !strings.Contains(got, "root-distance 10s: a Windows time server without a source") {
		t.Error(got)
	}
	text := string((&Sheet{Report: Report{Time: []TimeRow{row}}}).Text())
	if !strings.Contains(text, "a Windows time server without a source") {
		t.Error(text)
	}
}

func TestRelaysOfFormerSessionsAreFound(t *testing.T) {
	good := []Good{{"a.example", 443}, {"r1.example", 443}, {"r2.example", 8443}, {"r1.example", 80}, {"2001:db8::1", 9}, {"r3.example", 80}, {"r4.example", 80}}
	got := RelaysIn(good, []string{"a.example:443", "b.example"}, nil)
	if want := []string{"r1.example", "r2.example:8443", "[2001:db8::1]:9", "r3.example"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := RelaysIn(good[2:3], nil, []transport.Port{8443}); !slices.Equal(got, []string{"r2.example"}) {
		t.Errorf("with its port configured: %q", got)
	}
}

// A relay that is only remembered may be gone: it is told of, and does not decide.
func TestRememberedRelayDoesNotDecide(t *testing.T) {
	name := NameRow{Host: "r1.example", OK: true, servers: []server{{role: RoleRelay, host: "r1.example"}}}
	r := Report{Names: []NameRow{name}, Ways: []WayRow{to(443, ""), relayTo("r1.example", transport.Timeout)}, remembered: true}
	expect(t, r, "", "There is none to a Relay Server (443 timeout)")
}
