// Package session is the end-to-end session of a Manager and a Runtime: both join at a relay, prove themselves to each
// other through its TLS, leave that, and carry streams over TLS of their own (session §2). The relay sees none of it.
package session

import (
	"context"
	"crypto/tls"
	"errors"
	"sync/atomic"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/record"
	"hawser/transport/wire"
)

const (
	joinTimeout  = 20 * time.Second // the relay waits 15 s for the other side (wire §5.1)
	innerTimeout = 10 * time.Second
	// managerMemory is what the streams of a Manager may hold together (session §6). It has one session at a time.
	managerMemory = 64 << 20
)

// Config is what one end of a session needs.
type Config struct {
	Dialer      *transport.Dialer // shows Certificate to the relay as well
	Certificate tls.Certificate   // of this end
	Roots       *identity.Roots
	Offer       wire.Offer       // from the Access Server; says which end this is
	Now         func() time.Time // nil: time.Now
	Budget      *mux.Budget      // of the process; nil: one for this session, as a Manager has
	Streams     int              // of the process at most; 0: no such limit
	Hello       mux.Hello        // what this end says of its owner
	Hold        bool             // a Runtime: open nothing before Admit
}

// Session is a live end-to-end session. Close must be called in the end, also when the line was lost.
type Session struct {
	*mux.Mux
	conn   *tls.Conn // the inner one
	config Config
}

// Join dials the offer's relay, joins, and authenticates the peer. It blocks until that is done, something was refused,
// or ctx ends. Errors carry a transport.Reason: those of the search and of the relay, and wrong-peer. A Manager may open
// streams at once, and learns by Ready whether the Runtime has accepted it. The offer is checked before anything is
// dialled: a grant is used up by its first join.
func Join(ctx context.Context, c Config) (*Session, error) {
	if c.Budget == nil {
		c.Budget = mux.NewBudget(managerMemory)
	}
	config, err := c.innerTLS()
	if err != nil {
		return nil, err
	}
	outer, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	s, err := c.join(ctx, outer, config)
	if err != nil {
		// Without close_notify: a write to a relay that hangs would block.
		outer.NetConn().Close()
		return nil, err
	}
	return s, nil
}

func (c Config) dial(ctx context.Context) (*transport.Conn, error) {
	relay := c.Offer.Relay
	return c.Dialer.Dial(ctx, transport.Target{Hosts: relay.Hosts, Ports: relay.Ports,
		ALPN: transport.ALPNRelay, Name: identity.RelayName(relay.Name), Roots: c.Roots})
}

// join joins, and does the inner handshake without waiting for the relay's answer: each wait would be a round trip.
func (c Config) join(ctx context.Context, outer *transport.Conn, config *tls.Config) (*Session, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(joinTimeout, func() {
		cancel(&transport.Error{Reason: transport.Timeout, Op: "wait for the other end"})
	})
	defer late.Stop()
	var paired atomic.Bool
	u := newUnder(outer.Conn, outer.NetConn().(*record.Conn), c.Budget, func() {
		paired.Store(true)
		late.Reset(innerTimeout)
	})
	// A relay that takes nothing: a Write under way ends with the connection.
	defer context.AfterFunc(ctx, func() { u.raw.SetDeadline(time.Unix(1, 0)) })()
	inner, err := c.shake(ctx, u, config)
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = cause
	}
	switch reason := transport.ReasonOf(err); {
	case err == nil:
	case !paired.Load():
		return nil, &transport.Error{Reason: reason, Op: "join at relay " + c.Offer.Relay.Name, Err: err}
	case reason == transport.Internal, reason == transport.TLSRefused, reason == transport.NotTLS:
		return nil, &transport.Error{Reason: transport.WrongPeer, Op: "authenticate " + c.Offer.Peer, Err: err}
	default:
		return nil, &transport.Error{Reason: reason, Op: "authenticate " + c.Offer.Peer, Err: err}
	}
	m := mux.Start(&line{Conn: inner, under: u}, mux.Config{
		Role: c.Offer.Role, Session: c.Offer.Session, Epoch: c.Offer.Epoch, Budget: c.Budget, Streams: c.Streams,
		Hello: c.Hello, Hold: c.Hold,
	})
	return &Session{m, inner, c}, nil
}

// shake sends the join, does the inner TLS (session §2.3), and leaves the outer one.
func (c Config) shake(ctx context.Context, u *under, config *tls.Config) (*tls.Conn, error) {
	if err := wire.WriteJSON(u.outer, wire.TypeJoin, wire.Join{Grant: c.Offer.Grant}); err != nil {
		return nil, err
	}
	var inner *tls.Conn
	if c.Offer.Role == wire.RoleRuntime {
		inner = tls.Server(u, config)
	} else {
		inner = tls.Client(u, config)
	}
	if err := inner.HandshakeContext(ctx); err != nil {
		return nil, u.refusal(err)
	}
	return inner, u.leave()
}

func (c Config) innerTLS() (*tls.Config, error) {
	_, err := identity.ParseName(c.Offer.Peer)
	if err != nil || c.Offer.PeerSPKI.IsZero() {
		return nil, &transport.Error{Reason: transport.Protocol, Op: "read offer", Err: errors.New("it names no peer")}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// A relay, and whoever records its traffic, has this session's bytes: a quantum computer of later years must
		// not open them.
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768},
		NextProtos:             []string{transport.ALPNSession},
		SessionTicketsDisabled: true,
		// A frame and its header fill a record. Small records at the beginning are for browsers, and cost here.
		DynamicRecordSizingDisabled: true,
		Certificates:                []tls.Certificate{c.Certificate},
		ClientAuth:                  tls.RequireAnyClientCert,
		InsecureSkipVerify:          true, // VerifyConnection does all of it
		VerifyConnection:            c.verify,
	}, nil
}

// verify accepts only the peer of the offer, by our protocol.
func (c Config) verify(cs tls.ConnectionState) error {
	err := c.verifyChain(cs.PeerCertificates)
	if err == nil && cs.NegotiatedProtocol != transport.ALPNSession {
		err = errors.New("it does not speak " + transport.ALPNSession)
	}
	if err != nil {
		return &transport.Error{Reason: transport.WrongPeer, Op: "verify " + c.Offer.Peer, Err: err}
	}
	return nil
}
