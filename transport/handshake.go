package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"hawser/identity"
	"hawser/transport/record"
)

// Try tries exactly one candidate, in its form and by its way. The connection is nil
// unless Attempt.Reason is empty; then the caller closes it. It blocks for the time-outs of wire §8 at most, without
// their doubling, and neither reads nor changes what the Dialer remembers of candidates: netcheck tries closed ports on
// purpose.
func (d *Dialer) Try(ctx context.Context, t Target, c Candidate) (*Conn, Attempt) {
	return d.try(ctx, t, c, d.alone())
}

// attempting is what an attempt needs of the search that it belongs to. An attempt changes nothing of its search: it
// runs on a goroutine of its own, and only the loop of the race writes.
type attempting struct {
	slots    chan struct{} // a slot for each handshake in flight
	patience int           // the factor for time-outs
	proxies  Proxies
	said     func(*hello) // called when the hello is about to be sent; nil: nobody
}

// alone is the search of an attempt that belongs to none.
func (d *Dialer) alone() attempting {
	in := attempting{slots: make(chan struct{}, 1), patience: 1}
	if d.Proxies != nil {
		in.proxies = d.Proxies()
	}
	return in
}

func (d *Dialer) try(ctx context.Context, t Target, c Candidate, in attempting) (*Conn, Attempt) {
	begin := time.Now() // not d.now: that clock may be set in between
	a := Attempt{Candidate: c}
	conn, err := d.connect(ctx, t, &a, in)
	a.Took = time.Since(begin)
	if err != nil {
		a.Reason, a.Detail, a.Issuer = classify(err, t.ClockUnsure)
		if ctx.Err() != nil && a.Reason == Timeout {
			a.Detail = "gave up"
		}
		return nil, a
	}
	return conn, a
}

// connect does the connect and the handshake, each within its time-out.
func (d *Dialer) connect(ctx context.Context, t Target, a *Attempt, in attempting) (*Conn, error) {
	tcp, err := d.reach(ctx, a, in)
	if err != nil {
		return nil, err
	}
	// Also of a connect whose TLS fails afterwards: the round trip is that of the path all the same.
	d.memory.measured(a.RTT)
	setKeepAlive(tcp, t.ALPN)
	// After the connect, so that waiting for a slot is not counted as a round trip, nor as time of the handshake.
	release, err := takeSlot(ctx, in.slots)
	if err != nil {
		tcp.Close()
		return nil, &connectError{err: err}
	}
	defer release()
	tlsCtx, cancel := context.WithTimeout(ctx, tlsTimeout*time.Duration(in.patience))
	defer cancel()
	heard := &prefixConn{Conn: tcp}
	// Before the hello is written and not after: the write of a path that swallows it blocks for as long as nobody
	// answers.
	if in.said != nil {
		in.said(newHello(*a, &heard.heard))
	}
	conn, err := d.handshake(tlsCtx, t, *a, heard)
	if err != nil {
		tcp.Close()
		return nil, err
	}
	return conn, nil
}

// reach makes the connection on which the hello is sent: a TCP connection to the
// server, or through a proxy. Every connect of a Dialer is made here, so that none passes its bounds by.
func (d *Dialer) reach(ctx context.Context, a *Attempt, in attempting) (net.Conn, error) {
	if d.Bounds != nil {
		if err := d.Bounds().Judge(a.Candidate); err != nil {
			return nil, &connectError{err: err}
		}
	}
	patience := time.Duration(in.patience)
	if a.Proxy != "" {
		return d.throughProxy(ctx, a, in.proxies, patience)
	}
	connecting, cancel := context.WithTimeout(ctx, tcpTimeout*patience)
	defer cancel()
	return d.connectTCP(connecting, a, a.Addr)
}

// connectTCP connects, and measures how long that took.
func (d *Dialer) connectTCP(ctx context.Context, a *Attempt, to netip.AddrPort) (net.Conn, error) {
	begin := time.Now()
	dial := d.DialContext
	if dial == nil {
		dial = SystemDial
	}
	if a.Small {
		ctx = withSmallSegments(ctx)
	}
	tcp, err := dial(ctx, "tcp", to.String())
	if err != nil {
		return nil, &connectError{err: err}
	}
	a.RTT = max(time.Since(begin), 1) // it completed, however coarse the clock
	return tcp, nil
}

// setKeepAlive sets TCP's keepalive (wire §4.6): off where the client pings. Elsewhere
// it finds a dead peer within a minute, where Go's default takes more than two.
func setKeepAlive(conn net.Conn, alpn string) {
	const every, count = 15 * time.Second, 3
	tcp, ok := conn.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	})
	if !ok {
		return // a test's network
	}
	// After an error the system's default counts, which costs more or finds it later.
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: alpn != ALPNAccess, Idle: every, Interval: every, Count: count})
}

// takeSlot waits for one of the slots. Release frees it, and slotTime does so at the
// latest: behind two silent ports, the others must not wait for whole handshake
// time-outs.
func takeSlot(ctx context.Context, slots chan struct{}) (release func(), err error) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	timer := time.AfterFunc(slotTime, func() { <-slots })
	return func() {
		if timer.Stop() {
			<-slots
		}
	}, nil
}

func (d *Dialer) handshake(ctx context.Context, t Target, a Attempt, heard *prefixConn) (*Conn, error) {
	conn := &Conn{Roots: t.Roots, Candidate: a.Candidate, RTT: a.RTT}
	config := &tls.Config{
		// TLS 1.2 shows certificates in the clear: whoever is on the path would read which device calls.
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{t.ALPN},
		SessionTicketsDisabled: true,
		// Every message of ours fits one record: small ones at the beginning would only cost.
		DynamicRecordSizingDisabled: true,
		InsecureSkipVerify:          true, // VerifyConnection does all of it: our names are not DNS names
		VerifyConnection:            func(cs tls.ConnectionState) error { return d.verify(conn, t, cs) },
	}
	shape(config, a.Candidate)
	if d.Certificate != nil && !t.Anonymous {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c := d.Certificate(); c != nil {
				return c, nil
			}
			// crypto/tls wants an empty certificate for none, never nil. A server does not demand ours (wire §1.1).
			return new(tls.Certificate), nil
		}
	}
	under := record.New(heard) // the ends of a session leave this TLS (session §2.1)
	conn.Conn = tls.Client(under, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		heard.more(err)
		return nil, &handshakeError{err: err, heard: heard.first[:heard.n], timeout: ctx.Err() != nil, chain: conn.Chain}
	}
	under.Conn = heard.Conn // its first bytes were what they should be
	if t.ALPN != ALPNRelay {
		under.Through()
	}
	return conn, nil
}

// shape makes the hello that of a candidate.
func shape(config *tls.Config, c Candidate) {
	if _, err := netip.ParseAddr(c.Host); err != nil {
		// SNI has no IP literals (RFC 6066 §3). The certificate does not repeat the name: verify asks for the kind and
		// the root.
		config.ServerName = c.Host
	}
	if c.Small {
		// The hybrid's share of 1,216 bytes is what makes the hello larger than a packet.
		config.CurvePreferences = []tls.CurveID{tls.X25519}
	}
}

// verify verifies the server's chain and protocol (wire §1.1), and fills in conn.
func (d *Dialer) verify(conn *Conn, t Target, cs tls.ConnectionState) error {
	conn.Chain = cs.PeerCertificates
	if conn.Roots == nil {
		roots, err := t.rootIn(conn.Chain)
		if err != nil {
			return err
		}
		conn.Roots = roots
	}
	at := d.now()
	if t.At != nil && len(conn.Chain) > 0 {
		at = t.At(conn.Chain[0])
	}
	peer, err := VerifyPeer(conn.Chain, conn.Roots, at, t.Name)
	// crypto/tls lets a server select nothing at all, and whoever terminates TLS in front of ours does.
	if err == nil && cs.NegotiatedProtocol != t.ALPN {
		err = &Error{Reason: WrongProtocol, Err: errors.New("the server does not speak " + t.ALPN)}
	}
	conn.Peer = peer
	return err
}

// rootIn finds the root in a chain that was shown.
func (t Target) rootIn(chain []*x509.Certificate) (*identity.Roots, error) {
	if t.Anyone && t.Pin.IsZero() && ours(chain) {
		return identity.ShownRoot(chain)
	}
	return identity.PinnedRoot(chain, t.Pin) // which names the issuer of a foreign chain
}

// VerifyPeer verifies a chain as identity §5 says, for the kind of want and,
// when want has an ID, for that very name. The error is an *identity.Error or
// an *Error with reason wrong-name.
func VerifyPeer(chain []*x509.Certificate, roots *identity.Roots, at time.Time, want identity.Name) (identity.Peer, error) {
	peer, err := identity.Verify(chain, roots, at, want.Kind)
	if err == nil && want.ID != "" && peer.Name != want {
		err = &Error{Reason: WrongName, Op: "verify " + want.String(), Err: errors.New("it is " + peer.Name.String())}
	}
	return peer, err
}

// prefixConn keeps the first bytes that the server sent: if they are not TLS, they
// tell what answers there instead.
type prefixConn struct {
	net.Conn
	// Enough for a status line up to its code, and never enough to hold content of a stranger.
	first [16]byte
	n     int
	heard atomic.Bool // of another goroutine's interest: anything
}

// more reads what follows a first record that is none: TLS has asked for its header alone. It is there already, or the
// server is slow, and then its status does not matter that much.
func (l *prefixConn) more(err error) {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok && l.n < len(l.first) {
		l.SetReadDeadline(time.Now().Add(time.Second))
		io.ReadAtLeast(l, make([]byte, len(l.first)-l.n), len(l.first)-l.n)
	}
}

func (l *prefixConn) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.heard.Store(true)
	}
	l.n += copy(l.first[l.n:], b[:n])
	return n, err
}
