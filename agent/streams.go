package agent

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"hawser/transport"
	"hawser/transport/session"
	"hawser/transport/wire"
)

const targetTimeout = 10 * time.Second // to reach a machine on the LAN side

// serveStream serves one stream from its header to its end, or until ctx ends
// with the session (wire §6.3).
func (a *Agent) serveStream(ctx context.Context, s *session.Stream, o wire.Offer) {
	defer s.Close()
	header, err := s.Header()
	if err != nil {
		s.Refuse(transport.Protocol, "")
		return
	}
	if !slices.Contains(o.Permissions, string(header.Service)) {
		s.Refuse(transport.Policy, "the session does not permit "+string(header.Service))
		return
	}
	switch header.Service {
	case wire.ServiceTCP:
		a.serveTCP(ctx, s, header.Target, o)
	case wire.ServicePing:
		if s.Grant() == nil {
			io.Copy(s, s)
		}
	default:
		s.Refuse(transport.Unsupported, "")
	}
}

// serveTCP connects a stream with a machine, if the owner's policy allows it.
func (a *Agent) serveTCP(ctx context.Context, s *session.Stream, target string, o wire.Offer) {
	addr, err := netip.ParseAddrPort(target)
	if err != nil {
		s.Refuse(transport.Protocol, "the target is not IP:PORT")
		return
	}
	if !a.policy().Allows(addr) {
		a.log.Warn("stream refused", "session", o.Session, "user", o.User, "addr", addr, "reason", transport.Policy)
		s.Refuse(transport.Policy, fmt.Sprintf("the owner of the device does not allow %s", addr))
		return
	}
	dialing, cancel := context.WithTimeout(ctx, targetTimeout)
	defer cancel()
	conn, err := a.DialContext(dialing, "tcp", addr.String())
	if err != nil {
		reason := transport.ReasonOf(err)
		a.log.Info("stream refused", "session", o.Session, "user", o.User, "addr", addr, "reason", reason)
		s.Refuse(reason, fmt.Sprintf("the device cannot reach %s", addr))
		return
	}
	machine, ok := conn.(session.Half)
	if !ok || s.Grant() != nil {
		conn.Close()
		return
	}
	// A session that is over reads as the end of the stream, and a machine need
	// not answer that by closing its own direction.
	stop := context.AfterFunc(ctx, func() { machine.Close() })
	defer stop()
	a.log.Info("stream open", "session", o.Session, "user", o.User, "addr", addr)
	session.Bridge(machine, s)
}

// policy is the owner's policy as it is now: LAN interfaces come and go.
func (a *Agent) policy() Policy {
	p := Policy{Rules: a.Config.Allow}
	if p.Rules == nil {
		lan, err := a.board.LANPrefixes()
		if err != nil {
			a.log.Warn("read LAN networks", "err", err)
		}
		p.LAN = lan
	}
	return p
}
