package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"hawser/server/gate"
	"hawser/transport"
	"hawser/transport/wire"
)

// Limits of a connection before its grant was accepted (wire §5.3), how long it
// then waits for the other end (wire §5.1), and when a client may come again.
const (
	joinTime  = 10 * time.Second
	joinBytes = 64 << 10
	pairTime  = 15 * time.Second
	busyTime  = 10 * time.Second // by then Access knows that this relay is full
	endTime   = 2 * time.Second  // for the last write to a connection
)

// ServeConn serves one connection of the protocol hawser-relay/1 until it is over: join, pair and carry (session §2), or
// measure (wire §5). It lies on a record.Conn. The handshake is done; it has asked for a client certificate and not
// verified it. ServeConn closes conn, soon after ctx was cancelled too. Calls may run concurrently.
//
// Nothing here holds conn while meet's end is carried: the memory of two TLS connections is most of what a session
// would cost.
func (s *Server) ServeConn(ctx context.Context, conn *tls.Conn) {
	if e := s.meet(ctx, conn); e != nil {
		s.servePipe(e)
	}
}

// meet serves a connection until its end has met the other one, and returns that end. Nil: it is over, and closed.
func (s *Server) meet(ctx context.Context, conn *tls.Conn) (met *end) {
	defer func() {
		if met == nil {
			conn.Close() // with close_notify, unless a write hangs
		}
	}()
	began := time.Now()
	conn.SetDeadline(began.Add(joinTime))
	place := s.enter(ctx, conn)
	if place == nil {
		return nil
	}
	defer place.Leave()
	stop := context.AfterFunc(ctx, func() { wake(conn) })
	defer stop()
	e, echo, err := s.admit(ctx, conn)
	if err != nil {
		s.refuseConn(conn, e, err) // in its place: it may take endTime
		return nil
	}
	place.Leave() // paired ends are bounded by MaxPipes, and strangers must not use up what those need
	if e == nil {
		s.measureInPlace(ctx, conn, echo, began)
		return nil
	}
	if err = s.wait(e); err == nil {
		return e
	}
	s.refuseConn(conn, e, err)
	return nil
}

// enter gives a connection a place until its grant is accepted. Who has a certificate is told if there is none; a
// stranger is not, because that would cost more.
func (s *Server) enter(ctx context.Context, conn *tls.Conn) *gate.Place {
	cut := func() { conn.NetConn().Close() }
	_, err := verifyClient(conn.ConnectionState().PeerCertificates, s.joinPolicy(s.config.Now()))
	if err != nil {
		place := s.strangers.Enter(conn.RemoteAddr(), cut)
		if place == nil {
			s.counters.dropped.Inc()
			cut()
		}
		return place
	}
	place := s.joining.Enter(conn.RemoteAddr(), cut)
	if place == nil {
		s.counters.dropped.Inc()
		s.turnAway(ctx, conn)
	}
	return place
}

// turnAway tells a client that there is no place, as long as there is one to tell it.
func (s *Server) turnAway(ctx context.Context, conn *tls.Conn) {
	cut := func() { conn.NetConn().Close() }
	place := s.refusals.Enter(conn.RemoteAddr(), cut)
	if place == nil {
		cut() // and without close_notify, which could wait
		return
	}
	defer place.Leave()
	s.refuseConn(conn, nil, refuse(transport.Busy, "admit client"))
	linger(ctx, conn)
}

// linger reads what a client sends that was refused before it said anything. Closing a socket with unread bytes resets
// the connection, and the client's kernel throws the refusal away.
func linger(ctx context.Context, conn *tls.Conn) {
	if setDeadline(ctx, conn, time.Now().Add(endTime)) == nil && conn.CloseWrite() == nil {
		io.CopyN(io.Discard, conn.NetConn(), joinBytes)
	}
}

// wake unblocks reads of conn now, and writes within endTime, so that its goroutine can
// close it.
func wake(conn *tls.Conn) {
	conn.SetReadDeadline(time.Now())
	conn.SetWriteDeadline(time.Now().Add(endTime))
}

// setDeadline sets the deadlines; the zero time means none. It returns the error of ctx, after whose end wake may have
// set deadlines that this call has overwritten. The order closes that race: wake comes after the end of ctx, so either
// ctx has ended here, or wake is still to come.
func setDeadline(ctx context.Context, conn *tls.Conn, until time.Time) error {
	conn.SetDeadline(until)
	return ctx.Err()
}

// admit reads the first frame and decides about it. For a join it returns an end, also
// with an error if the certificate was good, for the log; for a client that measures
// it returns the first echo.
func (s *Server) admit(ctx context.Context, conn *tls.Conn) (e *end, echo wire.Frame, err error) {
	f, err := wire.Read(io.LimitReader(conn, joinBytes))
	switch {
	case ctx.Err() != nil:
		return nil, echo, ctx.Err()
	case err != nil:
		return nil, echo, asError(err, "read join")
	}
	switch f.Type {
	case wire.TypeEcho:
		return nil, f, s.mayMeasure(conn)
	case wire.TypeJoin:
		e, err = s.judge(ctx, conn, f)
	default:
		return nil, echo, &transport.Error{Reason: transport.Protocol, Op: "read join", Err: wire.ErrFrame}
	}
	if ended := setDeadline(ctx, conn, time.Time{}); err == nil {
		err = ended
	}
	return e, echo, err
}

// judge checks a join, and marks its grant as used. Used last: a request that fails for another reason leaves its grant
// good for the right one.
func (s *Server) judge(ctx context.Context, conn *tls.Conn, f wire.Frame) (*end, error) {
	var join wire.Join
	if err := f.Decode(&join); err != nil {
		return nil, asError(err, "read join")
	}
	now := s.config.Now()
	a, err := judge(request{conn.ConnectionState().PeerCertificates, join}, s.joinPolicy(now))
	if err == nil {
		err = s.used.take(a.grant, now)
	}
	if err != nil && a.peer.Leaf == nil {
		return nil, err
	}
	return newEnd(ctx, conn, a.grant), err
}

// refuseConn refuses a connection and logs it, at debug level if the client has not
// proven who it is: strangers must not be able to fill the log.
func (s *Server) refuseConn(conn *tls.Conn, e *end, err error) {
	refusal := &wire.Refusal{Reason: overReason(err)}
	if errors.Is(err, context.Canceled) {
		refusal.Reason, refusal.Text = transport.Busy, "the relay is stopping"
	}
	if refusal.Reason == transport.Busy {
		refusal.RetryAfter = busyTime
	}
	s.counters.refused.Reason(refusal.Reason)
	level, session := slog.LevelDebug, ""
	if e != nil {
		e.cancel(err)
		level, session = slog.LevelInfo, e.grant.Session
	}
	s.log.Log(context.Background(), level, "join refused",
		"addr", conn.RemoteAddr().String(), "session", session, "reason", string(refusal.Reason), "err", err)
	conn.SetWriteDeadline(time.Now().Add(endTime))
	// An error does not matter: the client has gone.
	_ = wire.Refuse(conn, refusal)
}

// wait takes the end's place and waits for the other end.
func (s *Server) wait(e *end) (err error) {
	if err := s.pairing.enter(e); err != nil {
		return err
	}
	timer := time.NewTimer(pairTime)
	defer timer.Stop()
	select {
	case <-e.matched:
		return nil
	case <-e.ctx.Done():
		err = context.Cause(e.ctx)
	case <-timer.C:
		err = refuse(transport.NoPeer, "pair client")
	}
	// The other end may have come in this instant; pairing decides which was first.
	if s.pairing.giveUp(e) {
		return err
	}
	return nil
}

// How a vanished client is noticed. Sessions send something every few seconds, so it is
// usually by deadTime; keepAlive is for the rest.
const (
	keepAlive = 15 * time.Second
	deadTime  = 30 * time.Second
)

// configureSocket makes the system notice a client that vanished. After an error it is
// noticed later.
func configureSocket(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return // a test's network
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: 3})
	setUserTimeout(tcp, deadTime)
}

// Limits of a client that measures (wire §5.4). They are what one measurement needs and no more: an echo server without
// limits is a way to make a relay send traffic for somebody.
const (
	measureTime = 15 * time.Second
	maxEchoes   = 32
)

// mayMeasure checks that the client could be in a session; it needs no grant.
func (s *Server) mayMeasure(conn *tls.Conn) error {
	peer, err := verifyClient(conn.ConnectionState().PeerCertificates, s.joinPolicy(s.config.Now()))
	if err != nil {
		return err
	}
	if s.pairing.isRevoked(peer.SPKI) {
		return refuse(transport.Revoked, "verify client")
	}
	return nil
}

// measureInPlace is measure for who gets one of the places for it, and says what was wrong.
func (s *Server) measureInPlace(ctx context.Context, conn *tls.Conn, f wire.Frame, began time.Time) {
	place := s.measuring.Enter(conn.RemoteAddr(), func() { conn.NetConn().Close() })
	if place == nil {
		s.counters.dropped.Inc()
		s.turnAway(ctx, conn)
		return
	}
	defer place.Leave()
	if err := s.measure(ctx, conn, place, f, began); errors.Is(err, wire.ErrFrame) {
		s.refuseConn(conn, nil, err)
	}
}

// measure sends back f and the echoes that follow it, until the client closes or has used
// up its limits. Any other frame is the error wire.ErrFrame.
func (s *Server) measure(ctx context.Context, conn *tls.Conn, place *gate.Place, f wire.Frame, began time.Time) (err error) {
	if err := setDeadline(ctx, conn, began.Add(measureTime)); err != nil {
		return err
	}
	for n := 1; ; n++ {
		if err := wire.Write(conn, wire.TypeEcho, f.Payload); err != nil || n == maxEchoes {
			return err
		}
		if f, err = wire.Expect(conn, wire.TypeEcho); err != nil {
			return err
		}
		place.Progress()
	}
}
