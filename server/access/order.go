package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// order is what a node asks of the node to which a Runtime is attached (access §9), or, without a device, with Head of a node
// about itself, or with Claim about a gateway that waits there to be claimed. One of the members after Device is set.
type order struct {
	Device  string           `json:"device,omitempty"` // name URI
	Head    bool             `json:"head,omitempty"`
	Offer   *wire.Offer      `json:"offer,omitempty"`
	End     *wire.EndSession `json:"end,omitempty"`
	Measure bool             `json:"measure,omitempty"`
	Claim   *claimed         `json:"claim,omitempty"`
}

// claimed names the gateways that wait with a code.
type claimed struct {
	Lookup string     `json:"lookup"`
	Hash   store.Hash `json:"hash"`
}

// orderReply is the result of an order.
type orderReply struct {
	Reason transport.Reason `json:"reason"`         // empty: done
	Text   string           `json:"text,omitempty"` // of a Runtime that refuses, for people
	Head   *api.AuditHead   `json:"head,omitempty"`
	Claim  *api.Claim       `json:"claim,omitempty"`
}

// orderGrace is how long a message to another node and back may take.
const orderGrace = time.Second

// offer sends a Runtime an offer, through the node to which it is attached, and returns its answer as link.offer does,
// after offerTimeout and orderGrace at most.
func (s *Server) offer(ctx context.Context, to *onlineMember, o wire.Offer) orderReply {
	if to.link != nil {
		return to.link.offer(ctx, o.Session, encode(wire.TypeOffer, o))
	}
	reply, err := s.order(ctx, to, offerTimeout+orderGrace, order{Offer: &o})
	if err != nil {
		s.log.Warn("a Runtime's Access Server does not answer", "uid", to.name.ID, "err", err)
		return orderReply{Reason: transport.Offline}
	}
	return orderReply{Reason: cleanReason(reply.Reason), Text: wire.Printable(reply.Text)}
}

// sendEnd tells a Runtime, through the node to which it is attached, that a session is over. A failure is only logged:
// the Runtime notices by itself that the other end is gone.
func (s *Server) sendEnd(ctx context.Context, device identity.Name, m wire.EndSession) {
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

// requestMeasurements asks a Runtime, through the node to which it is attached, to measure, and waits until the result
// can be read here.
func (s *Server) requestMeasurements(ctx context.Context, to *onlineMember) error {
	if to.link != nil {
		to.link.requestMeasurements(ctx)
		return nil
	}
	_, err := s.order(ctx, to, measureTimeout+orderGrace, order{Measure: true})
	if errors.Is(err, ErrNoNode) {
		return nil // the node has just left
	}
	return err
}

// order sends an order and returns the reply; an empty reason is success.
func (s *Server) order(ctx context.Context, to *onlineMember, wait time.Duration, o order) (reply orderReply, err error) {
	o.Device = to.name.String()
	return s.orderOf(ctx, to.node, wait, o)
}

// orderOf is order for a node.
func (s *Server) orderOf(ctx context.Context, node string, wait time.Duration, o order) (reply orderReply, err error) {
	b, err := json.Marshal(o)
	if err != nil {
		return reply, fmt.Errorf("order: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	b, err = s.cluster.bus.Request(ctx, node, b)
	if err != nil {
		return reply, err
	}
	if err := json.Unmarshal(b, &reply); err != nil {
		return reply, fmt.Errorf("reply of node %s: %w", node, err)
	}
	return reply, nil
}

// serveOrder executes an order of another node. Its sender has proven to be a node (authenticateNode), and still names
// a device only: what is sent to it is what this node would send itself.
func (s *Server) serveOrder(ctx context.Context, body []byte) []byte {
	var o order
	reply := orderReply{Reason: transport.Protocol}
	switch err := json.Unmarshal(body, &o); {
	case err != nil:
	case o.Head:
		reply = s.replyHead(ctx)
	case o.Claim != nil:
		reply = orderReply{Claim: s.claims.find(*o.Claim, s.now())}
	case o.Device != "":
		if name, err := identity.ParseName(o.Device); err == nil {
			reply = s.executeOrder(ctx, name, o)
		}
	}
	b, err := json.Marshal(reply)
	if err != nil { // cannot happen: it is strings and numbers
		return nil
	}
	return b
}

// executeOrder does nothing without the lease: the device may be attached elsewhere by now, and what another node says
// to it counts.
func (s *Server) executeOrder(ctx context.Context, device identity.Name, o order) orderReply {
	l := s.presence.find(device)
	switch {
	case l == nil || !s.cluster.holds():
		return orderReply{Reason: transport.Offline}
	case o.Offer != nil:
		return l.offer(ctx, o.Offer.Session, encode(wire.TypeOffer, *o.Offer))
	case o.End != nil:
		l.send(encode(wire.TypeEndSession, *o.End))
	case o.Measure:
		l.requestMeasurements(ctx)
		s.flushMeasurements(ctx, device)
	}
	return orderReply{}
}

// replyHead tells where the audit of this node ends, signed.
func (s *Server) replyHead(ctx context.Context) orderReply {
	var heads []api.AuditHead
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		heads, err = tx.AuditHeads()
		return err
	})
	for _, h := range heads {
		if h.Node != s.cluster.node || err != nil {
			continue
		}
		if h, err = s.signHead(h); err == nil {
			return orderReply{Head: &h}
		}
	}
	s.logFailure("audit head not signed", err)
	return orderReply{Reason: transport.Internal}
}

// flushMeasurements writes what a Runtime has measured, so that other nodes can read it.
func (s *Server) flushMeasurements(ctx context.Context, device identity.Name) {
	uid, err := identity.ParseUID(device.ID)
	if err == nil {
		err = s.measured.flushKey(ctx, measuredByRuntime(uid))
	}
	if err != nil {
		s.logFailure("measurements not stored", err, "uid", device.ID)
	}
}
