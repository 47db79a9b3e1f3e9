package transport

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
)

func TestWhatIsDialledOfWhatWasTold(t *testing.T) {
	t.Attr("id", "T-address")
	prefix := netip.MustParsePrefix
	gateway := Bounds{Hosts: []string{"access.example"}, LAN: []netip.Prefix{prefix("192.168.50.0/24"), prefix("2001:db8:50::/64"), prefix("198.51.100.0/24")}}
	private, one, own := gateway, gateway, gateway
	private.Private = true
	private.Allowed = func(a netip.AddrPort) bool { return a == netip.MustParseAddrPort("10.7.0.9:443") }
	one.Private, one.Hosts = true, []string{"127.0.0.1:8443"}
	own.Hosts, own.Ports = []string{"192.168.50.9", "[2001:db8:50::9]:7443", "169.254.7.7", "access.example:1443"}, []Port{9443}

	for name, tt := range map[string]struct {
		b       Bounds
		yes, no string
	}{
		"a gateway": {gateway, "203.0.113.7:443 203.0.113.7:80 203.0.113.7:5935 [2001:db8:1::1]:443 192.0.2.1:443 64.1.2.3:443 [64:ff9b::c000:201]:443",
			"203.0.113.7:22 203.0.113.7:8443 203.0.113.7:0 192.168.50.1:443 198.51.100.7:443 [2001:db8:50::1]:443 10.1.2.3:443 172.31.0.1:443 192.168.1.1:80 " +
				"100.64.0.1:443 100.127.255.254:443 [fd00::1]:443 [fec0::1]:443 [64:ff9b:1::1]:443 127.0.0.1:443 127.9.9.9:443 [::1]:443 0.0.0.0:443 0.1.2.3:443 " +
				"[::]:443 169.254.169.254:80 [fe80::1]:443 [fe80::1%eth0]:443 [2001:db8:1::1%eth0]:443 224.0.0.1:443 [ff02::1]:443 255.255.255.255:443 240.0.0.1:443"},
		"in other words": {gateway, "[::ffff:203.0.113.7]:443 [2002:cb00:7107::1]:443",
			"[::ffff:192.168.50.1]:443 [64:ff9b::c0a8:3201]:443 [64:ff9b::7f00:1]:443 [64:ff9b::a9fe:a9fe]:80 [2002:c0a8:3201::]:443 [::192.168.50.1]:443 " +
				"[::127.0.0.1]:443 [::ffff:127.0.0.1]:443 [::ffff:0.0.0.0]:443 [64:ff9b::c633:6401]:443"},
		"declared private": {private, "10.1.2.3:443 192.168.1.1:80 100.64.0.1:443 [fd00::1]:5935 203.0.113.7:443 10.7.0.9:80 10.7.0.8:443 [64:ff9b::a01:203]:443",
			"192.168.50.1:443 [64:ff9b::c0a8:3201]:443 10.7.0.9:443 [64:ff9b::a07:9]:443 127.0.0.1:443 [::1]:443 169.254.169.254:80 [fe80::1]:443 224.0.0.1:443 " +
				"0.0.0.0:443 10.1.2.3:22"},
		"all on one machine": {one, "127.0.0.1:443 127.0.0.3:8443 [::1]:443 10.1.2.3:443", "127.0.0.3:22 192.168.50.1:443 169.254.169.254:80"},
		"its own addresses": {own, "192.168.50.9:443 192.168.50.9:9443 192.168.50.9:7443 192.168.50.9:1443 [2001:db8:50::9]:443 169.254.7.7:80 [::ffff:192.168.50.9]:443 " +
			"203.0.113.7:9443", "192.168.50.9:22 192.168.50.8:443 10.1.2.3:443 [64:ff9b::c0a8:3209]:443"},
	} {
		for want, list := range map[bool]string{true: tt.yes, false: tt.no} {
			for text := range strings.FieldsSeq(list) {
				to := netip.MustParseAddrPort(text)
				for what, c := range map[string]Candidate{
					"a name":          {Host: "relay.example", Addr: to},
					"an address":      {Host: to.Addr().String(), Addr: to},
					"through a proxy": {Host: to.Addr().String(), Addr: netip.AddrPortFrom(netip.Addr{}, to.Port()), Proxy: "http://192.168.50.3:3128"},
				} {
					if err := tt.b.Judge(c); (err == nil) != want || err != nil && ReasonOf(err) != BadAddress {
						t.Errorf("%s, %s told as %s: %v, want %v", name, text, what, err, want)
					}
				}
			}
		}
	}
	for host, want := range map[string]bool{"relay.example": true, "plc.factory.internal": true, "127.1": false, "2130706433": false,
		"0x7f000001": false, "relay.0x7f": false, "017700000001": false, "99999999999999999999": false, "09": false, "127.0.0.1.": false, "7f.example": true} {
		if err := gateway.Judge(Candidate{Host: host, Addr: netip.AddrPortFrom(netip.Addr{}, 443), Proxy: "http://proxy.example:3128"}); (err == nil) != want {
			t.Errorf("%s through a proxy: %v, want %v", host, err, want)
		}
	}
}

// Whatever leads to an address: a host, DNS, what worked before, or one attempt alone. The search goes on with the others.
func TestWhatIsOutOfBoundsGetsNoSYN(t *testing.T) {
	t.Attr("id", "T-address")
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.d.Resolve = func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("192.168.50.1"), netip.MustParseAddr("169.254.169.254")}, nil
		}
		s.d.LastGood = func(string) []Candidate {
			return []Candidate{{Addr: netip.MustParseAddrPort("192.168.50.1:443")}, {Addr: netip.MustParseAddrPort("127.0.0.1:443"), Small: true}}
		}
		s.d.Bounds = func() Bounds { return Bounds{Hosts: []string{"access.example"}} }
		s.target.Hosts, s.target.Ports = []string{"plc.factory.internal", "169.254.169.254", "10.1.2.3:502"}, []Port{443, 502, 22, 8080}
		_, err := s.d.Dial(t.Context(), s.target)
		if ReasonOf(err) != BadAddress || !strings.Contains(err.Error(), "169.254.169.254:443: bad-address (no server can have this address)") {
			t.Errorf("%v", err)
		}
		inside := Candidate{Host: "a", Addr: netip.MustParseAddrPort("127.0.0.1:443")}
		if _, a := s.d.Try(t.Context(), s.target, inside); a.Reason != BadAddress {
			t.Errorf("one attempt: %v", a)
		}
		if a := s.d.TryForeign(t.Context(), inside); a.Reason != BadAddress {
			t.Errorf("one attempt at a server of others: %v", a)
		}
		if len(s.dialled) > 0 {
			t.Errorf("dialled %v", s.dialled)
		}
		s.target.Hosts = append(s.target.Hosts, serverAddr.String())
		conn, err := s.d.Dial(t.Context(), s.target)
		if err != nil || len(s.dialled) != 1 {
			t.Fatalf("%v, dialled %v", err, s.dialled)
		}
		conn.Close()
	})
}
