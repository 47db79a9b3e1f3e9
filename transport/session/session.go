// Package session is the end-to-end session of a Manager and a Runtime: both
// join at a relay, prove themselves to each other inside the joined pipe, and
// carry streams over it (wire §5, §6). The relay sees none of it.
package session

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

const (
	joinTimeout  = 20 * time.Second // the relay waits 15 s for the other side (wire §5.1)
	innerTimeout = 10 * time.Second
	beat         = 4 * time.Second // between signs of life (wire §6.2)
	silence      = 9 * time.Second // without any byte: the link is lost (wire §6.2)

	// Yamux must never give up before the layers below do.
	patience = 75 * time.Second
)

// Config is what one end of a session needs.
type Config struct {
	Dialer      *transport.Dialer // shows Certificate to the relay as well
	Certificate tls.Certificate   // the own identity
	Roots       *identity.Roots
	Offer       wire.Offer       // from the Access Server; says which end this is
	Now         func() time.Time // nil: time.Now
}

// Session is a live end-to-end session. It is safe for concurrent use; Close
// must be called in the end, also when the link was lost.
type Session struct {
	mux    *yamux.Session
	pulse  *pulse
	work   chan func() // for the beater to run, beside its own
	beater sync.WaitGroup
}

// Join dials the offer's relay, joins, and authenticates the peer. It blocks
// until the session is up, something was refused, or ctx ends. Errors carry a
// transport.Reason: those of the search and of the relay, and wrong-peer.
func Join(ctx context.Context, c Config) (*Session, error) {
	config, err := c.innerTLS()
	if err != nil {
		return nil, err
	}
	outer, err := join(ctx, c)
	if err != nil {
		return nil, err
	}
	inner, err := c.handshake(ctx, &pipe{Conn: outer}, config)
	if err != nil {
		outer.NetConn().Close()
		return nil, err
	}
	s, err := newSession(inner, c.Offer.Role)
	if err == nil && c.Offer.Role == wire.RoleManager {
		err = s.confirm(ctx)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// confirm waits until the Runtime has accepted us: in TLS 1.3 the client's
// handshake is over before the server has seen the client's certificate.
func (s *Session) confirm(ctx context.Context) error {
	done := context.AfterFunc(ctx, func() { s.Close() })
	_, err := s.mux.Ping()
	if done() && err == nil {
		return nil
	}
	s.Close()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.Err()
}

// join returns the pipe that the relay has paired (wire §5.1).
func join(ctx context.Context, c Config) (*transport.Conn, error) {
	relay := c.Offer.Relay
	conn, err := c.Dialer.Dial(ctx, transport.Target{Hosts: relay.Hosts, Ports: relay.Ports,
		ALPN: transport.ALPNRelay, Name: identity.RelayName(relay.Name), Roots: c.Roots})
	if err != nil {
		return nil, err
	}
	done := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	conn.SetDeadline(time.Now().Add(joinTimeout))
	defer conn.SetDeadline(time.Time{})
	err = wire.WriteJSON(conn, wire.TypeJoin, wire.Join{Grant: c.Offer.Grant, Crypto: c.Offer.Crypto})
	if err == nil {
		_, err = wire.Expect(conn, wire.TypePaired)
	}
	if !done() {
		err = ctx.Err()
	}
	if err != nil {
		conn.NetConn().Close()
		return nil, &transport.Error{Reason: transport.ReasonOf(err), Op: "join at relay " + relay.Name, Err: err}
	}
	return conn, nil
}

// handshake does the inner TLS (wire §6.1).
func (c Config) handshake(ctx context.Context, p *pipe, config *tls.Config) (*tls.Conn, error) {
	var inner *tls.Conn
	if c.Offer.Role == wire.RoleRuntime {
		inner = tls.Server(p, config)
	} else {
		inner = tls.Client(p, config)
	}
	ctx, cancel := context.WithTimeout(ctx, innerTimeout)
	defer cancel()
	if err := inner.HandshakeContext(ctx); err != nil {
		reason := transport.ReasonOf(err)
		if reason == transport.Internal || reason == transport.TLSRefused || reason == transport.NotTLS {
			reason = transport.WrongPeer
		}
		return nil, &transport.Error{Reason: reason, Op: "authenticate " + c.Offer.Peer, Err: err}
	}
	return inner, nil
}

func (c Config) innerTLS() (*tls.Config, error) {
	peer, err := identity.ParseName(c.Offer.Peer)
	if err != nil || c.Offer.PeerSPKI.IsZero() {
		return nil, &transport.Error{Reason: transport.Protocol, Op: "read offer", Err: errors.New("it names no peer")}
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768},
		NextProtos:             []string{transport.ALPNSession},
		SessionTicketsDisabled: true,
		Certificates:           []tls.Certificate{c.Certificate},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // VerifyConnection does all of it
		VerifyConnection:       func(cs tls.ConnectionState) error { return c.verify(cs, peer) },
	}, nil
}

// verify wants exactly the peer of the offer: its name under our roots, and its key.
func (c Config) verify(cs tls.ConnectionState, want identity.Name) error {
	now := c.Now
	if now == nil {
		now = time.Now
	}
	peer, err := transport.VerifyPeer(cs.PeerCertificates, c.Roots, now(), want)
	if err == nil && peer.SPKI != c.Offer.PeerSPKI {
		err = errors.New("it has another key than the offer says")
	}
	if err == nil && cs.NegotiatedProtocol != transport.ALPNSession {
		err = errors.New("it does not speak " + transport.ALPNSession)
	}
	if err != nil {
		return &transport.Error{Reason: transport.WrongPeer, Op: "verify " + c.Offer.Peer, Err: err}
	}
	return nil
}

func newSession(inner *tls.Conn, role wire.Role) (*Session, error) {
	config := yamux.DefaultConfig()
	config.EnableKeepAlive = false // pulse does it
	config.ConnectionWriteTimeout = patience
	config.StreamOpenTimeout = patience
	config.StreamCloseTimeout = 0 // a half-closed stream may live on
	config.LogOutput = io.Discard // what it says is in the errors too
	s := &Session{pulse: newPulse(inner), work: make(chan func())}
	var err error
	if role == wire.RoleRuntime {
		s.mux, err = yamux.Server(s.pulse, config)
	} else {
		s.mux, err = yamux.Client(s.pulse, config)
	}
	if err != nil {
		inner.Close()
		return nil, err
	}
	s.beater.Go(s.keepBeating)
	return s, nil
}

// keepBeating sends a sign of life every 4 s until the session ends. It does
// not wait for the answers: on a slow link they queue behind data, and that
// data is itself what the peer hears. It also owns the work of others.
func (s *Session) keepBeating() {
	var out sync.WaitGroup
	defer out.Wait()
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			out.Go(func() { s.mux.Ping() })
		case f := <-s.work:
			out.Go(f)
		case <-s.mux.CloseChan():
			return
		}
	}
}

// Done is closed when the session has ended, from whichever side.
func (s *Session) Done() <-chan struct{} { return s.mux.CloseChan() }

// Err says why a session ended: with reason closed when the peer ended it in
// order or Close was called, wrong-peer when the peer did not accept us,
// protocol when somebody tampered with the bytes, else link-lost. It is
// meaningful after Done.
func (s *Session) Err() error {
	return &transport.Error{Reason: s.pulse.reason(), Op: "hear from the other end"}
}

// Close ends the session and every stream, tells the peer, and waits for the
// session's goroutines.
func (s *Session) Close() error {
	s.pulse.end(transport.Closed)
	err := s.mux.Close()
	s.beater.Wait()
	return err
}

// Streams is the number of open streams.
func (s *Session) Streams() int { return s.mux.NumStreams() }
