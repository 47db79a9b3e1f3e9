package netcheck

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hawser/internal/memnet"
	"hawser/probe/probetest"
	"hawser/transport"
)

// asCombivis makes the site check the profile, without a root.
func (s *site) asCombivis() {
	p, _ := ProfileNamed("combivis")
	s.check.Profile, s.check.Hosts, s.check.Target = &p, nil, transport.Target{}
}

// internet knows the names of the profile.
func internet(network string, w dns.ResponseWriter, q *dns.Msg) {
	name := strings.ToLower(q.Question[0].Name)
	p, _ := ProfileNamed("combivis")
	if slices.Contains(p.hosts(), strings.TrimSuffix(name, ".")) {
		probetest.Says("%s 300 A 203.0.113.7", "%s 300 AAAA 2001:db8::7")(network, w, q)
	} else {
		probetest.Code(dns.RcodeNameError)(network, w, q)
	}
}

func TestProfileCountsAForeignServerAsOpen(t *testing.T) {
	onSite(t, func(s *site) {
		s.asCombivis()
		s.server("192.0.2.53", internet)
		s.clock("203.0.113.7", time.Minute)
		s.check.TimeSources = []string{"ccas1.keb.de"}
		s.listen(443, s.speaksTLS(s.foreign("Maker CA")))
		s.listen(80, speaksHTTP("400 Bad Request"))
		s.drop(5935)
		r := s.check.Run(s.t.Context())
		if r.Profile != "combivis" || len(r.Names) != 12 || len(r.Ways) != 36 || s.most > checkedDials {
			t.Fatalf("%d at once:\n%s", s.most, r.Text())
		}
		for _, w := range r.Ways {
			want := map[transport.Port]transport.Reason{443: "", 80: transport.PlainHTTP, 5935: transport.Timeout}[w.Port]
			if w.Reason != want || w.OK != (want == "") || w.OK != (w.Issuer == "CN=Maker CA") {
				t.Errorf("%+v, want %q", w, want)
			}
		}
		if !r.Verdict.OK || !r.Clock.OK || r.Clock.Offset/1000 != 59 || !slices.Equal(r.Local, []netip.Addr{netip.MustParseAddr("192.0.2.100")}) {
			t.Errorf("%v\n%s", r.Local, r.Text())
		}
	})
}

func TestProfileEndsInTime(t *testing.T) {
	for name, make := range map[string]func(s *site){
		"everything dropped": func(s *site) { s.server("192.0.2.53", internet); s.drop() },
		"TLS swallowed": func(s *site) {
			s.server("192.0.2.53", internet)
			for _, port := range transport.DefaultPorts() {
				s.listen(uint16(port), func(conn net.Conn) { io.Copy(io.Discard, conn) })
			}
		},
		"DNS is dead": func(s *site) { s.server("192.0.2.53", probetest.Silent) },
	} {
		t.Run(name, func(t *testing.T) {
			onSite(t, func(s *site) {
				s.asCombivis()
				make(s)
				begin := time.Now()
				r := s.check.Run(s.t.Context())
				if took := time.Since(begin); took > longBudget || len(r.Names) != 12 || r.Verdict.OK || s.most > checkedDials ||
					strings.Contains(r.Verdict.Text, "cut short") {
					t.Errorf("%v, %d dials at once\n%s", took, s.most, r.Text())
				}
			})
		})
	}
}

func TestForeignServers(t *testing.T) {
	tests := []struct {
		name   string
		serve  func(s *site) func(net.Conn)
		reason transport.Reason
	}{
		{"TLS 1.3", func(s *site) func(net.Conn) { return s.speaks(&tls.Config{}) }, ""},
		{"TLS 1.2 at most", func(s *site) func(net.Conn) { return s.speaks(&tls.Config{MaxVersion: tls.VersionTLS12}) }, ""},
		{"TLS 1.2 that wants our certificate", func(s *site) func(net.Conn) {
			return s.speaks(&tls.Config{MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert})
		}, ""},
		{"TLS of long ago", func(s *site) func(net.Conn) {
			return s.speaks(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
		}, transport.TLSRefused},
		{"login page", func(*site) func(net.Conn) { return speaksHTTP("302 Found") }, transport.CaptivePortal},
		{"login page of RFC 6585", func(*site) func(net.Conn) { return speaksHTTP("511 Login") }, transport.CaptivePortal},
		{"HTTP", func(*site) func(net.Conn) { return speaksHTTP("403 Forbidden") }, transport.PlainHTTP},
		{"SSH", func(*site) func(net.Conn) {
			return func(c net.Conn) { c.Read(make([]byte, 4096)); io.WriteString(c, "SSH-2.0-x\r\n") }
		}, transport.NotTLS},
		{"closes at the hello", func(*site) func(net.Conn) { return func(c net.Conn) { c.Read(make([]byte, 2048)) } }, transport.ResetAfterHello},
		{"silence", func(*site) func(net.Conn) { return func(c net.Conn) { io.Copy(io.Discard, c) } }, transport.Timeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			onSite(t, func(s *site) {
				s.listen(443, tt.serve(s))
				a := s.check.Dialer.TryForeign(s.t.Context(), transport.Candidate{Host: "m.example", Addr: netip.AddrPortFrom(addr1, 443)})
				if a.Reason != tt.reason || (a.Issuer == "CN=Maker") != (tt.reason == "") || a.RTT != 2*way || (a.Detail == "") != (tt.reason == "") {
					t.Errorf("%+v, want %q", a, tt.reason)
				}
			})
		})
	}
	onSite(t, func(s *site) {
		s.net.Firewall(func(netip.Addr, netip.AddrPort) memnet.Verdict { return memnet.Reject })
		if a := s.check.Dialer.TryForeign(s.t.Context(), transport.Candidate{Host: "m.example", Addr: netip.AddrPortFrom(addr1, 443)}); a.Reason != transport.Refused || a.RTT != 0 {
			t.Errorf("%+v", a)
		}
	})
}

// speaks is a foreign server with a certificate of the issuer Maker.
func (s *site) speaks(config *tls.Config) func(net.Conn) {
	config.Certificates = []tls.Certificate{s.foreign("Maker")}
	return func(conn net.Conn) {
		if tls.Server(conn, config).Handshake() == nil {
			conn.Read(make([]byte, 1))
		}
	}
}

func TestProfileNames(t *testing.T) {
	p, ok := ProfileNamed("combivis")
	if !ok || len(p.hosts()) != 12 || len(p.Ports) != 3 {
		t.Errorf("%+v", p)
	}
	if _, ok := ProfileNamed("Combivis "); ok {
		t.Error("a name that is none is known")
	}
}
