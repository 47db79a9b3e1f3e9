package control

import (
	"context"
	"crypto/tls"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/wire"
)

var (
	clientAddr = netip.MustParseAddr("198.51.100.7")
	serverAddr = netip.MustParseAddr("192.0.2.1")
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// site is a bubble with one client and a fake Access Server.
type site struct {
	t      *testing.T
	net    *memnet.Network
	pki    *identitytest.PKI
	access *accesstest.Server
	client *Client
	clock  *clock
}

// clock is a Clock that keeps what it was told.
type clock struct {
	mu        sync.Mutex // guards all below
	floor     time.Time  // zero: now
	authentic bool
	refuse    error
	signed    []identity.SignedTime
	rtt       time.Duration
}

func (c *clock) Floor() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.floor.IsZero() {
		return time.Now(), c.authentic
	}
	return c.floor, c.authentic
}

func (c *clock) Signed(t identity.SignedTime, rtt time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse != nil {
		return c.refuse
	}
	c.signed, c.rtt = append(c.signed, t), rtt
	return nil
}

func newSite(t *testing.T) *site {
	s := &site{t: t, net: memnet.New(), pki: identitytest.New(time.Now()), clock: &clock{authentic: true}}
	s.access = accesstest.New(t, s.pki, s.net.Host(serverAddr))
	s.access.Leaf = s.issue(-time.Hour, 30*24*time.Hour)
	t.Cleanup(s.access.Stop) // hangs when the client leaves a connection open
	s.client = &Client{
		Dialer: &transport.Dialer{DialContext: s.net.Host(clientAddr).DialContext},
		Hosts:  []string{serverAddr.String()}, Ports: []transport.Port{443},
		Roots: s.pki.Roots, UID: identity.NewUID(), Clock: s.clock,
	}
	return s
}

// issue certifies a new key for the server, from and until so long from now.
func (s *site) issue(from, until time.Duration) tls.Certificate {
	return s.pki.Leaf(s.pki.Access, from, until)
}

// serve runs script on each connection whose TLS is up.
func (s *site) serve(script func(*tls.Conn)) { s.access.Script = script }

// link connects, says hello, and returns the link.
func (s *site) link(ctx context.Context) *Link {
	s.t.Helper()
	conn, err := s.client.Connect(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := conn.Control(ctx, wire.Hello{Version: "1", Instance: "00"})
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// got lists the frames of a type that the server got, and forgets all.
func (s *site) got(t wire.Type) []accesstest.Frame {
	defer s.access.Forget()
	return s.access.Heard(t)
}

// run runs the link beside the test; wait gives when it ended, and its error.
func run(ctx context.Context, l *Link, h Handler) (wait func() (time.Time, error)) {
	var err error
	var at time.Time
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = l.Run(ctx, h)
		at = time.Now()
	}()
	return func() (time.Time, error) {
		<-done
		return at, err
	}
}
