package access

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// control serves a control connection from its hello to its end (access §4).
func (s *Server) control(ctx context.Context, conn *tls.Conn, hello wire.Hello, leaf identity.SPKI) error {
	peer, err := s.identify(ctx, conn)
	if err != nil {
		return err
	}
	if err := checkHello(hello, peer.Name.Kind); err != nil {
		return err
	}
	conn.SetDeadline(time.Time{})
	l := newLink(conn, peer, hello, s.now())
	welcome := wire.Welcome{
		HeartbeatS: int(s.cfg.Heartbeat / time.Second),
		RenewAfter: halfLife(peer.Leaf.NotBefore, peer.Leaf.NotAfter),
	}
	if err := s.audit(ctx, actionOnline, l.from.String(), peer.Name, nil, "version "+hello.Version); err != nil {
		return err
	}
	s.presence.attach(l, welcome, s.now())
	s.cluster.touch(peer.Name)
	s.log.Info("online", "uid", peer.Name.ID, "addr", l.from)
	if peer.Name.Kind == identity.KindDevice {
		s.endSessionsBefore(ctx, peer.Name, hello.Instance)
	}
	err = l.run(s.cfg.Heartbeat,
		func(f wire.Frame) error { return s.handle(ctx, l, f, leaf) },
		func() {
			s.presence.detach(l)
			s.cluster.touch(peer.Name)
		})
	s.log.Info("offline", "uid", peer.Name.ID, "addr", l.from, "reason", transport.ReasonOf(err))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := s.audit(ctx, actionOffline, l.from.String(), peer.Name, err, ""); err != nil {
		s.log.Error("audit failed", "err", err)
	}
	return nil // the link has told its peer
}

// identify returns the device or relay behind a connection: certificate valid
// now, registry knows the key, not revoked.
func (s *Server) identify(ctx context.Context, conn *tls.Conn) (identity.Peer, error) {
	chain := conn.ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return identity.Peer{}, refuse(transport.NotEnrolled, "no client certificate")
	}
	peer, err := identity.Verify(chain, s.cfg.Roots, s.now(), identity.KindDevice, identity.KindRelay)
	if err != nil {
		return identity.Peer{}, unproven(err)
	}
	bucket, key := memberAt(peer.Name)
	m, _, err := load[memberRecord](ctx, s.cfg.Store, bucket, key)
	if errors.Is(err, ErrNotFound) {
		return identity.Peer{}, refuse(transport.NotEnrolled, "not in the registry")
	} else if err != nil {
		return identity.Peer{}, err
	}
	return peer, s.known(m, peer)
}

// Bounds of a hello.
const (
	maxVersionBytes  = 64
	maxInstanceBytes = 64 // hex digits
	maxHosts         = 8
	maxHostBytes     = 253 // RFC 1035 §2.3.4
	maxPorts         = 8
)

// checkHello refuses what others could not use, or could be harmed by.
func checkHello(h wire.Hello, kind identity.Kind) error {
	bad := func(what string) error { return fmt.Errorf("%w: hello: %s", wire.ErrFrame, what) }
	_, err := hex.DecodeString(h.Instance)
	switch relay := kind == identity.KindRelay; {
	case len(h.Version) > maxVersionBytes || printable(h.Version) != h.Version:
		return bad("version")
	case err != nil || len(h.Instance) > maxInstanceBytes || relay && h.Instance == "":
		return bad("instance")
	case len(h.Hosts) > maxHosts || len(h.Ports) > maxPorts:
		return bad("too many hosts or ports")
	case relay && (len(h.Hosts) == 0 || len(h.Ports) == 0):
		return bad("a relay without hosts or ports")
	}
	for _, host := range h.Hosts {
		if !isHost(host) {
			return bad("host")
		}
	}
	for _, port := range h.Ports {
		if port == 0 {
			return bad("port")
		}
	}
	return nil
}

// isHost reports whether s is an IP literal or can be a DNS name.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return len(s) <= maxHostBytes && printable(s) == s
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return s != "" && len(s) <= maxHostBytes
}

// handle acts on one frame of a control connection, other than pings.
func (s *Server) handle(ctx context.Context, l *link, f wire.Frame, leaf identity.SPKI) error {
	switch f.Type {
	case wire.TypeOfferAck:
		var m wire.OfferAck
		if err := f.Decode(&m); err != nil {
			return err
		}
		s.offerAnswered(l, m)
		return nil
	case wire.TypeEndSession:
		var m wire.EndSession
		if err := f.Decode(&m); err != nil {
			return err
		}
		return s.sessionEnded(ctx, l.peer.Name, m)
	case wire.TypeMeasurements:
		return s.measurementsFrom(ctx, l, f)
	case wire.TypeLoad:
		return s.loadFrom(l, f)
	case wire.TypeTimeAgain:
		answer, err := s.signTime(f, leaf)
		if err != nil {
			return err
		}
		l.send(message{wire.TypeTime, answer})
		return nil
	}
	return unexpected(f)
}

// halfLife returns the middle of a certificate's life.
func halfLife(from, to time.Time) time.Time { return from.Add(to.Sub(from) / 2).UTC() }
