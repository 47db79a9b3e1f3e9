package agent

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/wire"
)

// The Access Server of these tests is a fake, made by hand of frames and
// certificates: the real one cannot be told to lie, to stay silent or to refuse
// a good client. The real one is met in internal/e2e.

var accessAddr = netip.MustParseAddr("192.0.2.1")

func must[T any](v T, err error) func(testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

// infra is the authorities of one infrastructure.
type infra struct {
	root, issuing *identity.Authority
	roots         *identity.Roots
	timeKey       crypto.Signer
	timeCert      *x509.Certificate
}

func newInfra(t testing.TB, now time.Time) *infra {
	t.Helper()
	in := &infra{timeKey: must(identity.NewKey())(t)}
	in.root = must(identity.NewRoot(must(identity.NewKey())(t), now))(t)
	in.issuing = must(in.root.NewIssuing(must(identity.NewKey())(t), now))(t)
	in.roots = must(identity.NewRoots(in.root.Cert))(t)
	in.timeCert = must(in.root.CertifyTimeKey(identity.AccessName("a1"), in.timeKey.Public(), now))(t)
	return in
}

func (in *infra) issue(t testing.TB, name identity.Name, pub crypto.PublicKey, from, to time.Time) []*x509.Certificate {
	t.Helper()
	return must(in.issuing.Issue(identity.Request{Name: name, Pub: pub, NotBefore: from, NotAfter: to}))(t)
}

// holder is a certificate with its key, valid for 30 days around now.
func (in *infra) holder(t testing.TB, name identity.Name, now time.Time) tls.Certificate {
	t.Helper()
	key := must(identity.NewKey())(t)
	chain := in.issue(t, name, key.Public(), now.Add(-time.Hour), now.Add(30*24*time.Hour))
	return tls.Certificate{Certificate: raw(chain), PrivateKey: key, Leaf: chain[0]}
}

// fakeAccess answers on one address. Its fields may be changed between
// connections, under mu.
type fakeAccess struct {
	t    testing.TB
	in   *infra
	host *memnet.Host
	leaf tls.Certificate

	mu       sync.Mutex                                             // guards all below
	now      func() time.Time                                       // its clock
	prelude  *wire.Refusal                                          // instead of the signed time
	reset    []byte                                                 // a floor reset before it; nil: none
	welcome  wire.Welcome                                           // answer to hello, unless
	refusal  *wire.Refusal                                          // is not nil
	identify func(wire.Type, []byte) (wire.Identity, *wire.Refusal) // answer to enrol and renew, given the CSR
	heard    []wire.Frame                                           // all that clients sent
	conns    []*tls.Conn
	listener net.Listener
	tasks    sync.WaitGroup

	links  chan *link // those that were welcomed
	dialed int
}

// link is the server's end of a control connection.
type link struct {
	*tls.Conn
	hello  wire.Hello
	frames chan wire.Frame // what the client sent, but for pings
	ended  chan struct{}   // closed when the connection is over
}

func newFakeAccess(t testing.TB, in *infra, n *memnet.Network) *fakeAccess {
	f := &fakeAccess{t: t, in: in, host: n.Host(accessAddr), now: time.Now, links: make(chan *link, 100),
		welcome: wire.Welcome{HeartbeatS: 120}}
	f.leaf = f.certificate(time.Now().Add(-time.Hour), time.Now().Add(5*365*24*time.Hour))
	f.up()
	t.Cleanup(f.down)
	return f
}

func (f *fakeAccess) certificate(from, to time.Time) tls.Certificate {
	key := must(identity.NewKey())(f.t)
	chain := f.in.issue(f.t, identity.AccessName("a1"), key.Public(), from, to)
	return tls.Certificate{Certificate: raw(chain), PrivateKey: key, Leaf: chain[0]}
}

func (f *fakeAccess) up() {
	l := must(f.host.Listen(443))(f.t)
	f.set(func() { f.listener = l })
	f.tasks.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conn := tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert,
				SessionTicketsDisabled: true, NextProtos: []string{transport.ALPNAccess},
				GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
					f.mu.Lock()
					defer f.mu.Unlock()
					return &f.leaf, nil
				}})
			f.set(func() { f.conns = append(f.conns, conn); f.dialed++ })
			f.tasks.Go(func() { f.serve(conn) })
		}
	})
}

// down closes the server and all its connections, and waits for its goroutines.
func (f *fakeAccess) down() {
	f.mu.Lock()
	f.listener.Close()
	for _, c := range f.conns {
		c.NetConn().Close()
	}
	f.conns = nil
	f.mu.Unlock()
	f.tasks.Wait()
}

// set changes how the server answers from now on.
func (f *fakeAccess) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeAccess) read(c net.Conn) (wire.Frame, error) {
	frame, err := wire.Read(c)
	if err == nil {
		f.set(func() { f.heard = append(f.heard, frame) })
	}
	return frame, err
}

func (f *fakeAccess) types() (list []wire.Type) {
	f.set(func() {
		for _, h := range f.heard {
			list = append(list, h.Type)
		}
	})
	return list
}

func (f *fakeAccess) dials() (n int) {
	f.set(func() { n = f.dialed })
	return n
}

func (f *fakeAccess) saw(b []byte) (found bool) {
	f.set(func() {
		found = slices.ContainsFunc(f.heard, func(h wire.Frame) bool { return bytes.Contains(h.Payload, b) })
	})
	return found
}

func (f *fakeAccess) serve(c *tls.Conn) {
	defer c.NetConn().Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	ask, err := f.read(c)
	if err != nil || ask.Type != wire.TypeTimeRequest || len(ask.Payload) != wire.TimeRequestBytes {
		return
	}
	if !f.tellTime(c, ask) {
		return
	}
	frame, err := f.read(c)
	if err != nil {
		return
	}
	switch frame.Type {
	case wire.TypeEnrol, wire.TypeRenew:
		f.answer(c, frame)
	case wire.TypeHello:
		f.control(c, frame)
	}
}

func (f *fakeAccess) tellTime(c net.Conn, ask wire.Frame) bool {
	f.mu.Lock()
	now, refusal, reset := f.now(), f.prelude, f.reset
	f.mu.Unlock()
	if reset != nil && ask.Type == wire.TypeTimeRequest {
		wire.Write(c, wire.TypeFloorReset, reset)
	}
	if refusal != nil {
		wire.Refuse(c, refusal)
		return false
	}
	q := wire.TimeRequest(ask.Payload)
	signed := must(identity.SignedTime{Nonce: q.Nonce(), Time: now, UID: q.UID(), Server: identity.CertSPKI(f.leaf.Leaf)}.Sign(f.in.timeKey, f.in.timeCert))(f.t)
	return wire.Write(c, wire.TypeTime, signed) == nil
}

func (f *fakeAccess) answer(c net.Conn, frame wire.Frame) {
	var m wire.Enrol // a Renew is one without a code
	if frame.Decode(&m) != nil {
		return
	}
	f.mu.Lock()
	identify := f.identify
	f.mu.Unlock()
	id, refusal := identify(frame.Type, m.CSR)
	if refusal != nil {
		wire.Refuse(c, refusal)
		return
	}
	wire.WriteJSON(c, wire.TypeIdentity, id)
}

func (f *fakeAccess) control(c *tls.Conn, frame wire.Frame) {
	f.mu.Lock()
	welcome, refusal := f.welcome, f.refusal
	f.mu.Unlock()
	l := &link{Conn: c, frames: make(chan wire.Frame, 1000), ended: make(chan struct{})}
	defer close(l.ended)
	frame.Decode(&l.hello)
	if refusal != nil {
		wire.Refuse(c, refusal)
		return
	}
	c.SetDeadline(time.Time{})
	wire.WriteJSON(c, wire.TypeWelcome, welcome)
	f.links <- l
	for {
		frame, err := f.read(c)
		if err != nil {
			return
		}
		switch frame.Type {
		case wire.TypePing:
			wire.Write(c, wire.TypePong, nil)
		case wire.TypeTimeAgain:
			f.tellTime(c, frame)
		default:
			l.frames <- frame
		}
	}
}

// certify makes the server issue certificates of this name for any CSR, valid
// for life from now.
func (f *fakeAccess) certify(name identity.Name, life time.Duration) {
	f.set(func() {
		f.identify = func(_ wire.Type, csr []byte) (wire.Identity, *wire.Refusal) {
			return f.identity(name, csr, life), nil
		}
	})
}

func (f *fakeAccess) identity(name identity.Name, csr []byte, life time.Duration) wire.Identity {
	now := f.now()
	chain := f.in.issue(f.t, name, must(identity.ParseCSR(csr))(f.t), now.Add(-time.Minute), now.Add(life))
	return wire.Identity{Chain: string(identity.MarshalChain(chain)), Domain: name.Domain, UID: must(identity.ParseUID(name.ID))(f.t), Name: "gateway 7"}
}
