package control

import (
	"context"
	"crypto"
	"crypto/tls"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/wire"
)

var (
	clientAddr = netip.MustParseAddr("198.51.100.7")
	serverAddr = netip.MustParseAddr("192.0.2.1")
	accessName = identity.AccessName("a1")
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// site is a bubble with one client and an Access Server that is made by hand.
type site struct {
	t       *testing.T
	net     *memnet.Network
	host    *memnet.Host
	root    *identity.Authority
	issuing *identity.Authority
	timeKey crypto.Signer
	timeRaw func(identity.SignedTime) []byte // signs
	leaf    tls.Certificate
	client  *Client
	clock   *clock
	// askCertificate makes the server ask for the client's.
	askCertificate bool

	mu     sync.Mutex // guards all below
	after  []byte     // what the server got after its script
	frames []frame    // what the link's server got
	conn   *tls.Conn  // of the link's server
	mute   bool       // the link's server does not answer
}

// frame is what the server got, and when after the site was made.
type frame struct {
	wire.Frame
	at time.Time
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
	now := time.Now()
	root := must(identity.NewRoot(must(identity.NewKey()), now.Add(-48*time.Hour)))
	s := &site{t: t, net: memnet.New(), root: root, timeKey: must(identity.NewKey()), clock: &clock{authentic: true}}
	s.issuing = must(root.NewIssuing(must(identity.NewKey()), now.Add(-48*time.Hour)))
	cert := must(root.CertifyTimeKey(accessName, s.timeKey.Public(), now.Add(-48*time.Hour)))
	s.timeRaw = func(st identity.SignedTime) []byte { return must(st.Sign(s.timeKey, cert)) }
	s.leaf = s.issue(-time.Hour, 30*24*time.Hour)
	s.host = s.net.Host(serverAddr)
	s.client = &Client{
		Dialer: &transport.Dialer{DialContext: s.net.Host(clientAddr).DialContext},
		Hosts:  []string{serverAddr.String()}, Ports: []transport.Port{443},
		Roots: must(identity.NewRoots(root.Cert)), UID: identity.NewUID(), Clock: s.clock,
	}
	return s
}

// issue certifies a new key for the server, from and until so long from now.
func (s *site) issue(from, until time.Duration) tls.Certificate {
	return s.issueTo(accessName, from, until)
}

func (s *site) issueTo(name identity.Name, from, until time.Duration) tls.Certificate {
	key, now := must(identity.NewKey()), time.Now()
	chain := must(s.issuing.Issue(identity.Request{Name: name, Pub: key.Public(), NotBefore: now.Add(from), NotAfter: now.Add(until)}))
	c := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// serve runs script on each connection whose TLS is up, and then keeps what else comes. It ends with the bubble.
func (s *site) serve(script func(*tls.Conn)) {
	l := must(s.host.Listen(443))
	var all sync.WaitGroup
	all.Go(func() {
		for {
			tcp, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer tcp.Close()
				config := &tls.Config{Certificates: []tls.Certificate{s.leaf}, NextProtos: []string{transport.ALPNAccess}}
				if s.askCertificate {
					config.ClientAuth = tls.RequestClientCert
				}
				conn := tls.Server(tcp, config)
				if conn.Handshake() != nil {
					return
				}
				script(conn)
				rest, _ := io.ReadAll(conn)
				s.mu.Lock()
				defer s.mu.Unlock()
				s.after = append(s.after, rest...)
			})
		}
	})
	s.t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
}

// prelude reads the time-request and answers it.
func (s *site) prelude(conn *tls.Conn, spoil func(*identity.SignedTime)) {
	f, err := wire.Expect(conn, wire.TypeTimeRequest)
	if err != nil {
		s.t.Error(err)
		return
	}
	wire.Write(conn, wire.TypeTime, s.answer(f, spoil))
}

// answer is the signed time for a request, spoiled before it is signed.
func (s *site) answer(f wire.Frame, spoil func(*identity.SignedTime)) []byte {
	r := wire.TimeRequest(f.Payload)
	st := identity.SignedTime{Nonce: r.Nonce(), Time: time.Now(), Server: identity.CertSPKI(s.leaf.Leaf), UID: r.UID(), Sequence: 1}
	if spoil != nil {
		spoil(&st)
	}
	return s.timeRaw(st)
}

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

// access is the link's server: it welcomes, answers pings and time-again, and keeps what it got.
func (s *site) access(heartbeatS int) {
	s.serve(func(conn *tls.Conn) {
		s.prelude(conn, nil)
		for {
			f, err := wire.Read(conn)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conn, s.frames = conn, append(s.frames, frame{f, time.Now()})
			mute := s.mute
			s.mu.Unlock()
			switch {
			case mute:
			case f.Type == wire.TypeHello:
				wire.WriteJSON(conn, wire.TypeWelcome, wire.Welcome{HeartbeatS: heartbeatS})
			case f.Type == wire.TypePing:
				wire.Write(conn, wire.TypePong, nil)
			case f.Type == wire.TypeTimeAgain:
				wire.Write(conn, wire.TypeTime, s.answer(f, nil))
			}
		}
	})
}

// server is the server's end of the link.
func (s *site) server() *tls.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

// got lists the frames of a type that the server got, and forgets all.
func (s *site) got(t wire.Type) (list []frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.frames {
		if f.Type == t {
			list = append(list, f)
		}
	}
	s.frames = nil
	return list
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
