package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// What a connection gets before its grant was accepted (wire §5.3), how long it
// then waits for the other end (wire §5.1), and how long for a place.
const (
	joinTime  = 10 * time.Second
	joinBytes = 64 << 10
	pairTime  = 15 * time.Second
	busyTime  = 10 * time.Second // Access hears within it that this relay is full
	endTime   = 2 * time.Second  // for the last that is written to a connection
)

// ServeConn serves one connection of the protocol hawser-relay/1 until it is
// over: join, pair, move bytes, or measure (wire §5). The handshake is done and
// has asked for a client certificate without verifying it. ServeConn closes
// conn, and soon after ctx is cancelled ends it in order. Any number of calls
// may run at once.
func (s *Server) ServeConn(ctx context.Context, conn *tls.Conn) {
	defer conn.Close() // in order, unless a write hangs
	began := time.Now()
	conn.SetDeadline(began.Add(joinTime))
	stop := context.AfterFunc(ctx, func() { hush(conn) })
	defer stop()
	e, echo, err := s.admit(ctx, conn)
	switch {
	case err != nil:
		s.turnAway(conn, e, err)
	case e == nil:
		err = s.measure(ctx, conn, echo, began)
		if errors.Is(err, wire.ErrFrame) {
			s.turnAway(conn, nil, err)
		}
	default:
		s.serveEnd(e)
	}
}

// hush makes every read of conn return, and every write soon. It is how a
// connection is woken up to be ended in order.
func hush(conn *tls.Conn) {
	conn.SetReadDeadline(time.Now())
	conn.SetWriteDeadline(time.Now().Add(endTime))
}

// prolong sets another deadline; the zero one is none. The error is that of
// ctx, when it has ended: then hush may have come before, in vain.
func prolong(ctx context.Context, conn *tls.Conn, until time.Time) error {
	conn.SetDeadline(until)
	return ctx.Err()
}

// serveEnd seats an end, waits for the other one, and carries.
func (s *Server) serveEnd(e *end) {
	defer e.cut(nil)
	if err := s.table.enter(e); err != nil {
		s.turnAway(e.conn, e, err)
		return
	}
	defer s.table.leave(e)
	if err := s.wait(e); err != nil {
		s.turnAway(e.conn, e, err)
		return
	}
	s.carry(e)
}

// admit reads the first frame and judges who sent it. It returns an end for a
// join, also with an error if there is a certificate to tell of, and otherwise
// the first echo of a client that measures.
func (s *Server) admit(ctx context.Context, conn *tls.Conn) (e *end, echo wire.Frame, err error) {
	defer s.joining.Add(-1)
	if s.joining.Add(1) > int64(s.config.MaxJoining) {
		conn.NetConn().Close() // at once: no alert, no refusal
		return nil, echo, refuse(transport.Busy, "admit client")
	}
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
	if ended := prolong(ctx, conn, time.Time{}); err == nil {
		err = ended
	}
	return e, echo, err
}

// judge takes the grant of a join, if it is good.
func (s *Server) judge(ctx context.Context, conn *tls.Conn, f wire.Frame) (*end, error) {
	var join wire.Join
	if err := f.Decode(&join); err != nil {
		return nil, asError(err, "read join")
	}
	now := s.config.Now()
	a, err := judge(claim{conn.ConnectionState().PeerCertificates, join}, s.law(now))
	if err == nil {
		err = s.used.take(a.grant, now)
	}
	if err != nil && a.peer.Leaf == nil {
		return nil, err
	}
	return newEnd(ctx, conn, a), err
}

// turnAway refuses a connection and says so in the log, quietly if nobody has
// proven who he is: strangers must not be able to fill it.
func (s *Server) turnAway(conn *tls.Conn, e *end, err error) {
	refusal := &wire.Refusal{Reason: overReason(err)}
	if refusal.Reason == transport.Busy {
		refusal.RetryAfter = busyTime
	}
	level, session := slog.LevelDebug, ""
	if e != nil {
		e.cut(err)
		level, session = slog.LevelInfo, e.grant.Session
	}
	s.log.Log(context.Background(), level, "join refused",
		"addr", conn.RemoteAddr().String(), "session", session, "reason", string(refusal.Reason), "err", err)
	conn.SetWriteDeadline(time.Now().Add(endTime))
	// Whoever does not read his refusal has had it.
	_ = wire.Refuse(conn, refusal)
}

// wait returns when the other end has come.
func (s *Server) wait(e *end) error {
	timer := time.NewTimer(pairTime)
	defer timer.Stop()
	select {
	case <-e.met:
	case <-e.ctx.Done():
		return context.Cause(e.ctx)
	case <-timer.C:
		if s.table.giveUp(e) {
			return refuse(transport.NoPeer, "pair client")
		}
	}
	return nil
}
