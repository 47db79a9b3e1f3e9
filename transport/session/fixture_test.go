package session

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/relaytest"
	"hawser/transport/wire"
)

const silence = 9 * time.Second // session §3.6

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

// cert certifies a new key until so long from now.
func cert(pki *identitytest.PKI, name identity.Name, until time.Duration) tls.Certificate {
	return pki.Leaf(name, -24*time.Hour, until)
}

// site is a Runtime and a Manager that have offers for each other, and a fake relay. It needs no
// bubble, but its network and all that waits live in one if it is made there.
type site struct {
	tb      testing.TB
	pki     *identitytest.PKI
	net     *memnet.Network
	runtime Config
	manager Config
	relay   *relaytest.Relay
}

func newSite(tb testing.TB) *site {
	s := &site{tb: tb, pki: identitytest.New(time.Now()), net: memnet.New()}
	device, user := cert(s.pki, deviceName, 24*time.Hour), cert(s.pki, userName, 24*time.Hour)
	s.runtime = s.config(runtimeAddr, device, wire.Offer{Role: wire.RoleRuntime, Peer: userName.String(), PeerSPKI: identity.CertSPKI(user.Leaf)})
	s.manager = s.config(managerAddr, user, wire.Offer{Role: wire.RoleManager, Peer: deviceName.String(), PeerSPKI: identity.CertSPKI(device.Leaf)})
	s.relay = relaytest.New(tb, s.pki, s.net.Host(relayAddr), relayName.ID)
	tb.Cleanup(s.relay.Stop) // hangs when a session leaves its connection open
	return s
}

func (s *site) config(addr netip.Addr, own tls.Certificate, o wire.Offer) Config {
	o.Session, o.Epoch, o.Grant = "s", 1, "grant"
	o.Relay = wire.Relay{Name: relayName.ID, Hosts: []string{relayAddr.String()}, Ports: []transport.Port{443}}
	d := &transport.Dialer{DialContext: s.net.Host(addr).DialContext, Certificate: func() *tls.Certificate { return &own }}
	return Config{Dialer: d, Certificate: own, Roots: s.pki.Roots, Offer: o, Budget: mux.NewBudget(64 << 20)}
}

// joined is what Join gave both ends.
type joined struct {
	runtime, manager       *Session
	runtimeErr, managerErr error
}

func (s *site) join(ctx context.Context) (j joined) {
	var both sync.WaitGroup
	both.Go(func() { j.runtime, j.runtimeErr = Join(ctx, s.runtime) })
	both.Go(func() {
		if j.manager, j.managerErr = Join(ctx, s.manager); j.managerErr != nil {
			return
		}
		if j.managerErr = j.manager.Ready(ctx); j.managerErr != nil {
			j.manager.Close()
			j.manager = nil
		}
	})
	both.Wait()
	return j
}

// up joins both ends, and closes them at the end of the bubble. The Runtime gives each stream to serve.
func (s *site) up(serve func(*mux.Stream, mux.Open)) (runtime, manager *Session) {
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
				if serve != nil {
					serve(stream, stream.Asked())
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
func echo(s *mux.Stream, _ mux.Open) {
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
