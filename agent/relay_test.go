package agent

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/session"
	"hawser/transport/wire"
)

var (
	relayAddr   = netip.MustParseAddr("192.0.2.2")
	managerAddr = netip.MustParseAddr("203.0.113.9")
	machineAddr = netip.MustParseAddr("192.168.10.20")
)

// fakeRelay pairs the two connections that join with the same grant, and
// believes every grant. The real one is met in internal/e2e.
type fakeRelay struct {
	mu      sync.Mutex // guards all below
	waiting map[string]*tls.Conn
	conns   []net.Conn
	tasks   sync.WaitGroup
}

func (r *rig) relay() *fakeRelay {
	f := &fakeRelay{waiting: map[string]*tls.Conn{}}
	cert := r.access.in.holder(r.t, identity.RelayName("r1"), time.Now())
	l := must(r.net.Host(relayAddr).Listen(443))(r.t)
	f.tasks.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			f.tasks.Go(func() {
				f.serve(tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
					Certificates: []tls.Certificate{cert}, NextProtos: []string{transport.ALPNRelay}, SessionTicketsDisabled: true}))
			})
		}
	})
	r.t.Cleanup(func() {
		l.Close()
		f.cut()
		f.tasks.Wait()
	})
	return f
}

// cut breaks all that runs over the relay.
func (f *fakeRelay) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
}

func (f *fakeRelay) serve(c *tls.Conn) {
	frame, err := wire.Expect(c, wire.TypeJoin)
	var m wire.Join
	if err != nil || frame.Decode(&m) != nil {
		c.NetConn().Close()
		return
	}
	f.mu.Lock()
	other := f.waiting[m.Grant]
	f.waiting[m.Grant] = c
	f.mu.Unlock()
	if other == nil {
		return // the second one serves both
	}
	wire.Write(c, wire.TypePaired, nil)
	wire.Write(other, wire.TypePaired, nil)
	var both sync.WaitGroup
	for _, p := range [][2]*tls.Conn{{c, other}, {other, c}} {
		both.Go(func() {
			io.Copy(p[0], p[1])
			p[0].Close()
		})
	}
	both.Wait()
}

// manager is the other end of sessions: the real transport/session.
type manager struct {
	r      *rig
	cert   tls.Certificate
	dialer *transport.Dialer
}

func (r *rig) manager() *manager {
	m := &manager{r: r, cert: r.access.in.holder(r.t, identity.UserName("plant", "ann"), time.Now())}
	m.dialer = &transport.Dialer{DialContext: r.net.Host(managerAddr).DialContext, Certificate: func() *tls.Certificate { return &m.cert }}
	return m
}

// offers are the two offers of a session with this gateway.
func (m *manager) offers(id string, device identity.SPKI, permissions ...string) (runtime, own wire.Offer) {
	base := wire.Offer{Session: id, Epoch: 1, Grant: "grant-" + id, Crypto: wire.CryptoNested, Permissions: permissions, User: "ann",
		Relay: wire.Relay{Name: "r1", Hosts: []string{relayAddr.String()}, Ports: []transport.Port{443}}}
	runtime, own = base, base
	runtime.Role, runtime.Peer, runtime.PeerSPKI = wire.RoleRuntime, identity.UserName("plant", "ann").String(), identity.CertSPKI(m.cert.Leaf)
	own.Role, own.Peer, own.PeerSPKI = wire.RoleManager, testName.String(), device
	return runtime, own
}

// open opens a session with an agent that is attached over l.
func (m *manager) open(l *link, p *process, id string, permissions ...string) *session.Session {
	m.r.t.Helper()
	runtime, own := m.offers(id, p.self.Load().SPKI, permissions...)
	if reason := l.offer(m.r, runtime); reason != "" {
		m.r.t.Fatalf("offer %s: %s", id, reason)
	}
	s, err := session.Join(m.r.t.Context(), session.Config{Dialer: m.dialer, Certificate: m.cert, Roots: m.r.access.in.roots, Offer: own})
	if err != nil {
		m.r.t.Fatalf("join: %v; log:\n%s", err, m.r.notes)
	}
	m.r.t.Cleanup(func() { s.Close() })
	return s
}

// offer sends an offer and returns the reason of its answer.
func (l *link) offer(r *rig, o wire.Offer) transport.Reason {
	r.t.Helper()
	if err := wire.WriteJSON(l, wire.TypeOffer, o); err != nil {
		r.t.Fatal(err)
	}
	var ack wire.OfferAck
	l.next(r, wire.TypeOfferAck, &ack)
	if ack.Session != o.Session {
		r.t.Errorf("answer for session %q, want %q", ack.Session, o.Session)
	}
	return ack.Reason
}

// next waits for the next frame of the agent.
func (l *link) next(r *rig, want wire.Type, to any) {
	r.t.Helper()
	select {
	case f := <-l.frames:
		if f.Type != want {
			r.t.Fatalf("frame %#x, want %#x", f.Type, want)
		}
		if err := f.Decode(to); err != nil {
			r.t.Fatal(err)
		}
	case <-time.After(time.Minute):
		r.t.Fatalf("no frame %#x within a minute; log:\n%s", want, r.notes)
	}
}

// machine is a host on the LAN side that echoes on port 502, swallows on 503
// (and never ends its own direction) and refuses on all others.
func (r *rig) machine() {
	host := r.net.Host(machineAddr)
	var tasks sync.WaitGroup
	for port, serve := range map[uint16]func(net.Conn){
		502: func(c net.Conn) { io.Copy(c, c); c.Close() },
		503: func(c net.Conn) {
			io.Copy(io.Discard, c)
			r.t.Cleanup(func() { c.Close() })
		},
	} {
		l := must(host.Listen(port))(r.t)
		tasks.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				tasks.Go(func() { serve(c) })
			}
		})
		r.t.Cleanup(func() { l.Close() })
	}
}
