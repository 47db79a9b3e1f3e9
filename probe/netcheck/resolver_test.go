package netcheck

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hawser/internal/memnet"
	"hawser/probe"
	"hawser/probe/probetest"
)

// captive has its own address for everything.
var captive = probetest.Says("%s 300 A 10.0.0.1")

// hijacks gives an address to names that do not exist.
func hijacks(h probetest.Handler) probetest.Handler {
	return func(network string, w dns.ResponseWriter, q *dns.Msg) {
		if len(q.Question[0].Name) > 26 { // a stranger's
			captive(network, w, q)
			return
		}
		h(network, w, q)
	}
}

func refuseEDNS(h probetest.Handler) probetest.Handler {
	return probetest.WithoutEDNS(h, probetest.Code(dns.RcodeFormatError))
}

func TestResolverRows(t *testing.T) {
	type row struct {
		reason   probe.Reason
		findings []probe.Oddity
	}
	both := func(findings ...probe.Oddity) [2]row { return [2]row{{"", findings}, {"", findings}} }
	tests := []struct {
		name    string
		handler probetest.Handler
		private bool
		want    [2]row // over UDP and over TCP
	}{
		{name: "honest", handler: zone, want: both()},
		{name: "hijacks every unknown name", handler: hijacks(probetest.Honest), want: both(probe.NXDomainHijack)},
		{name: "has one address for all", handler: captive, want: both(probe.PrivateAddress, probe.NXDomainHijack)},
		{name: "the zone's own wildcard", handler: func(network string, w dns.ResponseWriter, q *dns.Msg) {
			if n := q.Question[0].Name; dns.IsSubDomain("example.", n) {
				probetest.Honest(network, w, q)
			} else {
				probetest.Code(dns.RcodeNameError)(network, w, q)
			}
		}, want: both()},
		{name: "private address", handler: exists(probetest.Says("%s 300 A 10.1.2.3")), want: both(probe.PrivateAddress)},
		{name: "private address of a private infrastructure", handler: exists(probetest.Says("%s 300 A 10.1.2.3")), private: true, want: both()},
		{name: "sinkhole", handler: exists(probetest.Says("%s 300 A 0.0.0.0", "%s 300 AAAA ::")), want: [2]row{
			{probe.ReasonBadAddress, []probe.Oddity{probe.LocalAddress}}, {probe.ReasonBadAddress, []probe.Oddity{probe.LocalAddress}}}},
		{name: "loopback beside a good one", handler: exists(probetest.Says("%s 300 A 127.0.0.1", "%s 300 A 203.0.113.7")), want: both(probe.LocalAddress)},
		{name: "IPv6 alone", handler: exists(probetest.Says("%s 300 AAAA 2001:db8::7")), want: both()},
		{name: "changes the case", handler: probetest.Over(probetest.LowerCase(zone), zone), want: [2]row{{"", []probe.Oddity{probe.ChangesCase}}, {"", nil}}},
		{name: "refuses EDNS", handler: refuseEDNS(zone), want: [2]row{{"", []probe.Oddity{probe.NoEDNS}}, {"", nil}}},
		{name: "drops EDNS", handler: probetest.WithoutEDNS(zone, probetest.Silent), want: [2]row{{"", []probe.Oddity{probe.NoEDNS}}, {"", nil}}},
		{name: "changes the case and refuses EDNS", handler: probetest.Over(probetest.LowerCase(refuseEDNS(zone)), zone), want: [2]row{{"", []probe.Oddity{probe.ChangesCase, probe.NoEDNS}}, {"", nil}}},
		{name: "knows nothing", handler: probetest.Code(dns.RcodeNameError), want: [2]row{{probe.ReasonNXDomain, nil}, {probe.ReasonNXDomain, nil}}},
		{name: "does not serve us", handler: probetest.Code(dns.RcodeRefused), want: [2]row{{probe.ReasonRefused, nil}, {probe.ReasonRefused, nil}}},
		{name: "answers too long for UDP", handler: probetest.Over(probetest.Truncate, zone), want: [2]row{{probe.ReasonTruncated, nil}, {"", nil}}},
		{name: "UDP is silent", handler: probetest.Over(probetest.Silent, zone), want: [2]row{{probe.ReasonTimeout, []probe.Oddity{probe.UDPBlocked}}, {"", nil}}},
		{name: "TCP is silent", handler: probetest.Over(zone, probetest.Silent), want: [2]row{{"", nil}, {probe.ReasonTimeout, []probe.Oddity{probe.TCPBlocked}}}},
		{name: "dead", handler: probetest.Silent, want: [2]row{{probe.ReasonTimeout, nil}, {probe.ReasonTimeout, nil}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			onSite(t, func(s *site) {
				server := s.server("192.0.2.53", tt.handler)
				s.resolver.Private = tt.private
				begin := time.Now()
				r := s.check.Run(s.t.Context())
				if len(r.Resolvers) != 2 || time.Since(begin) > checkBudget/2 {
					t.Fatalf("after %v: %+v", time.Since(begin), r.Resolvers)
				}
				for i, network := range []string{"udp", "tcp"} {
					got, want := r.Resolvers[i], tt.want[i]
					if got.Server != server || got.Network != network || got.Name != "access.example" || got.Reason != want.reason ||
						got.OK != (want.reason == "") || !slices.Equal(got.Findings, want.findings) {
						t.Errorf("%+v\nwant %+v", got, want)
					}
				}
			})
		})
	}
}

func TestUDP53DroppedByTheFirewall(t *testing.T) {
	onSite(t, func(s *site) {
		s.server("192.0.2.53", zone)
		s.server("192.0.2.54", zone)
		s.resolver.Dial = droppedUDP(s.resolver.Dial, s.net)
		r := s.check.Run(s.t.Context())
		for i, row := range r.Resolvers {
			if udp := i%2 == 0; row.OK == udp || udp != slices.Contains(row.Findings, probe.UDPBlocked) {
				t.Errorf("%+v", row)
			}
		}
		if len(r.Resolvers) != 4 || !r.Names[0].OK {
			t.Errorf("%s", r.Text())
		}
	})
}

// droppedUDP sends what goes over UDP to where nobody is.
func droppedUDP(dial dialFunc, n *memnet.Network) dialFunc {
	void := n.Host(netip.MustParseAddr("192.0.2.99"))
	void.ListenPacket(53)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if network == "udp" {
			address = "192.0.2.99:53"
		}
		return dial(ctx, network, address)
	}
}

func TestResolversAreLeftAloneWhereNothingHasAName(t *testing.T) {
	onSite(t, func(s *site) {
		s.server("192.0.2.53", zone)
		s.check.Hosts = []string{"203.0.113.7:443", "[2001:db8::7]:443"}
		s.check.TimeSources = []string{"192.0.2.123", "[2001:db8::1]:123"}
		if r := s.check.Run(s.t.Context()); len(r.Resolvers) != 0 || s.asked.Load() != 0 {
			t.Errorf("asked %d: %+v", s.asked.Load(), r.Resolvers)
		}
	})
}

func TestAskedName(t *testing.T) {
	for want, n := range map[string]Check{
		"a.example": {Hosts: []string{"203.0.113.7", "no host", "A.example:443", "b.example"}},
		"t.example": {Hosts: []string{"203.0.113.7"}, TimeSources: []string{"192.0.2.1", ":", "t.example:123"}},
		"":          {},
	} {
		if got := newRun(&n).plan().askedName(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
