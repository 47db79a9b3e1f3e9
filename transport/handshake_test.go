package transport

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
)

// fault is something that is wrong with the one port of a server, and what the attempt says.
type fault struct {
	name    string
	handler func(s *site) func(net.Conn)
	block   memnet.Verdict
	target  func(*Target)
	want    Reason
	issuer  string
	took    time.Duration
}

// shows is a TLS server with a certificate.
func shows(c func(s *site) tls.Certificate) func(*site) func(net.Conn) {
	return func(s *site) func(net.Conn) { return tlsHandler(serverTLS(c(s))) }
}

func says(text string) func(*site) func(net.Conn) {
	return func(*site) func(net.Conn) { return say(text) }
}

func with(change func(*tls.Config)) func(*site) func(net.Conn) {
	return func(s *site) func(net.Conn) {
		config := serverTLS(good(s.pki, access))
		change(config)
		return tlsHandler(config)
	}
}

func faults() []fault {
	relay := identity.RelayName("a1")
	unsure := func(t *Target) { t.ClockUnsure = true }
	expired := shows(func(s *site) tls.Certificate { return s.pki.Leaf(access, -2*time.Hour, -time.Hour) })
	return []fault{
		{name: "nobody listens", want: Refused},
		{name: "dropped by a firewall", handler: says(""), block: memnet.Drop, want: Timeout, took: 5 * time.Second},
		{name: "rejected by a firewall", handler: says(""), block: memnet.Reject, want: Refused},
		{name: "silent after the connect", handler: func(*site) func(net.Conn) { return silent }, want: Timeout, took: 4 * time.Second},
		{name: "closed after the hello", handler: func(*site) func(net.Conn) {
			return func(c net.Conn) { c.Read(make([]byte, 4096)) }
		}, want: ResetAfterHello},
		{name: "closed within the answer", handler: func(*site) func(net.Conn) {
			return func(c net.Conn) { c.Read(make([]byte, 4096)); io.WriteString(c, "\x16\x03\x03\x00\x40\x02") }
		}, want: ResetAfterHello},
		{name: "HTTP 400", handler: says("HTTP/1.0 400 Bad Request\r\n\r\n"), want: PlainHTTP},
		{name: "HTTP 200", handler: says("HTTP/1.1 200 OK\r\n\r\nhello"), want: PlainHTTP},
		{name: "HTTP 302", handler: says("HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n"), want: CaptivePortal},
		{name: "HTTP 511", handler: says("HTTP/1.1 511 Network Authentication Required\r\n\r\n"), want: CaptivePortal},
		{name: "SSH", handler: says("SSH-2.0-OpenSSH\r\n"), want: NotTLS},
		{name: "intercepted", handler: shows(func(*site) tls.Certificate { return foreign() }), want: TLSIntercepted, issuer: "Example Proxy CA"},
		{name: "other infrastructure", handler: shows(func(*site) tls.Certificate { return good(identitytest.New(time.Now()), access) }), want: WrongRoot},
		{name: "expired", handler: expired, want: Expired},
		{name: "expired, says an unsure clock", handler: expired, target: unsure, want: ClockWrong},
		{name: "not yet valid", handler: shows(func(s *site) tls.Certificate { return s.pki.Leaf(access, time.Hour, 2*time.Hour) }), want: ClockWrong},
		{name: "wrong kind", handler: shows(func(s *site) tls.Certificate { return good(s.pki, relay) }), want: WrongKind},
		{name: "wrong name", handler: shows(func(s *site) tls.Certificate { return good(s.pki, access) }),
			target: func(t *Target) { t.Name.ID = "a2" }, want: WrongName},
		{name: "no ALPN", handler: with(func(c *tls.Config) { c.NextProtos = nil }), want: WrongProtocol},
		{name: "other ALPN", handler: with(func(c *tls.Config) { c.NextProtos = []string{ALPNRelay} }), want: TLSRefused},
		{name: "TLS 1.2", handler: with(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), want: TLSRefused},
		{name: "other pin", handler: shows(func(s *site) tls.Certificate { return good(s.pki, access) }),
			target: func(t *Target) { t.Roots, t.Pin = nil, identity.SPKI{1} }, want: WrongRoot},
		{name: "intercepted where anyone would do", handler: shows(func(*site) tls.Certificate { return foreign() }),
			target: func(t *Target) { t.Roots, t.Anyone = nil, true }, want: TLSIntercepted, issuer: "Example Proxy CA"},
		{name: "another kind where anyone would do", handler: shows(func(s *site) tls.Certificate { return good(s.pki, relay) }),
			target: func(t *Target) { t.Roots, t.Anyone = nil, true }, want: WrongKind},
		{name: "intercepted before the root is known", handler: shows(func(*site) tls.Certificate { return foreign() }),
			target: func(t *Target) { t.Roots, t.Pin = nil, identity.SPKI{1} }, want: TLSIntercepted, issuer: "Example Proxy CA"},
	}
}

func TestEveryFaultHasItsReason(t *testing.T) {
	t.Attr("id", "A1-refuse")
	t.Attr("cases", fmt.Sprint(len(faults())))
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f.show(t) })
		})
	}
}

// show has an attempt meet the fault, and then the same server without it.
func (f fault) show(t *testing.T) {
	s := newSite(t)
	shown := 0
	s.d.Certificate = func() *tls.Certificate {
		shown++
		c := good(s.pki, identity.DeviceName("plant", identity.NewUID()))
		return &c
	}
	if f.handler != nil {
		s.serve(443, f.handler(s))
	}
	s.serveTLS(80)
	s.block(map[uint16]memnet.Verdict{443: f.block})
	target := s.target
	if f.target != nil {
		f.target(&target)
	}
	begin := time.Now()
	conn, a := s.d.Try(t.Context(), target, s.candidate(443))
	if conn != nil || a.Reason != f.want || !strings.Contains(a.Issuer, f.issuer) || a.Took != f.took || time.Since(begin) != f.took {
		t.Errorf("got %v, %+v, want %s %s after %v", conn, a, f.want, f.issuer, f.took)
	}
	if shown != 0 {
		t.Error("our certificate was sent to a server that was not verified")
	}
	conn, a = s.d.Try(t.Context(), s.target, s.candidate(80))
	if a.Reason != "" || shown != 1 {
		t.Fatalf("without the fault: %+v, certificate shown %d times", a, shown)
	}
	conn.Close()
}

func (s *site) candidate(port uint16) Candidate {
	return Candidate{Host: "access.example", Addr: addrPort(port)}
}

func TestConnSaysWhoAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.net.SetLatency(50 * ms)
		config := serverTLS(good(s.pki, access))
		names := make(chan string, 1)
		config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			names <- h.ServerName
			return nil, nil
		}
		s.serve(443, tlsHandler(config))
		conn, a := s.d.Try(t.Context(), s.target, s.candidate(443))
		if a.Reason != "" {
			t.Fatal(a)
		}
		defer conn.Close()
		if conn.Peer.Name != access || conn.Roots != s.pki.Roots || len(conn.Chain) != 3 || conn.RTT != 100*ms || conn.Candidate != s.candidate(443) {
			t.Errorf("got %+v", conn)
		}
		if name := <-names; name != "access.example" {
			t.Errorf("SNI is %q", name)
		}
		cs := conn.ConnectionState()
		if cs.Version != tls.VersionTLS13 || cs.DidResume {
			t.Errorf("got %+v", cs)
		}
	})
}

func TestPinFindsTheRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.target.Roots, s.target.Pin = nil, s.pki.Pin()
		conn, err := s.d.Dial(t.Context(), s.target)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if roots := conn.Roots.Certificates(); len(roots) != 1 || !roots[0].Equal(s.pki.Root.Cert) {
			t.Errorf("found %v", roots)
		}
	})
}

func TestTargetSaysAtWhichTimeToVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		year1970 := time.Unix(0, 0)
		s.d.Now = func() time.Time { return year1970 }
		if _, a := s.d.Try(t.Context(), s.target, s.candidate(443)); a.Reason != ClockWrong {
			t.Errorf("in 1970: %+v", a)
		}
		s.target.At = func(leaf *x509.Certificate) time.Time { return leaf.NotBefore }
		conn, a := s.d.Try(t.Context(), s.target, s.candidate(443))
		if a.Reason != "" {
			t.Fatalf("at the leaf's time: %+v", a)
		}
		conn.Close()
	})
}

func TestNoCertificateIsFine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.d.Certificate = func() *tls.Certificate { return nil }
		s.dial(443, 0)
	})
}

// Somebody who does not know yet whom to trust sees whose certificate it is, and is not told that it proves anything.
func TestAnyoneOfOursIsShownWithItsRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.target.Roots, s.target.Anyone = nil, true
		conn, a := s.d.Try(t.Context(), s.target, s.candidate(443))
		if conn == nil {
			t.Fatalf("%+v", a)
		}
		defer conn.NetConn().Close()
		if got := identity.CertSPKI(conn.Roots.Certificates()[0]); got != s.pki.Pin() {
			t.Errorf("root %s, want %s", got, s.pki.Pin())
		}
	})
}
