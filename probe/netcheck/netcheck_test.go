package netcheck

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
	"hawser/probe"
	"hawser/probe/probetest"
	"hawser/transport"
)

var (
	addr1 = netip.MustParseAddr("203.0.113.7")
	addr2 = netip.MustParseAddr("2001:db8::7")
)

const (
	way        = 20 * time.Millisecond // of a packet, one way, on a site
	nameBudget = 10 * time.Second      // a search for a name (names §3)
	asked      = 10 * way              // a resolver over TCP: the connect and four questions
)

// site is a machine hall with a resolver, and an Access Server outside with
// two addresses, of which every port is as the test makes it.
type site struct {
	t        *testing.T
	net      *memnet.Network
	resolver *probe.Resolver
	check    *Check
	access   *memnet.Host
	leaf     tls.Certificate
	asked    atomic.Int64 // questions that reached any resolver

	mu        sync.Mutex // guards what follows
	now, most int        // dials in flight, and at once
}

// onSite runs f on a site where every name has the addresses of the Access
// Server, no port is open, and nobody tells the time.
func onSite(t *testing.T, f func(s *site)) {
	t.Helper()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		n.SetLatency(way)
		client := n.Host(netip.MustParseAddr("192.0.2.100"))
		client.AddAddr(netip.MustParseAddr("2001:db8::100"))
		s := &site{t: t, net: n, access: n.Host(addr1),
			resolver: &probe.Resolver{HostsFile: empty, ResolvConf: empty, Dial: client.DialContext}}
		s.access.AddAddr(addr2)
		pki := identitytest.New(time.Now())
		s.leaf = pki.Leaf(pki.Access, -time.Hour, 24*time.Hour)
		s.check = &Check{
			Hosts:    []string{"access.example"},
			Resolver: s.resolver,
			SNTP:     &probe.SNTP{Resolve: s.resolver.Resolve, Dial: client.DialContext},
			Dialer:   &transport.Dialer{DialContext: s.counted(client.DialContext)},
			Target:   transport.Target{ALPN: transport.ALPNAccess, Name: identity.Name{Kind: identity.KindAccess}, Roots: pki.Roots},
			Floor:    time.Now().Add(-time.Hour),
			Ceiling:  time.Now().Add(15 * 365 * 24 * time.Hour),
		}
		f(s)
	})
}

// server starts a DNS server at addr and makes the site's resolver ask it.
func (s *site) server(addr string, h probetest.Handler) netip.AddrPort {
	s.t.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddr(addr), 53)
	host := s.net.Host(at.Addr())
	pc, err := host.ListenPacket(53)
	s.ok(err)
	l, err := host.Listen(53)
	s.ok(err)
	probetest.ServeDNS(s.t, pc, l, func(network string, w dns.ResponseWriter, q *dns.Msg) {
		s.asked.Add(1)
		h(network, w, q)
	})
	synctest.Wait()
	s.resolver.Servers = append(slices.Clone(s.resolver.Servers), at)
	return at
}

func (s *site) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// foreign is the certificate of a box that breaks TLS open.
func (s *site) foreign(issuer string) tls.Certificate {
	s.t.Helper()
	key := identitytest.NewKey()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: issuer},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	s.ok(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// counted notes how many dials are in flight.
func (s *site) counted(dial dialFunc) dialFunc {
	note := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.now += n
		s.most = max(s.most, s.now)
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		note(1)
		defer note(-1)
		return dial(ctx, network, address)
	}
}

// listen serves each connection to a port of the Access Server.
func (s *site) listen(port uint16, serve func(net.Conn)) {
	s.t.Helper()
	l, err := s.access.Listen(port)
	s.ok(err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer conn.Close(); serve(conn) })
		}
	})
	s.t.Cleanup(func() { l.Close(); wg.Wait() })
}

// speaksTLS answers with a certificate, and wants nothing after the handshake.
func (s *site) speaksTLS(cert tls.Certificate) func(net.Conn) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		NextProtos: []string{transport.ALPNAccess}, ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true}
	return func(conn net.Conn) {
		server := tls.Server(conn, config)
		if server.Handshake() != nil {
			return
		}
		if n, _ := conn.Read(make([]byte, 1)); n > 0 { // of the TCP connection: not even an alert
			s.t.Error("something was sent after the handshake")
		}
	}
}

func speaksHTTP(status string) func(net.Conn) {
	return func(conn net.Conn) {
		conn.Read(make([]byte, 4096))
		io.WriteString(conn, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n")
	}
}

// drop makes the site's firewall swallow connects to some ports; none: all.
func (s *site) drop(ports ...uint16) {
	s.net.Firewall(func(_ netip.Addr, to netip.AddrPort) memnet.Verdict {
		if to.Port() != 53 && (len(ports) == 0 || slices.Contains(ports, to.Port())) {
			return memnet.Drop
		}
		return memnet.Pass
	})
}

// clock is a time server of the site, which is ahead by some time.
func (s *site) clock(addr string, ahead time.Duration) {
	pc, err := s.net.Host(netip.MustParseAddr(addr)).ListenPacket(123)
	s.ok(err)
	at := time.Now().Add(ahead)
	probetest.ServeTime(s.t, pc, func() time.Time { return at })
}

// run checks, and checks how long it took.
func (s *site) run(ctx context.Context, took time.Duration) Report {
	s.t.Helper()
	begin := time.Now()
	r := s.check.Run(ctx)
	if d := time.Since(begin); d != took {
		s.t.Errorf("took %v, want %v", d, took)
	}
	return r
}

func TestMixedSite(t *testing.T) {
	onSite(t, func(s *site) {
		s.server("192.0.2.53", zone)
		s.clock("192.0.2.123", 3*time.Hour)
		s.listen(9443, s.speaksTLS(s.leaf))
		s.listen(443, s.speaksTLS(s.foreign("Big\x1b[31m \"Proxy\"")))
		s.listen(80, speaksHTTP("400 Bad Request"))
		s.drop(8443)
		s.check.Ports = []transport.Port{8443, 9443, 80, 443, 5935} // 5935: nobody listens
		s.check.TimeSources = []string{"192.0.2.124", "192.0.2.123"}
		var progress []string
		s.check.Progress = func(r Row) { progress = append(progress, r.String()) }
		r := s.run(s.t.Context(), 6*way+5*time.Second) // 8443 waits for a slot until 5935 is refused, and DNS over TCP has one

		want := `time
  no  192.0.2.124  192.0.2.124  timeout
  ok  192.0.2.123  192.0.2.123  offset +3.0 h  40.0 ms  stratum 2  unproven
clock
  no: no-majority; sources that agree: 1, needed: 2
resolvers
  ok  192.0.2.53:53  udp  203.0.113.7 2001:db8::7  40.0 ms
  ok  192.0.2.53:53  tcp  203.0.113.7 2001:db8::7  80.0 ms
names
  ok  access.example  203.0.113.7 2001:db8::7  40.0 ms
ways
  no  access.example  203.0.113.7  443   direct  tls-intercepted by CN=Big??31m ??Proxy??
  no  access.example  2001:db8::7  443   direct  tls-intercepted by CN=Big??31m ??Proxy??
  no  access.example  203.0.113.7  5935  direct  refused
  no  access.example  2001:db8::7  5935  direct  refused
  no  access.example  203.0.113.7  80    direct  plain-http
  no  access.example  2001:db8::7  80    direct  plain-http
  no  access.example  203.0.113.7  8443  direct  timeout
  no  access.example  2001:db8::7  8443  direct  timeout
  ok  access.example  203.0.113.7  9443  direct  40.0 ms
  ok  access.example  2001:db8::7  9443  direct  40.0 ms
verdict
  ok: There is a way out: TCP 9443 to access.example (203.0.113.7); 2 of 10 ways are open.
`
		if got := r.Text(); got != want {
			t.Errorf("text:\n%s\nwant:\n%s", got, want)
		}
		checkProgress(t, progress, r)
		if !strings.Contains(progress[2], "refused") || !strings.Contains(progress[len(progress)-1], "8443") {
			t.Errorf("rows did not come as they were finished: %q", progress)
		}
	})
}

// checkProgress wants each row of the report once, in one line.
func checkProgress(t *testing.T, progress []string, r Report) {
	t.Helper()
	var all []string
	for _, row := range r.Time {
		row.Verdict = "" // comes when all sources are known
		all = append(all, row.String())
	}
	for _, row := range r.Resolvers {
		all = append(all, row.String())
	}
	for _, row := range r.Names {
		all = append(all, row.String())
	}
	for _, row := range r.Ways {
		all = append(all, row.String())
	}
	slices.Sort(all)
	if !slices.Equal(slices.Sorted(slices.Values(progress)), all) {
		t.Errorf("progress %q\nis not the report %q", progress, all)
	}
	if i := slices.IndexFunc(progress, func(s string) bool { return strings.Contains(s, "\n") }); i >= 0 {
		t.Errorf("%q is not one line", progress[i])
	}
}

func TestFirstBrokenLinkOfASite(t *testing.T) {
	tests := []struct {
		name   string
		make   func(s *site)
		took   time.Duration
		reason transport.Reason
		text   string
	}{
		{name: "DNS is dead", took: nameBudget, reason: transport.DNS, make: func(s *site) { s.server("192.0.2.53", probetest.Silent) },
			text: "No DNS resolver answers for access.example (192.0.2.53:53 tcp unreachable, 192.0.2.53:53 udp timeout): " +
				"ask the site's IT to allow UDP and TCP 53 to them, or for another resolver."},
		{name: "no resolver", reason: transport.DNS, make: func(s *site) {},
			text: "No DNS resolver is known for access.example: let DHCP give one, or configure one."},
		{name: "everything dropped", took: asked + 5*time.Second, reason: transport.Timeout,
			make: func(s *site) { s.server("192.0.2.53", zone); s.drop() },
			text: "No port is open (443 timeout, 5935 timeout, 80 timeout): ask the site's IT to allow outgoing TCP 443 to access.example (203.0.113.7, 2001:db8::7)."},
		{name: "only a proxy on 80", took: 2*way + 5*time.Second, reason: transport.PlainHTTP,
			make: func(s *site) {
				s.server("192.0.2.53", zone)
				s.listen(80, speaksHTTP("400 Bad Request"))
				s.drop(443, 5935)
			},
			text: "Something that is no Access Server answers on TCP 80 to access.example (203.0.113.7) (plain-http): " +
				"ask the site's IT to allow outgoing TCP 443 to access.example (203.0.113.7, 2001:db8::7) without a proxy."},
		{name: "login page", took: asked, reason: transport.CaptivePortal,
			make: func(s *site) { s.server("192.0.2.53", zone); s.listen(80, speaksHTTP("302 Found")) },
			text: "A login page stands before TCP 80 to access.example (203.0.113.7): ask the site's IT to let this machine pass without login."},
		{name: "TLS swallowed", took: 6*way + 8*time.Second, // in both forms
			reason: transport.Timeout,
			make: func(s *site) {
				s.server("192.0.2.53", zone)
				s.listen(443, func(conn net.Conn) { io.Copy(io.Discard, conn) })
			},
			text: "A firewall seems to stop TLS on TCP 443 to access.example (203.0.113.7) (timeout): " +
				"ask the site's IT to let TLS to access.example pass without inspection."},
		{name: "clock of 1970", took: asked, reason: transport.ClockWrong,
			make: func(s *site) {
				s.server("192.0.2.53", zone)
				s.listen(443, s.speaksTLS(s.leaf))
				s.clock("192.0.2.123", 0)
				s.check.TimeSources = []string{"192.0.2.123"}
				s.check.SNTP.Now = since1970()
				s.check.Dialer.Now = s.check.SNTP.Now
			},
			text: "The certificate on TCP 443 to access.example (203.0.113.7) does not fit the clock (clock): " +
				"set the clock, from which 192.0.2.123 differs by +10957 days."},
		{name: "no host name", reason: transport.DNS,
			make: func(s *site) { s.check.Hosts = []string{"no\x1bhost"} },
			text: `"no?host" is not a host name: correct the address of the Access Server.`},
		{name: "literal host needs no DNS", took: 2 * way, reason: transport.Refused,
			make: func(s *site) { s.check.Hosts = []string{"203.0.113.7:443"} },
			text: "Every port is refused (443 refused): is hawser-server running there? A firewall mostly drops. If it runs, ask the site's IT to allow outgoing TCP 443 to 203.0.113.7."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			onSite(t, func(s *site) {
				tt.make(s)
				got := s.run(s.t.Context(), tt.took).Verdict
				if want := (Finding{Reason: tt.reason, Text: tt.text}); got != want {
					t.Errorf("verdict %+v\nwant    %+v", got, want)
				}
			})
		})
	}
}

// zone has both addresses for the names that exist here.
func zone(network string, w dns.ResponseWriter, q *dns.Msg) { exists(probetest.Honest)(network, w, q) }

// exists gives an answer for a short name in .example alone.
func exists(h probetest.Handler) probetest.Handler {
	return func(network string, w dns.ResponseWriter, q *dns.Msg) {
		name := strings.ToLower(q.Question[0].Name)
		if first, domain, _ := strings.Cut(name, "."); domain != "example." || len(first) > 10 {
			probetest.Code(dns.RcodeNameError)(network, w, q)
			return
		}
		h(network, w, q)
	}
}

// fourAddrs has as many addresses as are tried, and one more.
var fourAddrs = probetest.Says("%s 300 A 203.0.113.7", "%s 300 A 203.0.113.8", "%s 300 A 203.0.113.9",
	"%s 300 AAAA 2001:db8::7", "%s 300 AAAA 2001:db8::8")

func TestAtMostSixDialsAtOnceAndFourAddressesAHost(t *testing.T) {
	onSite(t, func(s *site) {
		s.server("192.0.2.53", fourAddrs)
		s.drop()
		s.check.Hosts = []string{"a.example", "b.example"}
		r := s.run(s.t.Context(), asked+20*time.Second)
		if len(r.Ways) != 2*4*3 || s.most != checkedDials {
			t.Errorf("%d ways, %d at once", len(r.Ways), s.most)
		}
		if i := slices.IndexFunc(r.Ways, func(w WayRow) bool { return w.Host == "b.example" }); i != 12 || r.Ways[0].Port != 443 || r.Ways[11].Port != 80 {
			t.Errorf("hosts are not in the order of the configuration:\n%s", r.Text())
		}
	})
}

func TestThirtySecondsAreTheEnd(t *testing.T) {
	onSite(t, func(s *site) {
		s.server("192.0.2.53", fourAddrs)
		s.drop()
		s.check.Hosts = []string{"a.example", "b.example", "c.example"}
		r := s.run(s.t.Context(), checkBudget)
		if len(r.Ways) != 30 || !strings.Contains(r.Verdict.Text, "cut short") {
			t.Errorf("%d ways: %s", len(r.Ways), r.Verdict.Text)
		}
	})
}

func TestCancelledCheckReportsWhatIsKnown(t *testing.T) {
	onSite(t, func(s *site) {
		s.server("192.0.2.53", zone)
		s.drop(443)
		s.check.TimeSources = []string{"192.0.2.124"}
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		r := s.run(ctx, time.Second)
		if len(r.Time) != 0 || len(r.Names) != 1 || len(r.Ways) != 4 {
			t.Errorf("unexpected rows:\n%s", r.Text())
		}
		if want := "Some tests were cut short"; r.Verdict.Reason != transport.Refused || !strings.Contains(r.Verdict.Text, want) {
			t.Errorf("verdict %+v, want %q", r.Verdict, want)
		}
	})
}

func TestCheckCancelledBeforeTheFirstAnswerKnowsNothing(t *testing.T) {
	onSite(t, func(s *site) {
		s.server("192.0.2.53", probetest.Silent)
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		if r := s.run(ctx, time.Second); len(r.Names) != 0 || r.Verdict.Reason != transport.Timeout {
			t.Errorf("nothing can be known:\n%s", r.Text())
		}
	})
}

// since1970 is a clock that woke in 1970.
func since1970() func() time.Time {
	boot := time.Now()
	return func() time.Time { return time.Unix(0, 0).Add(time.Since(boot)) }
}

func TestZeroNetcheckUsesTheRealNetworkAndTheUsualPorts(t *testing.T) {
	c := newRun(&Check{Hosts: []string{"a.example"}})
	if c.Resolver == nil || c.SNTP.Resolve == nil || c.Dialer == nil || !slices.Equal(c.Target.Ports, transport.DefaultPorts()) ||
		!slices.Equal(c.Target.Hosts, []string{"a.example"}) {
		t.Errorf("%+v", c.Check)
	}
	if r := new(Check).Run(t.Context()); r.Verdict.OK || len(r.Ways) != 0 {
		t.Errorf("a check of nothing found %+v", r)
	}
}

func TestServersReadsHostsAsConfigured(t *testing.T) {
	ports := transport.DefaultPorts()
	got := servers(RoleAccess, []string{"b.example", "a.example:8443", "2001:db8::7", "a.example:80", "no host", "b.example:80", "b.example:9"}, ports)
	want := []server{
		{RoleAccess, "b.example", []transport.Port{443, 5935, 80, 9}, checkedAddrs},
		{RoleAccess, "a.example", []transport.Port{80, 8443}, checkedAddrs},
		{RoleAccess, "2001:db8::7", ports, checkedAddrs},
		{RoleAccess, "no host", nil, checkedAddrs},
	}
	same := func(a, b server) bool { return a.host == b.host && slices.Equal(a.ports, b.ports) }
	if !slices.EqualFunc(got, want, same) {
		t.Errorf("%v, want %v", got, want)
	}
	if !slices.Equal(ports, transport.DefaultPorts()) {
		t.Errorf("the caller's ports became %v", ports)
	}
}

func TestThePlanIsTheOrderOfTheReport(t *testing.T) {
	dns53 := netip.MustParseAddrPort("192.0.2.53:53")
	wayTo := func(nth int, host string, port transport.Port) place {
		return place{kind: wayPlace, role: RoleAccess, name: host, port: port, nth: nth}
	}
	resolver := func(network string) place {
		return place{kind: resolverPlace, name: "a.example", server: dns53, network: network}
	}
	sources := []place{{kind: timePlace, name: "ntp.example"}, {kind: timePlace, name: "ntp.example", nth: 1}}
	for name, tt := range map[string]struct {
		check Check
		want  []place
	}{
		"nothing": {Check{}, nil},
		"ours": {Check{Hosts: []string{"a.example", "192.0.2.9:8443", "a.example:80"}, Ports: []transport.Port{443}, TimeSources: []string{"ntp.example", "ntp.example"}},
			slices.Concat(sources, []place{resolver("udp"), resolver("tcp"),
				{kind: namePlace, name: "a.example"},
				wayTo(0, "a.example", 443), wayTo(1, "a.example", 443), wayTo(2, "a.example", 443), wayTo(3, "a.example", 443),
				wayTo(0, "a.example", 80), wayTo(1, "a.example", 80), wayTo(2, "a.example", 80), wayTo(3, "a.example", 80),
				{kind: namePlace, name: "192.0.2.9"},
				wayTo(0, "192.0.2.9", 8443), wayTo(1, "192.0.2.9", 8443), wayTo(2, "192.0.2.9", 8443), wayTo(3, "192.0.2.9", 8443)})},
		"a profile, one address a host": {Check{Profile: &Profile{Access: []string{"a.example"}, Web: []string{"b.example"}, Ports: []transport.Port{80, 443}}},
			[]place{resolver("udp"), resolver("tcp"), {kind: namePlace, name: "a.example"}, wayTo(0, "a.example", 443), wayTo(0, "a.example", 80),
				{kind: namePlace, name: "b.example"}, {kind: wayPlace, role: RoleWeb, name: "b.example", port: 443}, {kind: wayPlace, role: RoleWeb, name: "b.example", port: 80}}},
		"a host that is none": {Check{Hosts: []string{"no host"}}, []place{{kind: namePlace, name: "no host"}}},
	} {
		tt.check.Resolver = &probe.Resolver{Servers: []netip.AddrPort{dns53}}
		if got := newRun(&tt.check).plan().rows(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v\nwant %v", name, got, tt.want)
		}
	}
}
