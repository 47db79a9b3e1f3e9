package transport

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"hawser/internal/memnet"
)

// remember makes addr:port the server's last good candidate.
func (s *site) remember(addrPort string) {
	s.d.LastGood = func(string) []Candidate { return []Candidate{{Addr: netip.MustParseAddrPort(addrPort)}} }
}

func TestLastGoodGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443, 80)
		s.remember("192.0.2.1:80")
		var told Candidate
		s.d.Good = func(c Candidate) { told = c }
		s.dial(80, 0)
		if len(s.dialled) != 1 || told.Addr.Port() != 80 || told.Host != "access.example" {
			t.Errorf("dialled %v, told of %v", s.dialled, told)
		}
	})
}

func TestLastGoodIsAloneFor2s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.block(map[uint16]memnet.Verdict{80: memnet.Drop})
		s.remember("192.0.2.1:80")
		s.target.Hosts = append(s.target.Hosts, "late.example")
		s.d.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
			if host == "late.example" {
				time.Sleep(time.Second) // what it brings must wait as well
			}
			return []netip.Addr{serverAddr}, nil
		}
		s.dial(443, goodHeadStart)
	})
}

func TestLastGoodThatIsRefusedCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.remember("192.0.2.1:80")
		s.dial(443, 0)
		s.remember("192.0.2.1:5935")
		s.dial(443, 0)
	})
}

func TestLastGoodThatFailedLatelyIsNotAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.block(map[uint16]memnet.Verdict{80: memnet.Drop})
		s.remember("192.0.2.1:80")
		s.target.Ports = []Port{80}
		s.dial(0, 5*time.Second)
		s.target.Ports = DefaultPorts()
		s.dial(443, 0)
	})
}

func TestLastGoodJoinsWhenDNSIsSilent(t *testing.T) {
	t.Attr("id", "D6")
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(5935)
		s.remember("192.0.2.1:5935")
		s.d.Resolve = func(ctx context.Context, _ string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		s.dial(5935, goodJoins)
	})
}

func TestLastGoodJoinsAtOnceWhenDNSIsDead(t *testing.T) {
	t.Attr("id", "D6")
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(5935)
		s.d.Resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("dead") }
		s.remember("192.0.2.1:5935")
		s.dial(5935, 0)
		s.remember("192.0.2.1:443") // the port has changed since: the address helps all the same
		s.dial(5935, 0)
	})
}

func TestLastGoodJoinsWhenDNSLies(t *testing.T) {
	t.Attr("id", "D3")
	for verdict, took := range map[memnet.Verdict]time.Duration{memnet.Reject: 0, memnet.Drop: goodJoins} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.serveTLS(443)
			s.d.Resolve = func(context.Context, string) ([]netip.Addr, error) { return addrs("203.0.113.9"), nil }
			s.net.Firewall(func(_ netip.Addr, to netip.AddrPort) memnet.Verdict {
				if to.Addr() != serverAddr {
					return verdict
				}
				return memnet.Pass
			})
			s.remember("192.0.2.1:443")
			s.dial(443, took)
		})
	}
}

// More addresses than may be dialled at once, all of them silent.
func TestLastGoodJoinsWhenDNSLiesALot(t *testing.T) {
	t.Attr("id", "D3")
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.d.Resolve = func(context.Context, string) (all []netip.Addr, _ error) {
			for i := range byte(8) {
				all = append(all, netip.AddrFrom4([4]byte{203, 0, 113, i}))
			}
			return all, nil
		}
		s.net.Firewall(func(_ netip.Addr, to netip.AddrPort) memnet.Verdict {
			if to.Addr() != serverAddr {
				return memnet.Drop
			}
			return memnet.Pass
		})
		s.remember("192.0.2.1:443")
		s.dial(443, goodJoins)
		if s.most != maxTCP+1 {
			t.Errorf("%d connects at once, want %d", s.most, maxTCP+1)
		}
	})
}

func TestNoNameAndNoMemoryIsDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.d.Resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("dead") }
		s.target.Hosts = []string{"a.example", "b.example:443", "not a host"}
		err := s.dial(0, 0)
		if ReasonOf(err) != DNS || len(err.Attempts) != 3 {
			t.Errorf("got %s: %v", ReasonOf(err), err)
		}
		s.target.Hosts = nil
		s.dial(0, 0)
	})
}

func TestHostWithAPortHasThatPortAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443, 8443)
		s.target.Hosts = []string{"192.0.2.1:8443"}
		s.dial(8443, 0)
	})
}
