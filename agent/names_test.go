package agent

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hawser/internal/memnet"
)

const accessHost = "access.example"

var (
	dnsAddr    = netip.MustParseAddr("203.0.113.53")
	portalAddr = netip.MustParseAddr("203.0.113.200") // nobody serves there
)

// resolverKind is what a resolver answers to q over a network; nil is silence.
type resolverKind func(network string, q *dns.Msg) *dns.Msg

// record is an answer with these records in zone file form; %s stands for the
// name asked. What is of another type than asked is left out.
func record(texts ...string) resolverKind {
	return func(_ string, q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.Compress = true
		for _, text := range texts {
			rr, err := dns.NewRR(strings.ReplaceAll(text, "%s", q.Question[0].Name))
			if err != nil {
				panic(err)
			}
			if kind := rr.Header().Rrtype; kind == q.Question[0].Qtype || kind == dns.TypeCNAME {
				m.Answer = append(m.Answer, rr)
			}
		}
		return m
	}
}

func rcode(code int) resolverKind {
	return func(_ string, q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, code) }
}

func noAnswer(string, *dns.Msg) *dns.Msg { return nil }

// manyRecords has as many addresses as 64 KiB hold, none of them good.
func manyRecords(network string, q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	if m.Truncated, m.Compress = network == "udp", true; m.Truncated {
		return m
	}
	for i := range 4000 {
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
			A: net.IPv4(203, 1, byte(i>>8), byte(i))})
	}
	return m
}

// truncatedAlways says to come over TCP, where it says nothing.
func truncatedAlways(network string, q *dns.Msg) *dns.Msg {
	if network != "udp" {
		return nil
	}
	m := new(dns.Msg).SetReply(q)
	m.Truncated = true
	return m
}

// serveNames runs a resolver that does as kind says at the moment.
func serveNames(r *rig, kind *atomic.Pointer[resolverKind]) {
	host := r.net.Host(dnsAddr)
	pc, l := must(host.ListenPacket(53))(r.t), must(host.Listen(53))(r.t)
	for network, s := range map[string]*dns.Server{"udp": {PacketConn: pc}, "tcp": {Listener: l}} {
		s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			if m := (*kind.Load())(network, q); m != nil {
				w.WriteMsg(m)
			}
		})
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); s.ActivateAndServe() }()
		<-started
		r.t.Cleanup(func() { s.Shutdown(); <-done })
	}
	r.opts.Config.DNS = []netip.AddrPort{netip.AddrPortFrom(dnsAddr, 53)}
}

// dialsTo notes when the agent first dials the Access Server after reset.
type dialsTo struct{ first atomic.Int64 }

func (d *dialsTo) watch(r *rig) {
	dial := r.opts.DialContext
	r.opts.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == netip.AddrPortFrom(accessAddr, 443).String() {
			d.first.CompareAndSwap(0, time.Now().UnixNano())
		}
		return dial(ctx, network, address)
	}
}

// Whatever a resolver says, the agent goes on by an address that worked before,
// or by one that the configuration names beside the host.
func TestAgentConnectsWhateverAResolverSays(t *testing.T) {
	const joins = 1800 * time.Millisecond // wire §8
	for _, tt := range []struct {
		id, name string
		lies     resolverKind
		within   time.Duration
	}{
		{"D2", "truncated, and silent over TCP", truncatedAlways, 5 * time.Second},
		{"D2", "server failure", rcode(dns.RcodeServerFailure), 5 * time.Second},
		{"D2", "format error", rcode(dns.RcodeFormatError), 5 * time.Second},
		{"D3", "no such name", rcode(dns.RcodeNameError), 5 * time.Second},
		{"D3", "hijacked, refused there", record("%s 60 A " + portalAddr.String()), 5 * time.Second},
		{"D3", "hijacked, silent there", record("%s 60 A 203.0.113.201"), 5 * time.Second},
		{"D3", "loopback", record("%s 60 A 127.0.0.1", "%s 60 AAAA ::1"), 5 * time.Second},
		{"D3", "empty", record(), 5 * time.Second},
		{"D3", "alias loop", record("%s 60 CNAME b.example.", "b.example. 60 CNAME %s"), 5 * time.Second},
		{"D3", "thousands of records", manyRecords, 5 * time.Second},
		{"D6", "silent", noAnswer, joins},
	} {
		for _, known := range []string{"last good", "configured"} {
			t.Run(tt.name+", by the "+known+" address", func(t *testing.T) {
				t.Attr("id", tt.id)
				bubble(t, func(r *rig) {
					var kind atomic.Pointer[resolverKind]
					good := record("%s 60 A " + accessAddr.String())
					kind.Store(&good)
					serveNames(r, &kind)
					r.net.Host(portalAddr)
					r.net.Firewall(func(_ netip.Addr, to netip.AddrPort) memnet.Verdict {
						if to.Addr() != accessAddr && to.Addr() != dnsAddr && to.Addr() != portalAddr {
							return memnet.Drop
						}
						return memnet.Pass
					})
					var dials dialsTo
					dials.watch(r)
					r.opts.Config.Access = []string{accessHost}
					r.enrollNow()
					if known == "last good" {
						p := r.start()
						p.await(StateAttached, time.Second)
						p.stop(time.Second)
					} else {
						r.opts.Config.Access = append(r.opts.Config.Access, accessAddr.String())
					}
					kind.Store(&tt.lies)
					dials.first.Store(0)
					begin := time.Now()
					p := r.start()
					p.await(StateAttached, tt.within+time.Second)
					took := time.Unix(0, dials.first.Load()).Sub(begin)
					if took > min(tt.within, joins) {
						t.Errorf("dialled after %v, want %v", took, min(tt.within, joins))
					}
					if all := time.Since(begin); all > tt.within+time.Second {
						t.Errorf("attached after %v", all)
					}
					p.stop(time.Second)
				})
			})
		}
	}
}
