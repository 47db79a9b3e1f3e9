package probe

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hawser/internal/memnet"
)

// captive has its own address for everything.
var captive = says("%s 300 A 10.0.0.1")

// hijacks gives an address to names that do not exist.
func hijacks(h handler) handler {
	return func(network string, w dns.ResponseWriter, q *dns.Msg) {
		if len(q.Question[0].Name) > 26 { // a stranger's
			captive(network, w, q)
			return
		}
		h(network, w, q)
	}
}

func refuseEDNS(h handler) handler { return withoutEDNS(h, code(dns.RcodeFormatError)) }

func TestResolverRows(t *testing.T) {
	type row struct {
		reason   Reason
		findings []Oddity
	}
	both := func(findings ...Oddity) [2]row { return [2]row{{"", findings}, {"", findings}} }
	tests := []struct {
		name    string
		handler handler
		private bool
		want    [2]row // over UDP and over TCP
	}{
		{name: "honest", handler: zone, want: both()},
		{name: "hijacks every unknown name", handler: hijacks(honest), want: both(NXDomainHijack)},
		{name: "has one address for all", handler: captive, want: both(PrivateAddress, NXDomainHijack)},
		{name: "the zone's own wildcard", handler: func(network string, w dns.ResponseWriter, q *dns.Msg) {
			if n := q.Question[0].Name; dns.IsSubDomain("example.", n) {
				honest(network, w, q)
			} else {
				code(dns.RcodeNameError)(network, w, q)
			}
		}, want: both()},
		{name: "private address", handler: exists(says("%s 300 A 10.1.2.3")), want: both(PrivateAddress)},
		{name: "private address of a private infrastructure", handler: exists(says("%s 300 A 10.1.2.3")), private: true, want: both()},
		{name: "sinkhole", handler: exists(says("%s 300 A 0.0.0.0", "%s 300 AAAA ::")), want: [2]row{
			{ReasonBadAddress, []Oddity{LocalAddress}}, {ReasonBadAddress, []Oddity{LocalAddress}}}},
		{name: "loopback beside a good one", handler: exists(says("%s 300 A 127.0.0.1", "%s 300 A 203.0.113.7")), want: both(LocalAddress)},
		{name: "IPv6 alone", handler: exists(says("%s 300 AAAA 2001:db8::7")), want: both()},
		{name: "changes the case", handler: over(lowerCase(zone), zone), want: [2]row{{"", []Oddity{ChangesCase}}, {"", nil}}},
		{name: "refuses EDNS", handler: refuseEDNS(zone), want: [2]row{{"", []Oddity{NoEDNS}}, {"", nil}}},
		{name: "drops EDNS", handler: withoutEDNS(zone, silent), want: [2]row{{"", []Oddity{NoEDNS}}, {"", nil}}},
		{name: "changes the case and refuses EDNS", handler: over(lowerCase(refuseEDNS(zone)), zone), want: [2]row{{"", []Oddity{ChangesCase, NoEDNS}}, {"", nil}}},
		{name: "knows nothing", handler: code(dns.RcodeNameError), want: [2]row{{ReasonNXDomain, nil}, {ReasonNXDomain, nil}}},
		{name: "does not serve us", handler: code(dns.RcodeRefused), want: [2]row{{ReasonRefused, nil}, {ReasonRefused, nil}}},
		{name: "answers too long for UDP", handler: over(truncate, zone), want: [2]row{{ReasonTruncated, nil}, {"", nil}}},
		{name: "UDP is silent", handler: over(silent, zone), want: [2]row{{ReasonTimeout, []Oddity{UDPBlocked}}, {"", nil}}},
		{name: "TCP is silent", handler: over(zone, silent), want: [2]row{{"", nil}, {ReasonTimeout, []Oddity{TCPBlocked}}}},
		{name: "dead", handler: silent, want: [2]row{{ReasonTimeout, nil}, {ReasonTimeout, nil}}},
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
			if udp := i%2 == 0; row.OK == udp || udp != slices.Contains(row.Findings, UDPBlocked) {
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
	for want, n := range map[string]Netcheck{
		"a.example": {Hosts: []string{"203.0.113.7", "no host", "A.example:443", "b.example"}},
		"t.example": {Hosts: []string{"203.0.113.7"}, TimeSources: []string{"192.0.2.1", ":", "t.example:123"}},
		"":          {},
	} {
		if got := newCheck(&n).askedName(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestDomainOf(t *testing.T) {
	for name, want := range map[string]string{"a.b.example": "b.example", "b.example": "b.example", "localhost": "localhost"} {
		if got := domainOf(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
