package access

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"hawser/identity"
	"hawser/server/gate"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// ServeConn serves one accepted hawser-access/1 connection whose handshake is done (wire §3, §4), until it or ctx ends,
// and closes it. TLS must have asked for a client certificate without verifying it: that is done here, because an
// enrolling client has none and a renewing one may have an expired one. A panic ends only this connection.
func (s *Server) ServeConn(ctx context.Context, conn *tls.Conn) {
	defer conn.Close()
	place, known := s.placeFor(conn, s.places.strangers, identity.KindDevice, identity.KindRelay)
	if place == nil {
		s.turnAway(conn, tellNoPlace)
		return
	}
	defer place.Leave()
	ctx, cancel, ok := s.whenReady(ctx)
	defer cancel()
	if !ok {
		return
	}
	// The socket and not the TLS connection: that would wait for a write that blocks.
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	defer func() {
		if v := recover(); v != nil {
			s.counted.panics.Inc()
			s.log.Error("connection panicked", "addr", conn.RemoteAddr(), "err", fmt.Sprintf("%v\n%s", v, debug.Stack()))
		}
	}()
	named := func() {}
	if known {
		named = place.Leave // who has none keeps it: it enrolls, which is soon over
	}
	err := s.serve(ctx, conn, place, named)
	if peerGone(err) || ctx.Err() != nil {
		return
	}
	r := refusalOf(err)
	s.logRefusal(conn, r, err)
	conn.SetDeadline(time.Now().Add(writeTimeout))
	if wire.Refuse(conn, r) == nil {
		linger(conn)
	}
}

// logRefusal is loud about our own failures only: refusals of strangers would fill the log.
func (s *Server) logRefusal(conn *tls.Conn, r *wire.Refusal, err error) {
	s.counted.refused.Reason(r.Reason)
	if isInternal(err) {
		s.logFailure("request failed", err, "addr", conn.RemoteAddr())
		return
	}
	s.log.Debug("connection refused", "addr", conn.RemoteAddr(), "reason", r.Reason)
}

// serve does the prelude, which is the signed time, and then what the client asks for. named is called when the client
// has said what that is.
func (s *Server) serve(ctx context.Context, conn *tls.Conn, place *gate.Place, named func()) error {
	conn.SetDeadline(time.Now().Add(preludeTimeout))
	// The leaf that this connection was shown is signed with the time, so that a time cannot be passed on by another
	// server.
	leaf, err := s.leafSPKI()
	if err != nil {
		return err
	}
	f, err := wire.Read(conn)
	if err != nil {
		return err
	}
	// Nothing is read before it, no code and no CSR: a client that skips the prelude is not one of ours.
	if f.Type != wire.TypeTimeRequest {
		return unexpected(f)
	}
	if len(f.Payload) == wire.TimeRequestBytes {
		// Sent also when no time is signed: the same wrong clock may be the reason for the reset.
		if err := s.sendFloorReset(conn, wire.TimeRequest(f.Payload)); err != nil {
			return err
		}
	}
	if raw := s.refusedNow(); raw != nil {
		if err := wire.Write(conn, wire.TypeRefusedKeys, raw); err != nil {
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
	place.Progress()
	f, err = wire.Read(conn)
	if err != nil {
		return err
	}
	named()
	// Reading was limited to preludeTimeout (wire §5.3). Signing and storing get the same time again.
	conn.SetDeadline(time.Now().Add(preludeTimeout))
	return s.serveFrame(ctx, conn, f, leaf)
}

// serveFrame does what the first frame after the prelude asks for (wire §4). One purpose for each connection: the
// deadlines and rights of an enrollment are not those of a device that stays.
func (s *Server) serveFrame(ctx context.Context, conn *tls.Conn, f wire.Frame, leaf identity.SPKI) error {
	from, chain := remote(conn), conn.ConnectionState().PeerCertificates
	switch f.Type {
	case wire.TypeEnroll:
		var m wire.Enroll
		if err := f.Decode(&m); err != nil {
			return err
		}
		id, err := s.enroll(ctx, from.Addr(), m)
		s.counted.gave("enroll", err)
		return answerIdentity(conn, id, err)
	case wire.TypeRenew:
		var m wire.Renew
		if err := f.Decode(&m); err != nil {
			return err
		}
		id, err := s.renew(ctx, from.Addr(), chain, m)
		s.counted.gave("renew", err)
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

// answerIdentity sends what was stored. When the write fails, the same request gives the same answer later (access §2).
func answerIdentity(conn *tls.Conn, id wire.Identity, err error) error {
	if err != nil {
		return err
	}
	return wire.WriteJSON(conn, wire.TypeIdentity, id)
}

// signTime answers a time-request on a connection where leaf was shown (identity §6), unless the server's clock is not
// trusted.
func (s *Server) signTime(f wire.Frame, leaf identity.SPKI) ([]byte, error) {
	if len(f.Payload) != wire.TimeRequestBytes {
		return nil, fmt.Errorf("%w: time-request of %d bytes", wire.ErrFrame, len(f.Payload))
	}
	now, ok := s.clock.trusted()
	if !ok {
		if behind, newest, due := s.clock.alert(now); due {
			s.log.Error("no time is signed: the clock is behind the store; set the clock, wait, or say in access.clock_set that it is right", "behind", behind, "newest", newest)
		}
		return nil, errClock
	}
	request := wire.TimeRequest(f.Payload)
	return identity.SignedTime{
		Nonce: request.Nonce(), Time: now, Server: leaf, UID: request.UID(), Sequence: s.sequence.Add(1),
	}.Sign(s.cfg.TimeKey, s.cfg.TimeCert)
}

// postTime signs time for a Manager, which dates what it signs by its PC's clock (identity §16.4). A leaf that was replaced
// since the handshake makes an answer that the asker refuses, and asks again.
func (s *Server) postTime(r request) (int, any, error) {
	var body api.TimeRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	if len(body.Nonce) != 32 {
		return 0, nil, refuse(api.BadRequest, "nonce: want 32 bytes")
	}
	leaf, err := s.leafSPKI()
	if err != nil {
		return 0, nil, err
	}
	q := wire.NewTimeRequest([32]byte(body.Nonce), identity.UID{})
	signed, err := s.signTime(wire.Frame{Type: wire.TypeTimeRequest, Payload: q[:]}, leaf)
	return http.StatusOK, api.TimeAnswer{Time: signed}, err
}

// errClock refuses service while the server's clock is not trusted (wire §3).
var errClock = refuse(transport.ClockWrong, "the server's clock is behind its own records: its operator must set it")

// unexpected is the error for a frame that may not come here.
func unexpected(f wire.Frame) error {
	if f.Type == wire.TypeRefuse {
		return errors.Join(io.EOF, f.Refusal()) // the peer ends it
	}
	return fmt.Errorf("%w: type %#02x is not expected here", wire.ErrFrame, byte(f.Type))
}

// remote returns the peer's address, or the zero address on a network that has none, as in tests. Unmapped, since a
// listener for both families shows IPv4 as IPv6, and limits count by address.
func remote(conn *tls.Conn) netip.AddrPort {
	addr, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// ReadFloorReset reads the floor reset for uid from a directory with one file for each device, named by its UID (access
// §10), and verifies it. The error is fs.ErrNotExist if there is none. The name of the file is the parsed UID's text:
// no byte that a client sent becomes part of a path.
func ReadFloorReset(dir string, uid identity.UID, roots *identity.Roots) (raw []byte, r identity.FloorReset, err error) {
	path := filepath.Join(dir, uid.String())
	f, err := os.Open(path)
	if err != nil {
		return nil, r, err
	}
	defer f.Close()
	raw, err = io.ReadAll(io.LimitReader(f, int64(identity.FloorResetBytes)+1))
	if err == nil {
		r, err = identity.VerifyFloorReset(raw, roots, uid)
	}
	if err != nil {
		return nil, r, fmt.Errorf("read floor reset %s: %w", path, err)
	}
	return raw, r, nil
}

// sendFloorReset sends the floor reset for the device that a time-request names, if there is one (wire §3.3). Nobody
// has verified that UID, which is harmless: a reset is no secret, and only its device acts on it. A bad file is logged
// and not sent: the device still gets its time.
func (s *Server) sendFloorReset(w io.Writer, request wire.TimeRequest) error {
	uid := request.UID()
	if s.cfg.FloorResets == "" || uid.IsZero() {
		return nil
	}
	raw, _, err := ReadFloorReset(s.cfg.FloorResets, uid, s.cfg.Roots)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		if s.badResets.Allow(time.Now()) {
			s.log.Error("floor reset is not sent", "uid", uid, "err", err)
		}
		return nil
	}
	return wire.Write(w, wire.TypeFloorReset, raw)
}
