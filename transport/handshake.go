package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"time"

	"hawser/identity"
)

// Try tries exactly one candidate and says what came of it. The connection is
// nil unless Attempt.Reason is empty; then it is the caller's to close.
func (d *Dialer) Try(ctx context.Context, t Target, c Candidate) (*Conn, Attempt) {
	return d.try(ctx, t, c, make(chan struct{}, 1), 1)
}

func (d *Dialer) try(ctx context.Context, t Target, c Candidate, slots chan struct{}, patience int) (*Conn, Attempt) {
	begin := time.Now() // not d.now: that clock may be set meanwhile
	a := Attempt{Candidate: c}
	conn, err := d.connect(ctx, t, &a, slots, time.Duration(patience))
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

// connect does the TCP connect and the handshake, each within its time-out.
func (d *Dialer) connect(ctx context.Context, t Target, a *Attempt, slots chan struct{}, patience time.Duration) (*Conn, error) {
	tcp, err := d.connectTCP(ctx, a, patience)
	if err != nil {
		return nil, err
	}
	d.memory.measured(a.RTT)
	giveBack, err := takeSlot(ctx, slots)
	if err != nil {
		tcp.Close()
		return nil, &connectError{err: err}
	}
	defer giveBack()
	tlsCtx, cancel := context.WithTimeout(ctx, tlsTimeout*patience)
	defer cancel()
	conn, err := d.handshake(tlsCtx, t, *a, tcp)
	if err != nil {
		tcp.Close()
		return nil, err
	}
	return conn, nil
}

// connectTCP connects, and measures how long that took.
func (d *Dialer) connectTCP(ctx context.Context, a *Attempt, patience time.Duration) (net.Conn, error) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, tcpTimeout*patience)
	defer cancel()
	dial := d.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	tcp, err := dial(ctx, "tcp", a.Addr.String())
	if err != nil {
		return nil, &connectError{err: err}
	}
	a.RTT = max(time.Since(begin), 1) // it completed, however coarse the clock
	return tcp, nil
}

// takeSlot waits for one of the slots. It is given back by giveBack, or by itself
// after slotTime: a port that says nothing shall not keep the others waiting for
// as long as a handshake may take.
func takeSlot(ctx context.Context, slots chan struct{}) (giveBack func(), err error) {
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

func (d *Dialer) handshake(ctx context.Context, t Target, a Attempt, tcp net.Conn) (*Conn, error) {
	conn := &Conn{Roots: t.Roots, Candidate: a.Candidate, RTT: a.RTT}
	heard := &listener{Conn: tcp}
	config := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{t.ALPN},
		SessionTicketsDisabled: true,
		InsecureSkipVerify:     true, // VerifyConnection does all of it: our names are not DNS names
		VerifyConnection:       func(cs tls.ConnectionState) error { return d.verify(conn, t, cs) },
	}
	if _, err := netip.ParseAddr(a.Host); err != nil {
		config.ServerName = a.Host
	}
	if d.Certificate != nil && !t.Anonymous {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c := d.Certificate(); c != nil {
				return c, nil
			}
			return new(tls.Certificate), nil
		}
	}
	conn.Conn = tls.Client(heard, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, &handshakeError{err: err, heard: heard.first[:heard.n], timeout: ctx.Err() != nil, chain: conn.Chain}
	}
	return conn, nil
}

// verify judges what the server showed and fills in the connection (wire §1.1).
func (d *Dialer) verify(conn *Conn, t Target, cs tls.ConnectionState) error {
	conn.Chain = cs.PeerCertificates
	if conn.Roots == nil {
		roots, err := identity.PinnedRoot(conn.Chain, t.Pin)
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
	if err == nil && cs.NegotiatedProtocol != t.ALPN {
		err = &Error{Reason: WrongProtocol, Err: errors.New("the server does not speak " + t.ALPN)}
	}
	conn.Peer = peer
	return err
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

// listener keeps the first bytes that the server sent: where they are not TLS
// they tell what stands there instead.
type listener struct {
	net.Conn
	first [16]byte
	n     int
}

func (l *listener) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	l.n += copy(l.first[l.n:], b[:n])
	return n, err
}
