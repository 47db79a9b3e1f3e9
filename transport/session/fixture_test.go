package session

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/wire"
)

var (
	relayAddr   = netip.MustParseAddr("192.0.2.1")
	runtimeAddr = netip.MustParseAddr("198.51.100.7")
	managerAddr = netip.MustParseAddr("203.0.113.5")
	relayName   = identity.RelayName("r1")
	userName    = identity.UserName("plant", "ann")
	deviceName  = identity.DeviceName("plant", identity.UID{1})
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// infra is an infrastructure's authorities.
type infra struct {
	issuing *identity.Authority
	roots   *identity.Roots
}

func newInfra() infra {
	before := time.Now().Add(-48 * time.Hour)
	root := must(identity.NewRoot(must(identity.NewKey()), before))
	return infra{must(root.NewIssuing(must(identity.NewKey()), before)), must(identity.NewRoots(root.Cert))}
}

// cert certifies a new key until so long from now.
func (in infra) cert(name identity.Name, until time.Duration) tls.Certificate {
	key := must(identity.NewKey())
	chain := must(in.issuing.Issue(identity.Request{Name: name, Pub: key.Public(),
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(until)}))
	c := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// site is a Runtime and a Manager that have offers for each other, and a relay that is made by hand. It needs no
// bubble, but its network and all that waits live in one if it is made there.
type site struct {
	tb      testing.TB
	in      infra
	net     *memnet.Network
	runtime Config
	manager Config
	answer  *wire.Refusal // of the relay to every join; nil: it pairs
	tamper  func(toRuntime bool, b []byte) []byte
	mu      sync.Mutex // guards all below
	carried int        // bytes so far
}

func newSite(tb testing.TB) *site {
	// Yamux keeps timers in a sync.Pool of the process, and one of another bubble is fatal in this. A pool is empty
	// after two collections.
	runtime.GC()
	runtime.GC()
	s := &site{tb: tb, in: newInfra(), net: memnet.New()}
	s.tamper = func(_ bool, b []byte) []byte { return b }
	device, user := s.in.cert(deviceName, 24*time.Hour), s.in.cert(userName, 24*time.Hour)
	s.runtime = s.config(runtimeAddr, device, wire.Offer{Role: wire.RoleRuntime, Peer: userName.String(), PeerSPKI: identity.CertSPKI(user.Leaf)})
	s.manager = s.config(managerAddr, user, wire.Offer{Role: wire.RoleManager, Peer: deviceName.String(), PeerSPKI: identity.CertSPKI(device.Leaf)})
	s.relay()
	return s
}

func (s *site) config(addr netip.Addr, own tls.Certificate, o wire.Offer) Config {
	o.Session, o.Epoch, o.Grant, o.Crypto = "s", 1, string(o.Role), wire.CryptoNested
	o.Relay = wire.Relay{Name: relayName.ID, Hosts: []string{relayAddr.String()}, Ports: []transport.Port{443}}
	d := &transport.Dialer{DialContext: s.net.Host(addr).DialContext, Certificate: func() *tls.Certificate { return &own }}
	return Config{Dialer: d, Certificate: own, Roots: s.in.roots, Offer: o}
}

// relay pairs the Runtime and the Manager, which it knows by their grants.
func (s *site) relay() {
	l := must(s.net.Host(relayAddr).Listen(443))
	config := &tls.Config{Certificates: []tls.Certificate{s.in.cert(relayName, 24*time.Hour)}, NextProtos: []string{transport.ALPNRelay}}
	ends := map[string]chan *tls.Conn{"runtime": make(chan *tls.Conn, 1), "manager": make(chan *tls.Conn, 1)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			tcp, err := l.Accept()
			if err != nil {
				close(ends["runtime"])
				close(ends["manager"])
				return
			}
			conn := tls.Server(tcp, config)
			if grant := s.joins(conn); grant != "" {
				ends[grant] <- conn
			} else {
				conn.Close()
			}
		}
	})
	all.Go(func() {
		r, ok1 := <-ends["runtime"]
		m, ok2 := <-ends["manager"]
		if ok1 && ok2 {
			wire.Write(r, wire.TypePaired, nil)
			wire.Write(m, wire.TypePaired, nil)
			var both sync.WaitGroup
			both.Go(func() { s.move(r, m, true) })
			both.Go(func() { s.move(m, r, false) })
			both.Wait()
		}
		if ok1 {
			r.Close()
		}
		if ok2 {
			m.Close()
		}
	})
	s.tb.Cleanup(func() {
		l.Close()
		all.Wait()
	})
}

// joins reads a join and returns its grant, empty when the relay does not want it.
func (s *site) joins(conn *tls.Conn) string {
	f, err := wire.Expect(conn, wire.TypeJoin)
	var j wire.Join
	if err != nil || f.Decode(&j) != nil {
		return ""
	}
	if s.answer != nil {
		wire.Refuse(conn, s.answer)
		return ""
	}
	return j.Grant
}

// move forwards and, when there is nothing more, closes the other side. One that
// takes nothing more may have said why: that is left to the other direction.
func (s *site) move(to, from *tls.Conn, toRuntime bool) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		s.mu.Lock()
		s.carried += n
		s.mu.Unlock()
		if out := s.tamper(toRuntime, b[:n]); len(out) > 0 {
			if _, err := to.Write(out); err != nil {
				return
			}
		}
		if err != nil {
			to.Close()
			return
		}
	}
}

// joined is what Join gave both ends.
type joined struct {
	runtime, manager       *Session
	runtimeErr, managerErr error
}

func (s *site) join(ctx context.Context) (j joined) {
	var both sync.WaitGroup
	both.Go(func() { j.runtime, j.runtimeErr = Join(ctx, s.runtime) })
	both.Go(func() { j.manager, j.managerErr = Join(ctx, s.manager) })
	both.Wait()
	return j
}

// up joins both ends, and closes them at the end of the bubble. The Runtime gives each stream to serve.
func (s *site) up(serve func(*Stream, wire.Open)) (runtime, manager *Session) {
	s.tb.Helper()
	j := s.join(s.tb.Context())
	if j.runtimeErr != nil || j.managerErr != nil {
		s.tb.Fatal(j.runtimeErr, j.managerErr)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			stream, err := j.runtime.Accept(context.Background())
			if err != nil {
				return
			}
			all.Go(func() {
				if header, err := stream.Header(); err == nil && serve != nil {
					serve(stream, header)
				}
			})
		}
	})
	s.tb.Cleanup(func() {
		j.manager.Close()
		j.runtime.Close()
		all.Wait()
	})
	return j.runtime, j.manager
}

// echo sends back what it gets, until the end.
func echo(s *Stream, _ wire.Open) {
	s.Grant()
	io.Copy(s, struct{ io.Reader }{s})
	s.CloseWrite()
}

// tcpPair is a connection between two hosts of its own.
func (s *site) tcpPair() (here, there Half) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	l := must(s.net.Host(b).Listen(0))
	defer l.Close()
	c := must(s.net.Host(a).DialContext(s.tb.Context(), "tcp", netip.AddrPortFrom(b, uint16(l.Addr().(*net.TCPAddr).Port)).String()))
	return c.(Half), must(l.Accept()).(Half)
}
