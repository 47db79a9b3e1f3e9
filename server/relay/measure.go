package relay

import (
	"context"
	"crypto/tls"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// What a client that measures gets (wire §5.4).
const (
	measureTime = 15 * time.Second
	maxEchoes   = 32
)

// mayMeasure says whether a client may: whoever could be in a session, without
// the need of a grant.
func (s *Server) mayMeasure(conn *tls.Conn) error {
	peer, err := verifyClient(conn.ConnectionState().PeerCertificates, s.law(s.config.Now()))
	if err != nil {
		return err
	}
	if s.table.isRevoked(peer.SPKI) {
		return refuse(transport.Revoked, "verify client")
	}
	return nil
}

// measure sends back f and the echoes that follow it, until the client closes,
// has had its share, or sends something else, which is the error wire.ErrFrame.
func (s *Server) measure(ctx context.Context, conn *tls.Conn, f wire.Frame, began time.Time) (err error) {
	if err := prolong(ctx, conn, began.Add(measureTime)); err != nil {
		return err
	}
	for n := 1; ; n++ {
		if err := wire.Write(conn, wire.TypeEcho, f.Payload); err != nil || n == maxEchoes {
			return err
		}
		if f, err = wire.Expect(conn, wire.TypeEcho); err != nil {
			return err
		}
	}
}
