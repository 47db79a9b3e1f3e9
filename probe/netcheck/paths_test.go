package netcheck

import (
	"net"
	"strings"
	"testing"

	"hawser/probe"
	"hawser/transport"
)

// through is a way to the Access Server through a proxy.
func through(reason transport.Reason) WayRow {
	return WayRow{Host: "a.example", Role: RoleAccess, Port: 443, Way: transport.WayProxy, Proxy: "http://proxy.example:3128", OK: reason == "", Reason: reason,
		Connected: reason != transport.Refused, Detail: "what it said"}
}

func TestVerdictOnProxies(t *testing.T) {
	shutWays := []WayRow{shut(443, transport.Timeout), shut(80, transport.Timeout)}
	noDNS := []NameRow{noName(probe.ReasonTimeout, "192.0.2.53:53")}
	tests := []struct {
		name   string
		report Report
		reason transport.Reason
		text   string
	}{
		{"the only way", Report{Ways: append(shutWays, through(""))}, "", "TCP 443 to a.example through the proxy http://proxy.example:3128; 1 of 3 ways are open. Only a proxy leads out"},
		{"one way of two", Report{Ways: []WayRow{to(443, ""), through("")}}, "", "2 of 2 ways are open."},
		{"it wants a password", Report{Ways: append(shutWays, through(transport.ProxyAuth))}, transport.ProxyAuth, "does not let this machine through (what it said)"},
		{"it does not lead there", Report{Ways: append(shutWays, through(transport.ProxyRefused))}, transport.ProxyRefused,
			"does not lead to a.example (what it said): ask the site's IT to let it connect (CONNECT) to TCP 443 there, or to allow outgoing TCP 443 to a.example (203.0.113.7) without it"},
		{"it inspects", Report{Ways: append(shutWays, through(transport.TLSIntercepted))}, transport.TLSIntercepted, "TLS on TCP 443 to a.example through the proxy"},
		{"it does not answer", Report{Ways: append(shutWays, through(transport.Refused))}, transport.Timeout,
			"No port is open (443 timeout, 80 timeout): ask the site's IT to allow outgoing TCP 443 to a.example (203.0.113.7). The proxy that is configured, http://proxy.example:3128, does not answer (refused)."},
		{"no names, and a proxy that does not answer", Report{Names: noDNS, Ways: []WayRow{through(transport.Refused)}}, transport.DNS, "No DNS resolver answers for a.example"},
		{"no names, and the proxy leads out", Report{Names: noDNS, Ways: []WayRow{through("")}}, "", "Only a proxy leads out"},
		{"a setting of no use", Report{Ways: shutWays, proxyNotes: []string{"system: a PAC file"}}, transport.Timeout, "A setting of a proxy cannot be used: system: a PAC file."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			expect(t, tt.report, tt.reason, tt.text)
			tt.report.Names = append(tt.report.Names, NameRow{Host: "a.example", OK: true, servers: accessOn("a.example", 443, 80)})
			if text := string((&Sheet{Report: tt.report, Language: German}).Text()); strings.Contains(text, "invalid IP") || strings.Contains(text, "%!") {
				t.Errorf("%s", text)
			}
		})
	}
}

func TestSmallPacketsAreNamed(t *testing.T) {
	small := func(full transport.Reason, packet int) WayRow {
		w := to(443, "")
		w.Small, w.Packet, w.fullReason = true, packet, full
		return w
	}
	for want, w := range map[string]WayRow{
		"Packets of more than 1400 bytes vanish on this path (MTU)": small(transport.Timeout, 1400),
		"Large packets vanish on this path (MTU)":                   small(transport.Timeout, 0),
		"judges the first packet of a connection alone":             small(transport.ResetAfterHello, 0),
	} {
		expect(t, Report{Ways: []WayRow{w}}, "", want)
		if !strings.Contains(w.String(), "packets") {
			t.Errorf("%q", w.String())
		}
	}
}

// A box that resets a hello which does not fit into the first segment passes the small form.
func TestSmallFormIsTriedWhereTheFullOneVanishes(t *testing.T) {
	onSite(t, func(s *site) {
		s.check.Hosts, s.check.Ports = []string{"203.0.113.7"}, []transport.Port{443, 80}
		serve := s.speaksTLS(s.leaf)
		s.listen(443, func(conn net.Conn) {
			first := make([]byte, 1000)
			n, err := conn.Read(first)
			if err == nil && n < len(first) { // the hello is whole
				serve(&replayed{Conn: conn, first: first[:n]})
			}
		})
		r := s.check.Run(s.t.Context())
		w := r.Ways[0]
		if !w.OK || !w.Small || w.Packet != 0 || w.fullReason != transport.ResetAfterHello || r.Ways[1].OK || r.Ways[1].Small {
			t.Errorf("%+v\n%s", w, r.Text())
		}
		if !strings.Contains(r.Verdict.Text, "judges the first packet") {
			t.Errorf("%s", r.Verdict.Text)
		}
	})
}

// replayed gives back what was read from a connection.
type replayed struct {
	net.Conn
	first []byte
}

func (r *replayed) Read(b []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(b, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Conn.Read(b)
}
