package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// order is what a node asks the one to which a Runtime is attached (access §9).
// One of the last three is set.
type order struct {
	Device  string           `json:"device"` // name URI
	Offer   *wire.Offer      `json:"offer,omitempty"`
	End     *wire.EndSession `json:"end,omitempty"`
	Measure bool             `json:"measure,omitempty"`
}

// orderAnswer tells what came of an order.
type orderAnswer struct {
	Reason transport.Reason `json:"reason"` // empty: done
}

// orderGrace is what the way to another node and back may take.
const orderGrace = time.Second

// offer gives a Runtime an offer, at whichever node it is, and returns its
// answer, as link.offer does: after 5 s at most, and a second for the way.
func (s *Server) offer(ctx context.Context, to *attached, o wire.Offer) transport.Reason {
	if to.link != nil {
		return to.link.offer(ctx, o.Session, encode(wire.TypeOffer, o))
	}
	reason, err := s.order(ctx, to, offerTimeout+orderGrace, order{Offer: &o})
	if err != nil {
		s.log.Warn("a Runtime's Access Server does not answer", "uid", to.name.ID, "err", err)
		return transport.Offline
	}
	return reason
}

// tellEnd tells a Runtime, at whichever node it is, that a session is over. If
// it cannot be told it finds out by itself: its peer is gone.
func (s *Server) tellEnd(ctx context.Context, device identity.Name, m wire.EndSession) {
	to, err := s.locate(ctx, device)
	switch {
	case to == nil:
	case to.link != nil:
		to.link.send(encode(wire.TypeEndSession, m))
	default:
		_, err = s.order(ctx, to, orderGrace, order{End: &m})
	}
	if err != nil {
		s.log.Warn("the Runtime is not told that a session is over", "session", m.Session, "err", err)
	}
}

// measure asks a Runtime, at whichever node it is, to measure, and waits until
// what it found can be read.
func (s *Server) measure(ctx context.Context, to *attached) error {
	if to.link != nil {
		to.link.measure(ctx)
		return nil
	}
	_, err := s.order(ctx, to, measureTimeout+orderGrace, order{Measure: true})
	if errors.Is(err, ErrNoNode) {
		return nil // it has just gone
	}
	return err
}

func (s *Server) order(ctx context.Context, to *attached, wait time.Duration, o order) (transport.Reason, error) {
	o.Device = to.name.String()
	question, err := json.Marshal(o)
	if err != nil {
		return "", fmt.Errorf("order: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	b, err := s.cluster.bus.Request(ctx, to.node, question)
	if err != nil {
		return "", err
	}
	var a orderAnswer
	if err := json.Unmarshal(b, &a); err != nil {
		return "", fmt.Errorf("answer of node %s: %w", to.node, err)
	}
	return a.Reason, nil
}

// obey does what another node orders.
func (s *Server) obey(ctx context.Context, question []byte) []byte {
	var o order
	a := orderAnswer{transport.Protocol}
	if json.Unmarshal(question, &o) == nil {
		if name, err := identity.ParseName(o.Device); err == nil {
			a.Reason = s.carryOut(ctx, name, o)
		}
	}
	b, err := json.Marshal(a)
	if err != nil { // no reason does this
		return nil
	}
	return b
}

func (s *Server) carryOut(ctx context.Context, device identity.Name, o order) transport.Reason {
	l := s.presence.find(device)
	switch {
	case l == nil || !s.cluster.holds():
		return transport.Offline
	case o.Offer != nil:
		return l.offer(ctx, o.Offer.Session, encode(wire.TypeOffer, *o.Offer))
	case o.End != nil:
		l.send(encode(wire.TypeEndSession, *o.End))
	case o.Measure:
		l.measure(ctx)
		s.settle(ctx, device)
	}
	return ""
}

// settle writes what a Runtime has measured, for other nodes to read.
func (s *Server) settle(ctx context.Context, device identity.Name) {
	uid, err := identity.ParseUID(device.ID)
	if err == nil {
		err = s.measured.settle(ctx, measuredByRuntime(uid))
	}
	if err != nil {
		s.log.Error("measurements not stored", "uid", device.ID, "err", err)
	}
}
