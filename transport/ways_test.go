package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/internal/memnet"
)

var proxyAddr = netip.MustParseAddr("198.51.100.9")

// fakeProxy speaks CONNECT on port 3128 of a host at the client's site. It knows the server by every name.
type fakeProxy struct {
	s      *site
	answer string   // instead of connecting
	asked  []string // HOST:PORTs; both are guarded by s.mu
}

func (s *site) proxy(addr netip.Addr) *fakeProxy {
	p := &fakeProxy{s: s}
	s.t.Cleanup(must(s.net.Host(addr).Serve(3128, func(c net.Conn) { p.serve(s.net.Host(addr), c) })).Stop)
	return p
}

func (p *fakeProxy) serve(host *memnet.Host, c net.Conn) {
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return
	}
	for l := line; strings.TrimSpace(l) != "" && err == nil; {
		l, err = r.ReadString('\n')
	}
	target := strings.Fields(line)[1]
	p.s.mu.Lock()
	p.asked = append(p.asked, target)
	answer := p.answer
	p.s.mu.Unlock()
	if answer != "" {
		io.WriteString(c, answer)
		io.Copy(io.Discard, c)
		return
	}
	_, port, _ := net.SplitHostPort(target)
	n, _ := strconv.ParseUint(port, 10, 16)
	far, err := host.DialContext(context.Background(), "tcp", netip.AddrPortFrom(serverAddr, uint16(n)).String())
	if err != nil {
		io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\n\r\n")
		return
	}
	io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	var both sync.WaitGroup
	both.Go(func() { io.Copy(far, r); far.Close() })
	both.Go(func() { io.Copy(c, far); c.Close() })
	both.Wait()
}

func (p *fakeProxy) wantAsked(t *testing.T, want ...string) {
	t.Helper()
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if !slices.Equal(p.asked, want) {
		t.Errorf("the proxy was asked for %q, want %q", p.asked, want)
	}
}

// through has the client use proxies: those of a list, or of its settings.
func (s *site) through(first bool, urls ...string) {
	ps, _, err := ProxyList(urls)
	if err != nil {
		s.t.Fatal(err)
	}
	ps.First = first
	s.d.Proxies = func() Proxies { return ps }
}

// directly has the site's firewall judge connections of the client to the server alone.
func (s *site) directly(v memnet.Verdict) {
	s.net.Firewall(func(from netip.Addr, to netip.AddrPort) memnet.Verdict {
		if from == clientAddr && to.Addr() == serverAddr {
			return v
		}
		return memnet.Pass
	})
}

// dialWay searches and wants the way that is open, after so long.
func (s *site) dialWay(way string, took time.Duration) {
	s.t.Helper()
	s.restart()
	conn, err := s.d.Dial(s.t.Context(), s.target)
	got := ""
	if err == nil {
		got = conn.Candidate.Way()
		conn.Close()
	}
	if since := time.Since(s.begin); since != took || got != way {
		s.t.Errorf("%q after %v (%v), want %q after %v; dialled %v", got, since, err, way, took, s.dialled)
	}
}

const theProxy = "http://198.51.100.9:3128"

func TestDirectGoesBeforeProxiesOfTheEnvironment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		p := s.proxy(proxyAddr)
		s.through(false, theProxy)
		s.dialWay(WayDirect, 0)
		p.wantAsked(t)
	})
}

// Also when six direct connects hang.
func TestProxiesJoinAfter2s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.directly(memnet.Drop)
		s.target.Ports = append(DefaultPorts(), 81, 82, 83, 84, 85)
		p := s.proxy(proxyAddr)
		s.through(false, theProxy)
		s.dialWay(WayProxy, otherWays)
		p.wantAsked(t, "access.example:443")
	})
}

func TestProxiesJoinAtOnceWhenNothingElseIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.directly(memnet.Reject)
		s.proxy(proxyAddr)
		s.through(false, theProxy)
		s.dialWay(WayProxy, 0)
	})
}

func TestProxiesJoinAtOnceWhenNamesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.directly(memnet.Drop)
		s.d.LastGood = func(string) []Candidate { return []Candidate{{Addr: addrPort(443)}} } // which is tried, too
		s.d.Resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("dead") }
		s.proxy(proxyAddr)
		s.through(false, theProxy)
		s.dialWay(WayProxy, 0)
	})
}

func TestProxiesJoinAfter2sWhenNamesAreSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.d.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		s.proxy(proxyAddr)
		s.through(false, theProxy)
		s.dialWay(WayProxy, otherWays)
	})
}

func TestProxiesOfAListGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.d.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			<-ctx.Done() // what the proxy does not wait for
			return nil, ctx.Err()
		}
		s.remember("192.0.2.1:443")
		s.proxy(proxyAddr)
		s.through(true, theProxy)
		s.dialWay(WayProxy, 0)
	})
}

func TestDirectJoinsTheProxiesOfAList(t *testing.T) {
	for verdict, want := range map[memnet.Verdict]time.Duration{memnet.Drop: otherWays, memnet.Reject: 0} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.serveTLS(443)
			s.net.Firewall(func(_ netip.Addr, to netip.AddrPort) memnet.Verdict {
				if to.Addr() == proxyAddr {
					return verdict
				}
				return memnet.Pass
			})
			s.through(true, theProxy, "socks5://198.51.100.9:3128")
			s.dialWay(WayDirect, want)
		})
	}
}

// With names that nobody resolves, and every proxy dead, there are the addresses that worked.
func TestRememberedAddressesJoinTheProxiesOfAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.d.Resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("dead") }
		s.remember("192.0.2.1:443")
		s.net.Firewall(func(_ netip.Addr, to netip.AddrPort) memnet.Verdict {
			if to.Addr() == proxyAddr {
				return memnet.Reject
			}
			return memnet.Pass
		})
		s.through(true, theProxy)
		s.dialWay(WayDirect, 0)
	})
}

func TestProxyThatWorkedLastGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.directly(memnet.Drop)
		p := s.proxy(proxyAddr)
		s.through(false, theProxy)
		good := map[string]Candidate{}
		s.d.Good = func(c Candidate) { good[c.Host] = c }
		s.d.LastGood = func(host string) []Candidate {
			if c, ok := good[host]; ok {
				return []Candidate{c}
			}
			return nil
		}
		s.dialWay(WayProxy, otherWays)
		s.dialWay(WayProxy, 0)
		if len(s.dialled) != 1 {
			t.Errorf("dialled %v, want the proxy alone", s.dialled)
		}
		s.mu.Lock()
		p.answer = "HTTP/1.1 503 x\r\n\r\n" // it dies, and the direct way has come
		s.mu.Unlock()
		s.directly(memnet.Pass)
		s.dialWay(WayDirect, 0)
		s.d.Proxies = nil // and is taken out of the settings
		good["access.example"] = proxied("access.example", []Proxy{{scheme: "http", host: "198.51.100.9", port: 3128}}, []Port{443})[0]
		s.dialWay(WayDirect, 0)
	})
}

// A proxy that wants another password is asked once in a search: many tries would lock a user out.
func TestProxyThatFailedByItselfIsNotAskedAgain(t *testing.T) {
	for answer, want := range map[string]Reason{
		"HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\n\r\n": ProxyAuth,
		"SSH-2.0-x\r\n":              NotTLS,
		"HTTP/1.1 302 Found\r\n\r\n": CaptivePortal,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.serveTLS(443)
			s.directly(memnet.Drop)
			p := s.proxy(proxyAddr)
			p.answer = answer
			s.through(true, theProxy)
			err := s.dial(0, otherWaysFailed)
			p.wantAsked(t, "access.example:443")
			if got := ReasonOf(err); got != want || strings.Contains(err.Error(), "@") {
				t.Errorf("got %s: %v, want %s", got, err, want)
			}
		})
	}
}

// otherWaysFailed is how long three direct connects that hang take, started at once.
const otherWaysFailed = 2*minStagger + tcpTimeout

func TestProxyThatRefusesAPortIsAskedForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(80)
		s.directly(memnet.Reject)
		p := s.proxy(proxyAddr)
		s.through(true, theProxy)
		s.dialWay(WayProxy, 0)
		p.wantAsked(t, "access.example:443", "access.example:5935", "access.example:80")
	})
}

func TestSilentProxyHas10s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.target.Ports = []Port{443}
		s.t.Cleanup(must(s.net.Host(proxyAddr).Serve(3128, silent)).Stop)
		s.directly(memnet.Reject)
		s.through(true, theProxy)
		if err := s.dial(0, proxyTimeout); err.Attempts[len(err.Attempts)-1].Reason != Timeout {
			t.Error(err)
		}
	})
}

// A name of a proxy is resolved by us, and each of its addresses has its share of the time.
func TestSecondAddressOfAProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.proxy(proxyAddr)
		s.d.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
			if host == "proxy.example" {
				return addrs("198.51.100.77", proxyAddr.String()), nil // the first is nobody
			}
			return nil, errors.New("unknown")
		}
		s.through(true, "http://proxy.example:3128")
		s.dialWay(WayProxy, tcpTimeout/2)
	})
}

// A helper on this machine proves itself to the site's proxy. No name has to be resolved for it.
func TestProxyOnThisMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.serveTLS(443)
		s.d.Resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("dead") }
		s.proxy(clientAddr)
		s.through(true, "http://localhost:3128")
		s.dialWay(WayProxy, 0)
	})
}

func TestHostsWithoutAProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.directly(memnet.Reject)
		p := s.proxy(proxyAddr)
		ps := ProxiesOfEnvironment(func(name string) (string, bool) {
			v, ok := map[string]string{"https_proxy": theProxy, "no_proxy": ".example"}[name]
			return v, ok
		})
		s.d.Proxies = func() Proxies { return ps }
		s.dialWay("", 0)
		p.wantAsked(t)
	})
}

// A hello that is too big for the path behind the proxy gets its small form like any other.
func TestSmallFormThroughAProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		h := &hole{s: s}
		h.serve(443, s.tls())
		s.directly(memnet.Reject)
		s.proxy(proxyAddr)
		s.through(true, theProxy)
		var told Candidate
		s.d.Good = func(c Candidate) { told = c }
		s.dialWay(WayProxy, slotTime)
		if want := (Candidate{Host: "access.example", Addr: netip.AddrPortFrom(netip.Addr{}, 443), Proxy: theProxy, Small: true}); told != want {
			t.Errorf("told of %+v, want %+v", told, want)
		}
	})
}

func TestFailuresOfProxiesAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.directly(memnet.Reject)
		p := s.proxy(proxyAddr)
		p.answer = "HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n"
		s.through(false, "http://ann:s3cr%3At@198.51.100.9:3128")
		var told []string
		s.d.Trace = func(a Attempt) {
			if a.Proxy != "" {
				told = append(told, fmt.Sprint(a.Where(), ": ", a.Reason, ": ", a.Detail))
			}
		}
		err := s.dial(0, 0)
		want := []string{"access.example:443 through " + theProxy + ": proxy-auth: ask proxy " + theProxy + ": proxy-auth: " +
			"it wants Negotiate or NTLM, which is not supported: let it take Basic, or this device without a password"}
		if !reflect.DeepEqual(told, want) || strings.Contains(err.Error(), "s3cr") || !strings.Contains(err.Error(), ": proxy-auth (it wants Negotiate or NTLM,") {
			t.Errorf("told %q, want %q; %v", told, want, err)
		}
	})
}

// The proxy that worked last is tried before the others join. With a wrong password each further try would be one more
// of those after which a directory locks the user out.
func TestProxyThatFailedByItselfDoesNotJoinAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		p := s.proxy(proxyAddr)
		p.answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n"
		s.through(false, "http://user:old@198.51.100.9:3128")
		s.directly(memnet.Drop)
		s.d.LastGood = func(string) []Candidate {
			return []Candidate{{Addr: netip.AddrPortFrom(netip.Addr{}, 443), Proxy: theProxy}}
		}
		if _, err := s.d.Dial(s.t.Context(), s.target); ReasonOf(err) != ProxyAuth {
			t.Errorf("%v", err)
		}
		p.wantAsked(t, "access.example:443")
	})
}
