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

// What a connection gets before its grant was accepted (wire §5.3), and how
// long it then waits for the other end (wire §5.1).
const (
	joinTime  = 10 * time.Second
	joinBytes = 64 << 10
	pairTime  = 15 * time.Second
)

// ServeConn serves one connection of the protocol hawser-relay/1 until it is
// over: join, pair, move bytes (wire §5). The handshake is done and has asked
// for a client certificate without verifying it. ServeConn closes conn, and
// returns soon after ctx is cancelled. Any number of calls may run at once.
func (s *Server) ServeConn(ctx context.Context, conn *tls.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	defer stop()
	e, err := s.admit(ctx, conn)
	if err != nil {
		s.turnAway(conn, e, err)
		return
	}
	defer e.cut(nil)
	if err := s.table.enter(e); err != nil {
		s.turnAway(conn, e, err)
		return
	}
	defer s.table.leave(e)
	if err := s.wait(e); err != nil {
		s.turnAway(conn, e, err)
		return
	}
	s.carry(e)
}

// admit reads the join and judges it. It returns an end also with an error,
// if there is a certificate to tell of.
func (s *Server) admit(ctx context.Context, conn *tls.Conn) (*end, error) {
	defer s.joining.Add(-1)
	if s.joining.Add(1) > int64(s.config.MaxJoining) {
		conn.NetConn().Close() // at once: no alert, no refusal
		return nil, refuse(transport.Busy, "admit client")
	}
	conn.SetDeadline(time.Now().Add(joinTime))
	defer conn.SetDeadline(time.Time{})
	f, err := wire.Expect(io.LimitReader(conn, joinBytes), wire.TypeJoin)
	var join wire.Join
	if err == nil {
		err = f.Decode(&join)
	}
	if errors.Is(err, wire.ErrFrame) {
		return nil, &transport.Error{Reason: transport.Protocol, Op: "read join", Err: err}
	}
	if err != nil {
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
	reason := transport.ReasonOf(err)
	level, session := slog.LevelDebug, ""
	if e != nil {
		e.cut(err)
		level, session = slog.LevelInfo, e.grant.Session
	}
	s.log.Log(context.Background(), level, "join refused",
		"addr", conn.RemoteAddr().String(), "session", session, "reason", string(reason), "err", err)
	conn.SetDeadline(time.Now().Add(joinTime))
	// Whoever does not read his refusal has had it.
	_ = wire.Refuse(conn, &wire.Refusal{Reason: reason})
}

// wait returns when the other end has come and the client was told.
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
