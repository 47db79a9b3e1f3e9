package access

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime/debug"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// ServeConn serves one accepted hawser-access/1 connection whose handshake is
// done (wire §3, §4), until it or ctx ends, and closes it. TLS must have asked
// for a client certificate without verifying it: that is done here. A panic
// ends this connection alone.
func (s *Server) ServeConn(ctx context.Context, conn *tls.Conn) {
	defer conn.Close()
	ctx, cancel, ok := s.attend(ctx)
	defer cancel()
	if !ok {
		return
	}
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("connection panicked", "addr", conn.RemoteAddr(), "err", fmt.Sprintf("%v\n%s", v, debug.Stack()))
		}
	}()
	err := s.serve(ctx, conn)
	if gone(err) || ctx.Err() != nil {
		return
	}
	r := refusalOf(err)
	s.logRefusal(conn, r, err)
	conn.SetDeadline(time.Now().Add(writeTimeout))
	if wire.Refuse(conn, r) == nil {
		linger(conn)
	}
}

func (s *Server) logRefusal(conn *tls.Conn, r *wire.Refusal, err error) {
	if isOurs(err) {
		s.log.Error("request failed", "addr", conn.RemoteAddr(), "err", err)
		return
	}
	s.log.Debug("connection refused", "addr", conn.RemoteAddr(), "reason", r.Reason)
}

// linger lets a refusal arrive: closing while bytes of the peer lie unread
// would reset the connection under it.
func linger(conn *tls.Conn) {
	const mostBytes = 64 << 10
	defer time.AfterFunc(endTimeout, func() { conn.NetConn().Close() }).Stop()
	conn.CloseWrite()
	io.CopyN(io.Discard, conn.NetConn(), mostBytes)
}

// serve does the prelude and then what the client came for.
func (s *Server) serve(ctx context.Context, conn *tls.Conn) error {
	conn.SetDeadline(time.Now().Add(preludeTimeout))
	leaf, err := s.leafSPKI()
	if err != nil {
		return err
	}
	f, err := wire.Read(conn)
	if err != nil {
		return err
	}
	if f.Type != wire.TypeTimeRequest {
		return unexpected(f)
	}
	if len(f.Payload) == wire.TimeRequestBytes {
		// Also when no time is signed: that may be for the same wrong clock.
		if err := s.sendFloorReset(conn, wire.TimeRequest(f.Payload)); err != nil {
			return err
		}
	}
	answer, err := s.signTime(f, leaf)
	if err != nil {
		return err
	}
	if err := wire.Write(conn, wire.TypeTime, answer); err != nil {
		return err
	}
	f, err = wire.Read(conn)
	if err != nil {
		return err
	}
	// Signing and storing may take a while; reading may not (wire §5.3).
	conn.SetDeadline(time.Now().Add(preludeTimeout))
	return s.purpose(ctx, conn, f, leaf)
}

// purpose does what the first frame after the prelude asks for (wire §4).
func (s *Server) purpose(ctx context.Context, conn *tls.Conn, f wire.Frame, leaf identity.SPKI) error {
	from, chain := remote(conn), conn.ConnectionState().PeerCertificates
	switch f.Type {
	case wire.TypeEnrol:
		var m wire.Enrol
		if err := f.Decode(&m); err != nil {
			return err
		}
		id, err := s.enrol(ctx, from.Addr(), m)
		return answerIdentity(conn, id, err)
	case wire.TypeRenew:
		var m wire.Renew
		if err := f.Decode(&m); err != nil {
			return err
		}
		id, err := s.renew(ctx, from.Addr(), chain, m)
		return answerIdentity(conn, id, err)
	case wire.TypeHello:
		var m wire.Hello
		if err := f.Decode(&m); err != nil {
			return err
		}
		return s.control(ctx, conn, m, leaf)
	}
	return unexpected(f)
}

func answerIdentity(conn *tls.Conn, id wire.Identity, err error) error {
	if err != nil {
		return err
	}
	return wire.WriteJSON(conn, wire.TypeIdentity, id)
}

// signTime answers a time-request on a connection where leaf was shown
// (identity §6), unless the own clock is not to be trusted.
func (s *Server) signTime(f wire.Frame, leaf identity.SPKI) ([]byte, error) {
	if len(f.Payload) != wire.TimeRequestBytes {
		return nil, fmt.Errorf("%w: time-request of %d bytes", wire.ErrFrame, len(f.Payload))
	}
	now, ok := s.clock.trusted()
	if !ok {
		if behind, newest, due := s.clock.complaint(now); due {
			s.log.Error("no time is signed: the clock is behind the store; set the clock, wait, or say in access.clock_set that it is right", "behind", behind, "newest", newest)
		}
		return nil, errClock
	}
	request := wire.TimeRequest(f.Payload)
	return identity.SignedTime{
		Nonce: request.Nonce(), Time: now, Server: leaf, UID: request.UID(), Sequence: s.sequence.Add(1),
	}.Sign(s.cfg.TimeKey, s.cfg.TimeCert)
}

// errClock refuses service while the own clock is not to be trusted (wire §3).
var errClock = refuse(transport.ClockWrong, "the server's clock is behind its own records: its operator must set it")

func unexpected(f wire.Frame) error {
	if f.Type == wire.TypeRefuse {
		return errors.Join(io.EOF, f.Refusal()) // the peer ends it
	}
	return fmt.Errorf("%w: type %#02x is not expected here", wire.ErrFrame, byte(f.Type))
}

// remote returns the peer's address; the zero one for a network without any.
func remote(conn *tls.Conn) netip.AddrPort {
	addr, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}
