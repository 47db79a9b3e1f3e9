package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"hawser/internal/memnet"
	"hawser/probe/probetest"
)

// The servers in these tests are fakes, on miekg/dns over a network in
// memory: they do what real servers refuse to do (mangle, forge, flood, stay
// silent) at exactly known times. Real servers are met in the lab.

type handler = probetest.Handler

var (
	serve, respond, honest, silent = probetest.ServeDNS, probetest.Respond, probetest.Honest, probetest.Silent
	says, code, over, truncate     = probetest.Says, probetest.Code, probetest.Over, probetest.Truncate
	lowerCase, withoutEDNS         = probetest.LowerCase, probetest.WithoutEDNS

	addr1 = netip.MustParseAddr("203.0.113.7")
	addr2 = netip.MustParseAddr("2001:db8::7")
	lan   = netip.MustParseAddr("10.1.2.3")
)

type rig struct {
	t        *testing.T
	net      *memnet.Network
	resolver *Resolver
	asked    atomic.Int64 // questions that reached any server
}

// bubble runs f with a network in fake time and a resolver without servers.
func bubble(t *testing.T, f func(r *rig)) {
	t.Helper()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		client := n.Host(netip.MustParseAddr("192.0.2.100"))
		client.AddAddr(netip.MustParseAddr("2001:db8::100"))
		f(&rig{t: t, net: n, resolver: &Resolver{HostsFile: empty, ResolvConf: empty, Dial: client.DialContext}})
	})
}

// server starts a fake at addr and makes the resolver ask it.
func (r *rig) server(addr string, h handler) netip.AddrPort {
	r.t.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddr(addr), 53)
	host := r.net.Host(at.Addr())
	pc, err := host.ListenPacket(53)
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := host.Listen(53)
	if err != nil {
		r.t.Fatal(err)
	}
	serve(r.t, pc, l, func(network string, w dns.ResponseWriter, q *dns.Msg) {
		r.asked.Add(1)
		h(network, w, q)
	})
	synctest.Wait()
	r.resolver.Servers = append(slices.Clone(r.resolver.Servers), at)
	return at
}

// resolve asks and checks what came and how long it took.
func (r *rig) resolve(host string, took time.Duration, want ...netip.Addr) {
	r.t.Helper()
	start := time.Now()
	got, err := r.resolver.Resolve(r.t.Context(), host)
	if err != nil || !slices.Equal(got, want) {
		r.t.Errorf("Resolve(%q) = %v, %v; want %v", host, got, err, want)
	}
	if d := time.Since(start); d != took {
		r.t.Errorf("Resolve(%q) took %v, want %v", host, d, took)
	}
}

// fail asks and checks the reason.
func (r *rig) fail(host string, took time.Duration, want Reason) *NameError {
	r.t.Helper()
	start := time.Now()
	got, err := r.resolver.Resolve(r.t.Context(), host)
	nameErr, ok := errors.AsType[*NameError](err)
	if !ok || nameErr.Reason != want || len(got) != 0 {
		r.t.Fatalf("Resolve(%q) = %v, %v; want %s", host, got, err, want)
	}
	if d := time.Since(start); d != took {
		r.t.Errorf("Resolve(%q) took %v, want %v", host, d, took)
	}
	return nameErr
}

// garble answers with a record that ends early.
func garble(_ string, w dns.ResponseWriter, q *dns.Msg) {
	b, _ := respond(q, "%s 300 A 203.0.113.7", "%s 300 AAAA 2001:db8::7").Pack()
	w.Write(b[:len(b)-2])
}

// bareCode sends a header and nothing else, as some public resolvers do.
func bareCode(rcode int) handler {
	return func(_ string, w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, rcode)
		m.Question = nil
		w.WriteMsg(m)
	}
}

// amongNoise sends what must be ignored before the answer.
func amongNoise(h handler) handler {
	return func(network string, w dns.ResponseWriter, q *dns.Msg) {
		evil := func(change func(*dns.Msg)) {
			m := respond(q, "%s 300 A 198.51.100.66")
			change(m)
			w.WriteMsg(m)
		}
		evil(func(m *dns.Msg) { m.Id++ })
		evil(func(m *dns.Msg) { m.Question[0].Name = "other.example." })
		evil(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTXT })
		evil(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS })
		evil(func(m *dns.Msg) { m.Response = false })
		evil(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify })
		evil(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) })
		evil(func(m *dns.Msg) { m.Question = nil })
		w.Write([]byte("noise"))
		h(network, w, q)
	}
}

func chain(steps int) handler {
	var rrs []string
	from := "%s"
	for i := range steps {
		to := fmt.Sprintf("c%d.example.", i)
		rrs = append(rrs, from+" 90 CNAME "+to)
		from = to
	}
	return says(append(rrs, from+" 300 A 203.0.113.7")...)
}

func flood(n int) handler {
	return func(_ string, w dns.ResponseWriter, q *dns.Msg) {
		m := respond(q, "%s 300 A 203.0.113.7", "%s 300 AAAA 2001:db8::7")
		m.Compress = true
		for i := range n {
			rr, _ := dns.NewRR(fmt.Sprintf("%s 300 A 203.0.%d.%d", q.Question[0].Name, i>>8&0xff, i&0xff))
			m.Answer = append(m.Answer, rr)
		}
		w.WriteMsg(m)
	}
}

func TestOneServer(t *testing.T) {
	both := []netip.Addr{addr1, addr2}
	v4 := []netip.Addr{addr1}
	tests := []struct {
		name   string
		id     string // docs/tests.md
		serve  handler
		took   time.Duration
		want   []netip.Addr
		reason Reason
	}{
		{name: "both families, in turn", serve: honest, want: both},
		{name: "one family", serve: says("%s 300 A 203.0.113.7"), want: v4},
		{name: "no such name", id: "D3", serve: code(dns.RcodeNameError), reason: ReasonNXDomain},
		{name: "no address", id: "D3", serve: says(), reason: ReasonNoAddress},
		{name: "server failure", serve: code(dns.RcodeServerFailure), reason: ReasonServFail},
		{name: "refused", serve: code(dns.RcodeRefused), reason: ReasonRefused},
		{name: "refused with a bare header", serve: bareCode(dns.RcodeRefused), reason: ReasonRefused},
		{name: "bare header without an error is noise", serve: over(bareCode(dns.RcodeSuccess), silent), took: budget, reason: ReasonTimeout},
		{name: "not implemented", serve: code(dns.RcodeNotImplemented), reason: ReasonBadReply},
		{name: "hijacked to loopback", id: "D3", serve: says("%s 300 A 127.0.0.1", "%s 300 AAAA ::1"), reason: ReasonBadAddress},
		{name: "some of them unusable", serve: says("%s 300 A 0.0.0.0", "%s 300 A 203.0.113.7", "%s 300 AAAA fe80::1"), want: v4},
		{name: "alias within the answer", serve: chain(16), want: v4},
		{name: "too many aliases", serve: chain(17), reason: ReasonNoAddress},
		{name: "alias loop", id: "D3", serve: says("%s 300 CNAME b.example.", "b.example. 300 CNAME %s"), reason: ReasonNoAddress},
		{name: "alias to nowhere asks nothing more", serve: says("%s 300 CNAME b.example."), reason: ReasonNoAddress},
		{name: "address of another name", serve: says("other.example. 300 A 203.0.113.7"), reason: ReasonNoAddress},
		{name: "truncated", id: "D2", serve: over(truncate, honest), want: both},
		{name: "truncated, and TCP fails", id: "D2", serve: over(truncate, code(dns.RcodeServerFailure)), reason: ReasonServFail},
		{name: "4096 bytes in a datagram", id: "D2", serve: over(flood(4096/16-5), silent), want: slices.Concat(both, first203(6))},
		{name: "4096 bytes over TCP", id: "D2", serve: over(truncate, flood(4096/16-5)), want: slices.Concat(both, first203(6))},
		{name: "unreadable datagram", serve: over(garble, honest), want: both},
		{name: "unreadable everywhere", serve: garble, reason: ReasonTruncated},
		{name: "UDP silent", id: "D1", serve: over(silent, honest), took: silence, want: both},
		{name: "silent", serve: silent, took: budget, reason: ReasonTimeout},
		{name: "EDNS refused", id: "D2", serve: withoutEDNS(honest, code(dns.RcodeFormatError)), want: both},
		{name: "EDNS refused with a bare header", id: "D2", serve: withoutEDNS(honest, bareCode(dns.RcodeFormatError)), want: both},
		{name: "EDNS dropped, no TCP", id: "D2", serve: over(withoutEDNS(honest, silent), silent), took: silence, want: both},
		{name: "nothing understood", serve: code(dns.RcodeFormatError), reason: ReasonBadReply},
		{name: "case changed", id: "D5", serve: lowerCase(honest), took: caseGrace, want: both},
		{name: "noise before the answer", serve: amongNoise(honest), want: both},
		{name: "as many records as fit", id: "D3", serve: over(truncate, flood(3800)), want: slices.Concat(both, first203(6))},
		{name: "answer to something else over TCP", serve: over(truncate, amongNoise(honest)), reason: ReasonBadReply},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.id != "" {
				t.Attr("id", tt.id)
			}
			bubble(t, func(r *rig) {
				r.server("192.0.2.53", tt.serve)
				if tt.reason == "" {
					r.resolve("access.example", tt.took, tt.want...)
				} else {
					r.fail("access.example", tt.took, tt.reason)
				}
			})
		})
	}
}

// first203 are the first addresses that flood adds.
func first203(n byte) (all []netip.Addr) {
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{203, 0, 0, i}))
	}
	return all
}

func TestNextServer(t *testing.T) {
	tests := []struct {
		name string
		bad  handler
		took time.Duration
	}{
		{"after silence", silent, silence},
		{"at once after a failure", code(dns.RcodeServerFailure), 0},
		{"at once after a refusal", code(dns.RcodeRefused), 0},
		{"at once after rubbish", garble, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.server("192.0.2.53", tt.bad)
				r.server("192.0.2.54", honest)
				r.resolve("access.example", tt.took, addr1, addr2)
			})
		})
	}
}

// A site's own resolver comes first, and one that the world shares second (names §3).
func TestSplitDNS(t *testing.T) {
	inside := says("%s 300 A 10.1.2.3")
	filter := says("%s 300 A 0.0.0.0", "%s 300 AAAA ::")
	wrong := netip.MustParseAddr("198.51.100.9")
	for _, tt := range []struct {
		name          string
		first, second handler
		private       bool
		took          time.Duration
		want          []netip.Addr
		reason        Reason
	}{
		{name: "the name does not exist inside", first: code(dns.RcodeNameError), second: honest, want: []netip.Addr{addr1, addr2}},
		{name: "an address inside", first: inside, second: honest, want: []netip.Addr{addr1, lan}},
		{name: "an address that does not count", first: filter, second: honest, want: []netip.Addr{addr1, addr2}},
		{name: "an address inside, declared private", first: inside, second: honest, private: true, want: []netip.Addr{lan}},
		{name: "inside only", first: inside, second: code(dns.RcodeNameError), want: []netip.Addr{lan}},
		{name: "an address inside, and silence", first: inside, second: silent, took: secondGrace, want: []netip.Addr{lan}},
		{name: "no such name, and silence", first: code(dns.RcodeNameError), second: silent, took: denialGrace, reason: ReasonNXDomain},
		{name: "no such name, and TCP only", first: code(dns.RcodeNameError), second: over(silent, honest), took: silence, want: []netip.Addr{addr1, addr2}},
		{name: "no such name anywhere", first: code(dns.RcodeNameError), second: code(dns.RcodeNameError), reason: ReasonNXDomain},
		{name: "no such name, and a failure", first: code(dns.RcodeNameError), second: code(dns.RcodeServerFailure), reason: ReasonNXDomain},
		{name: "a failure, and no such name", first: code(dns.RcodeServerFailure), second: code(dns.RcodeNameError), reason: ReasonNXDomain},
		{name: "useless addresses, and no such name", first: filter, second: code(dns.RcodeNameError), reason: ReasonBadAddress},
		{name: "no address is final", first: says(), second: honest, reason: ReasonNoAddress},
		{name: "a public address inside is taken", first: says("%s 300 A 198.51.100.9"), second: honest, want: []netip.Addr{wrong}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.server("192.0.2.53", tt.first)
				r.server("192.0.2.54", tt.second)
				r.resolver.Private = tt.private
				if tt.reason == "" {
					r.resolve("access.example", tt.took, tt.want...)
				} else {
					r.fail("access.example", tt.took, tt.reason)
				}
			})
		})
	}
}

func TestErrorTellsWhatEachServerDid(t *testing.T) {
	bubble(t, func(r *rig) {
		one := r.server("192.0.2.53", code(dns.RcodeRefused))
		two := r.server("192.0.2.54", over(silent, code(dns.RcodeServerFailure)))
		err := r.fail("access.example", silence, ReasonServFail)
		want := []Attempt{{one, "udp", ReasonRefused}, {two, "tcp", ReasonServFail}}
		if !slices.Equal(err.Attempts, want) {
			t.Errorf("attempts %v, want %v", err.Attempts, want)
		}
		text := `resolve "access.example": servfail: 192.0.2.53:53 udp refused, 192.0.2.54:53 tcp servfail`
		if err.Error() != text {
			t.Errorf("text %q, want %q", err, text)
		}
	})
}

// TC, and nobody listens on TCP: another server helps, or else it is known at
// once, so that what worked before can be tried.
func TestTruncatedAnswerWithoutTCPCostsNothing(t *testing.T) {
	t.Attr("id", "D2")
	bubble(t, func(r *rig) {
		r.server("192.0.2.53", truncate)
		dial := r.resolver.Dial
		r.resolver.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if network == "tcp" && address == "192.0.2.53:53" {
				return nil, syscall.ECONNREFUSED
			}
			return dial(ctx, network, address)
		}
		r.fail("a.example", 0, ReasonUnreachable)
		r.server("192.0.2.54", honest)
		r.resolve("a.example", 0, addr1, addr2)
	})
}

func TestRejectedUDPGoesToTCPAtOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server("192.0.2.53", honest)
		dial := r.resolver.Dial
		r.resolver.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if network == "udp" {
				return nil, errors.New("refused")
			}
			return dial(ctx, network, address)
		}
		r.resolve("access.example", 0, addr1, addr2)
	})
}

func TestSilentFamilyCostsHalfASecondAndIsAskedAgainSoon(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server("192.0.2.53", func(network string, w dns.ResponseWriter, q *dns.Msg) {
			if q.Question[0].Qtype == dns.TypeA {
				honest(network, w, q)
			}
		})
		r.resolve("access.example", secondGrace, addr1)
		time.Sleep(minTTL - time.Nanosecond)
		r.resolve("access.example", 0, addr1)
		time.Sleep(time.Nanosecond)
		r.resolve("access.example", secondGrace, addr1)
	})
}

func TestBlockedUDPIsRememberedForAnHour(t *testing.T) {
	t.Attr("id", "D1")
	bubble(t, func(r *rig) {
		var open atomic.Bool
		r.server("192.0.2.53", over(func(network string, w dns.ResponseWriter, q *dns.Msg) {
			if open.Load() {
				honest(network, w, q)
			}
		}, honest))
		r.resolve("a.example", silence, addr1, addr2)
		r.resolve("b.example", 0, addr1, addr2)
		time.Sleep(tcpMemory)
		r.resolve("c.example", silence, addr1, addr2)
		open.Store(true)
		time.Sleep(tcpMemory)
		r.resolve("d.example", 0, addr1, addr2)
	})
}

func TestTCPFirstEndsWhenOnlyUDPAnswers(t *testing.T) {
	bubble(t, func(r *rig) {
		server := r.server("192.0.2.53", over(honest, silent))
		r.resolver.setTCPFirst(server, true)
		r.resolve("a.example", silence, addr1, addr2)
		r.resolve("b.example", 0, addr1, addr2)
	})
}

func TestCaseIsLeftOutForADay(t *testing.T) {
	t.Attr("id", "D5")
	bubble(t, func(r *rig) {
		var mixed atomic.Bool
		name := strings.Repeat("abcdefghijklmnopqrstuvwxyz", 2) + ".example"
		note := func(network string, w dns.ResponseWriter, q *dns.Msg) {
			mixed.Store(q.Question[0].Name != strings.ToLower(q.Question[0].Name))
			lowerCase(honest)(network, w, q)
		}
		r.server("192.0.2.53", note)
		r.resolve(name, caseGrace, addr1, addr2)
		if mixed.Load() {
			t.Error("asked in mixed case again")
		}
		time.Sleep(caseMemory - time.Second)
		r.resolve(name, 0, addr1, addr2)
		time.Sleep(maxTTL)
		r.resolve(name, caseGrace, addr1, addr2)
	})
}

func TestCancelledQuestionIsNotAFailureOfTheName(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server("192.0.2.53", silent)
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		if _, err := r.resolver.Resolve(ctx, "access.example"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's error", err)
		}
		if _, err := r.resolver.Resolve(ctx, "access.example"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a dead context got %v", err)
		}
		r.fail("access.example", budget, ReasonTimeout)
	})
}

func TestNothingIsAsked(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server("192.0.2.53", honest)
		r.resolve("192.0.2.9", 0, netip.MustParseAddr("192.0.2.9"))
		r.resolve("::ffff:192.0.2.9", 0, netip.MustParseAddr("192.0.2.9"))
		r.resolve("127.0.0.1", 0, netip.MustParseAddr("127.0.0.1"))
		r.resolve("2001:db8::9", 0, netip.MustParseAddr("2001:db8::9"))
		for _, host := range []string{"", ".", "a..b", "a b", "a\x00b", "ä.example", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 130)} {
			r.fail(host, 0, ReasonBadName)
		}
		r.resolver.Servers = nil
		r.fail("access.example", 0, ReasonNoResolver)
		if n := r.asked.Load(); n != 0 {
			t.Errorf("%d questions were asked", n)
		}
	})
}
