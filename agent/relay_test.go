package agent

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/mux"
	"hawser/transport/session"
	"hawser/transport/wire"
)

var (
	relayAddr   = netip.MustParseAddr("192.0.2.2")
	managerAddr = netip.MustParseAddr("203.0.113.9")
	machineAddr = netip.MustParseAddr("192.168.10.20")
)

// manager is the other end of sessions: the real transport/session.
type manager struct {
	r      *rig
	name   identity.Name
	cert   tls.Certificate
	dialer *transport.Dialer
	hello  mux.Hello // what it says of its owner: an operator whose scope is everything
}

func (r *rig) manager() *manager {
	m := &manager{r: r, name: identity.UserName("plant", "ann")}
	m.cert = r.access.PKI.Leaf(m.name, -time.Hour, 30*day)
	m.dialer = &transport.Dialer{DialContext: r.net.Host(managerAddr).DialContext, Certificate: func() *tls.Certificate { return &m.cert }}
	m.hello = mux.Hello{Statements: r.owner.UserChain("ann", identity.RoleOperator, nil, m.cert.Leaf.PublicKey)}
	return m
}

// offers are the two offers of a session with this gateway.
func (m *manager) offers(id string, device identity.SPKI, permissions ...string) (runtime, own wire.Offer) {
	base := wire.Offer{Session: id, Epoch: 1, Grant: "grant-" + id, Permissions: permissions, User: "ann",
		Relay: wire.Relay{Name: "r1", Hosts: []string{relayAddr.String()}, Ports: []transport.Port{443}}}
	runtime, own = base, base
	runtime.Role, runtime.Peer, runtime.PeerSPKI = wire.RoleRuntime, m.name.String(), identity.CertSPKI(m.cert.Leaf)
	own.Role, own.Peer, own.PeerSPKI = wire.RoleManager, testName.String(), device
	return runtime, own
}

// open opens a session with an agent that is attached over l.
func (m *manager) open(l *accesstest.Link, p *process, id string, permissions ...string) *session.Session {
	m.r.t.Helper()
	runtime, own := m.offers(id, p.self.Load().SPKI, permissions...)
	if reason := m.r.offer(l, runtime); reason != "" {
		m.r.t.Fatalf("offer %s: %s", id, reason)
	}
	s, err := m.join(own)
	if err != nil {
		m.r.t.Fatalf("join: %v; log:\n%s", err, m.r.notes)
	}
	m.r.t.Cleanup(func() { s.Close() })
	return s
}

// join joins the session of an offer.
func (m *manager) join(own wire.Offer) (*session.Session, error) {
	return session.Join(m.r.t.Context(), session.Config{Dialer: m.dialer, Certificate: m.cert, Roots: m.r.access.PKI.Roots, Offer: own, Hello: m.hello})
}

// offer sends an offer and returns the reason of its answer.
func (r *rig) offer(l *accesstest.Link, o wire.Offer) transport.Reason {
	r.t.Helper()
	if err := wire.WriteJSON(l, wire.TypeOffer, o); err != nil {
		r.t.Fatal(err)
	}
	var ack wire.OfferAck
	r.next(l, wire.TypeOfferAck, &ack)
	if ack.Session != o.Session {
		r.t.Errorf("answer for session %q, want %q", ack.Session, o.Session)
	}
	return ack.Reason
}

// next waits for the next frame of the agent.
func (r *rig) next(l *accesstest.Link, want wire.Type, to any) {
	r.t.Helper()
	select {
	case f := <-l.Frames:
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
	for port, serve := range map[uint16]func(net.Conn){
		502: func(c net.Conn) { io.Copy(c, c) },
		503: func(c net.Conn) {
			io.Copy(io.Discard, c)
			<-r.t.Context().Done()
		},
	} {
		r.t.Cleanup(must(r.net.Host(machineAddr).Serve(port, serve))(r.t).Stop)
	}
}
