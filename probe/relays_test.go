package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/wire"
)

// pool is a few fake relays, made by hand to do what a real one never does, and
// a client that measures them over a network in memory.
type pool struct {
	*rig
	pki    *identitytest.PKI
	dialer *transport.Dialer
	relays []wire.Relay

	mu     sync.Mutex     // guards what follows
	frames map[string]int // that each relay was sent
}

const hop = 10 * time.Millisecond // of a packet, one way, in a pool

// inPool runs f in a bubble; there are no relays yet.
func inPool(t *testing.T, f func(p *pool)) {
	t.Helper()
	bubble(t, func(r *rig) {
		r.net.SetLatency(hop)
		p := &pool{rig: r, frames: map[string]int{}, pki: identitytest.New(time.Now())}
		user := p.certified(identity.UserName("default", "ann"))
		client := r.net.Host(netip.MustParseAddr("192.0.2.100"))
		p.dialer = &transport.Dialer{DialContext: client.DialContext, Certificate: func() *tls.Certificate { return &user }}
		f(p)
	})
}

// certified certifies a new key for now.
func (p *pool) certified(name identity.Name) tls.Certificate {
	return p.pki.Leaf(name, -time.Hour, time.Hour)
}

// An answer is what a fake relay does with the frame of a number, from 1; an error
// closes the connection.
type answer func(c net.Conn, n int, payload []byte) error

// sendBack is what a relay should do.
func sendBack(c net.Conn, _ int, payload []byte) error { return wire.Write(c, wire.TypeEcho, payload) }

// frame does something to one frame and sends the others back.
func frame(number int, odd answer) answer {
	return func(c net.Conn, n int, payload []byte) error {
		if n == number {
			return odd(c, n, payload)
		}
		return sendBack(c, n, payload)
	}
}

func swallow(net.Conn, int, []byte) error { return nil }

func alter(c net.Conn, _ int, payload []byte) error {
	payload[len(payload)-1] ^= 1
	return wire.Write(c, wire.TypeEcho, payload)
}

// after delays what a relay does.
func after(d time.Duration, do answer) answer {
	return func(c net.Conn, n int, payload []byte) error {
		time.Sleep(d) // of the bubble
		return do(c, n, payload)
	}
}

// relay adds one with the name r1, r2…, which shows a certificate for shown.
func (p *pool) relay(shown string, do answer) {
	p.t.Helper()
	n := len(p.relays) + 1
	name, addr := fmt.Sprintf("r%d", n), netip.AddrFrom4([4]byte{203, 0, 113, byte(n)})
	p.relays = append(p.relays, wire.Relay{Name: name, Hosts: []string{addr.String()}, Ports: []transport.Port{443}})
	config := identitytest.ServerConfig(p.certified(identity.RelayName(shown)), transport.ALPNRelay)
	config.ClientAuth = tls.RequireAnyClientCert
	relay, err := p.net.Host(addr).Serve(443, func(c net.Conn) { p.serve(name, tls.Server(c, config), do) })
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(relay.Stop)
}

func (p *pool) serve(name string, c *tls.Conn, do answer) {
	for n := 1; ; n++ {
		f, err := wire.Expect(c, wire.TypeEcho)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.frames[name]++
		p.mu.Unlock()
		if do(c, n, f.Payload) != nil {
			return
		}
	}
}

// measure measures all, and checks how long it took.
func (p *pool) measure(ctx context.Context, took time.Duration) []wire.Measurement {
	p.t.Helper()
	begin := time.Now()
	all := MeasureRelays(ctx, p.dialer, p.pki.Roots, p.relays)
	if d := time.Since(begin); d != took {
		p.t.Errorf("took %v, want %v", d, took)
	}
	return all
}

const (
	opens = 4 * hop // TCP and TLS
	trip  = 2 * hop
)

// numbers is the measurement of r1 that worked.
func numbers(rtt, jitter time.Duration, lossPct int) wire.Measurement {
	return wire.Measurement{Name: "r1", RTTUS: rtt.Microseconds(), JitterUS: jitter.Microseconds(), LossPct: lossPct, Port: 443, Way: "direct"}
}

func because(reason transport.Reason) wire.Measurement {
	return wire.Measurement{Name: "r1", Reason: reason}
}

// A relay that only a proxy leads to is measured through it, as a session goes.
func TestRelayIsMeasuredThroughAProxy(t *testing.T) {
	inPool(t, func(p *pool) {
		p.relay("r1", sendBack)
		relay := netip.MustParseAddr(p.relays[0].Hosts[0])
		host := p.net.Host(netip.MustParseAddr("192.0.2.7"))
		proxy, err := host.Serve(3128, func(c net.Conn) {
			if n, err := c.Read(make([]byte, 1024)); err != nil || n == 0 {
				return
			}
			far, err := host.DialContext(p.t.Context(), "tcp", netip.AddrPortFrom(relay, 443).String())
			if err != nil {
				return
			}
			defer far.Close()
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			var both sync.WaitGroup
			both.Go(func() { io.Copy(far, c); far.Close() })
			both.Go(func() { io.Copy(c, far); c.Close() })
			both.Wait()
		})
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(proxy.Stop)
		p.net.Firewall(func(from netip.Addr, to netip.AddrPort) memnet.Verdict {
			if to.Addr() == relay && from != netip.MustParseAddr("192.0.2.7") {
				return memnet.Reject
			}
			return memnet.Pass
		})
		setting, _, err := transport.ParseProxySetting([]string{"http://192.0.2.7:3128"})
		if err != nil {
			p.t.Fatal(err)
		}
		p.dialer.Proxies = setting.Source(nil)
		all := MeasureRelays(p.t.Context(), p.dialer, p.pki.Roots, p.relays)
		want := numbers(2*trip, 0, 0)
		want.Way = "proxy"
		if diff := cmp.Diff([]wire.Measurement{want}, all); diff != "" {
			p.t.Error(diff)
		}
	})
}

func TestRelayIsMeasuredAsItIs(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name string
		do   answer
		want wire.Measurement
		took time.Duration
	}{
		{"honest", sendBack, numbers(trip, 0, 0), opens + 5*trip},
		{"slow once", frame(3, after(40*ms, sendBack)), numbers(trip, 20*ms, 0), opens + 5*trip + 40*ms},
		{"slow always", after(7*ms, sendBack), numbers(trip+7*ms, 0, 0), opens + 5*(trip+7*ms)},
		{"loses one", frame(2, swallow), numbers(trip, 0, 20), opens + 4*trip + echoTimeout},
		{"loses the last", frame(5, swallow), numbers(trip, 0, 20), opens + 4*trip + echoTimeout},
		{"changes one", frame(4, alter), numbers(trip, 0, 20), opens + 5*trip},
		// The third frame waits behind the second, which comes back when nobody waits for it any more.
		{"answers one too late", frame(2, after(3*time.Second, sendBack)), numbers(trip, 2*time.Second/3, 20), opens + 3*trip + 3*time.Second + trip},
		{"changes all", alter, because(transport.Protocol), opens + 5*trip},
		{"never answers", swallow, because(transport.Timeout), opens + 5*echoTimeout},
		{"refuses", func(c net.Conn, _ int, _ []byte) error {
			wire.Refuse(c, &wire.Refusal{Reason: transport.Revoked})
			return errors.New("refused")
		}, because(transport.Revoked), opens + trip},
		{"speaks otherwise", func(c net.Conn, _ int, _ []byte) error { return wire.Write(c, wire.TypePong, nil) },
			because(transport.Protocol), opens + trip},
		{"dies under way", frame(4, func(net.Conn, int, []byte) error { return errors.New("killed") }),
			because(transport.Reset), opens + 4*trip},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inPool(t, func(p *pool) {
				p.relay("r1", tt.do)
				if diff := cmp.Diff([]wire.Measurement{tt.want}, p.measure(p.t.Context(), tt.took)); diff != "" {
					t.Errorf("measurement (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A relay that answers every frame with an earlier one has answered none.
func TestOldFramesAreNoAnswers(t *testing.T) {
	inPool(t, func(p *pool) {
		var first []byte
		p.relay("r1", func(c net.Conn, n int, payload []byte) error {
			if n == 1 {
				first = payload
				return nil
			}
			return wire.Write(c, wire.TypeEcho, first)
		})
		// The second waits in vain: what it gets is the first, too late. The others are changed.
		got := p.measure(p.t.Context(), opens+2*echoTimeout+3*trip)
		if diff := cmp.Diff([]wire.Measurement{because(transport.Protocol)}, got); diff != "" {
			t.Errorf("measurement (-want +got):\n%s", diff)
		}
	})
}

// The name is verified before a byte is sent.
func TestRelayOfAnotherNameGetsNothing(t *testing.T) {
	inPool(t, func(p *pool) {
		p.relay("r9", sendBack)
		got := p.measure(p.t.Context(), opens)
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if diff := cmp.Diff([]wire.Measurement{because(transport.WrongName)}, got); diff != "" || p.frames["r1"] != 0 {
			t.Errorf("%d frames, measurement (-want +got):\n%s", p.frames["r1"], diff)
		}
		t.Attr("id", "A1-refuse")
		t.Attr("cases", "1")
	})
}

func TestThreeRelaysAtOnce(t *testing.T) {
	inPool(t, func(p *pool) {
		for i := range 7 {
			do := sendBack
			if i < 6 {
				do = swallow
			}
			p.relay(fmt.Sprintf("r%d", i+1), do)
		}
		got := p.measure(p.t.Context(), 2*(opens+5*echoTimeout)+opens+5*trip)
		for i, m := range got {
			want := wire.Measurement{Name: fmt.Sprintf("r%d", i+1), Reason: transport.Timeout}
			if i == 6 {
				want = numbers(trip, 0, 0)
				want.Name = "r7"
			}
			if m != want {
				t.Errorf("measurement %d: %+v, want %+v", i, m, want)
			}
		}
		if len(got) != 7 {
			t.Errorf("%d measurements of 7", len(got))
		}
	})
}

// The search and the frames together have 15 s.
func TestARelayHasFifteenSeconds(t *testing.T) {
	inPool(t, func(p *pool) {
		p.relay("r1", swallow)
		addr := netip.MustParseAddr(p.relays[0].Hosts[0])
		p.relays[0].Hosts = []string{"r1.example"}
		p.dialer.Resolve = func(context.Context, string) ([]netip.Addr, error) {
			time.Sleep(8 * time.Second) // of the bubble
			return []netip.Addr{addr}, nil
		}
		got := p.measure(p.t.Context(), relayBudget)
		if diff := cmp.Diff([]wire.Measurement{because(transport.Timeout)}, got); diff != "" {
			t.Errorf("measurement (-want +got):\n%s", diff)
		}
	})
}

func TestUnreachableRelayHasAReason(t *testing.T) {
	inPool(t, func(p *pool) {
		p.relays = []wire.Relay{{Name: "r1", Hosts: []string{"203.0.113.1"}, Ports: []transport.Port{443}}}
		p.net.Host(netip.MustParseAddr("203.0.113.1"))
		if diff := cmp.Diff([]wire.Measurement{because(transport.Refused)}, p.measure(p.t.Context(), trip)); diff != "" {
			t.Errorf("measurement (-want +got):\n%s", diff)
		}
	})
}

// What was known when the caller gave up is returned, and nothing else.
func TestGivingUpKeepsWhatIsKnown(t *testing.T) {
	inPool(t, func(p *pool) {
		p.relay("r1", sendBack)
		p.relay("r2", swallow)
		p.relay("r3", swallow)
		p.relay("r4", swallow)
		p.relay("r5", swallow)
		ctx, cancel := context.WithTimeout(p.t.Context(), time.Second)
		defer cancel()
		if diff := cmp.Diff([]wire.Measurement{numbers(trip, 0, 0)}, p.measure(ctx, time.Second)); diff != "" {
			t.Errorf("measurements (-want +got):\n%s", diff)
		}
		if got := p.measure(ctx, 0); len(got) != 0 {
			t.Errorf("after the end: %+v", got)
		}
	})
}

func TestNoRelays(t *testing.T) {
	if got := MeasureRelays(t.Context(), nil, nil, nil); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestSummary(t *testing.T) {
	for _, tt := range []struct {
		trips       []time.Duration
		sent        int
		rtt, jitter time.Duration
		loss        int
	}{
		{[]time.Duration{7}, 1, 7, 0, 0},
		{[]time.Duration{7}, 5, 7, 0, 80},
		{[]time.Duration{10, 20}, 5, 15, 10, 60},
		{[]time.Duration{20, 10}, 2, 15, 10, 0},
		{[]time.Duration{10, 10, 10, 10, 10}, 5, 10, 0, 0},
		{[]time.Duration{10, 20, 10, 20, 10}, 5, 10, 10, 0},
		{[]time.Duration{50, 10, 30, 20, 40}, 5, 30, 22, 0}, // 40, 20, 10, 20
		{[]time.Duration{10, 11, 1000, 12}, 5, 11, 659, 20}, // one that stands out moves no median
		{[]time.Duration{1, 2}, 3, 1, 1, 33},
		{[]time.Duration{1}, 3, 1, 0, 67},
	} {
		before := append([]time.Duration{}, tt.trips...)
		rtt, jitter, loss := summarize(tt.trips, tt.sent)
		if rtt != tt.rtt || jitter != tt.jitter || loss != tt.loss {
			t.Errorf("%v of %d: %d, %d, %d %%, want %d, %d, %d %%", tt.trips, tt.sent, rtt, jitter, loss, tt.rtt, tt.jitter, tt.loss)
		}
		if !cmp.Equal(before, tt.trips) {
			t.Errorf("the argument was changed: %v", tt.trips)
		}
	}
}
