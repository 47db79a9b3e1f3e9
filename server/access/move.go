package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// moveBody is that of POST /api/v1/sessions/{session}/move; the answer is a
// sessionAnswer.
type moveBody struct {
	Epoch  int              `json:"epoch"`  // the one that was lost
	Reason transport.Reason `json:"reason"` // why, for the audit log
}

func (s *Server) postMove(r request) (int, any, error) {
	var body moveBody
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	record, err := s.ownSession(r.Context(), r.caller.peer.Name, r.vars["session"])
	if err != nil {
		return 0, nil, err
	}
	if body.Epoch < 1 {
		return 0, nil, refuse(codeBadRequest, "epoch is under 1")
	}
	release, err := s.sessions.hold(r.Context(), record.Session)
	if err != nil {
		return 0, nil, err
	}
	defer release()
	// A Manager that gives up meanwhile asks again, and gets what came of this.
	offer, err := s.moveSession(context.WithoutCancel(r.Context()), r.caller.peer, record.Session, body)
	return http.StatusOK, sessionAnswer{offer}, err
}

// ownSession returns a session that a user has opened. Anybody else's does not
// exist.
func (s *Server) ownSession(ctx context.Context, user identity.Name, id string) (sessionRecord, error) {
	if !isID(id) {
		return sessionRecord{}, errNotFound
	}
	r, _, err := load[sessionRecord](ctx, s.cfg.Store, bucketSessions, id)
	if errors.Is(err, ErrNotFound) || err == nil && identity.UserName(r.Domain, r.User) != user {
		err = errNotFound
	}
	return r, err
}

// moveSession gives both ends of a session a new epoch on another relay, or
// the Manager a new offer of the present epoch when that is not the one it lost
// (access §5.2). Nobody else moves the session meanwhile. It blocks until the
// Runtime has answered, 5 s at most.
func (s *Server) moveSession(ctx context.Context, user identity.Peer, id string, lost moveBody) (wire.Offer, error) {
	r, err := s.ownSession(ctx, user.Name, id)
	switch {
	case err != nil:
		return wire.Offer{}, err
	case r.Ended != nil:
		return wire.Offer{}, errEnded
	case lost.Epoch > r.Epoch:
		return wire.Offer{}, refuse(codeBadRequest, "the session has no such epoch yet")
	}
	runtime, err := s.locate(ctx, r.device())
	if err != nil {
		return wire.Offer{}, err
	}
	if runtime == nil {
		s.loseSession(ctx, id)
		return wire.Offer{}, s.refuseSession(ctx, user, r.device(), transport.Offline, "move of session "+id)
	}
	relay := s.presence.relay(r.Relay)
	if lost.Epoch < r.Epoch && relay != nil && s.sessions.agreedTo(id) == r.Epoch {
		return s.makeOffer(r, wire.RoleManager, relay, user, runtime.peer())
	}
	return s.nextEpoch(ctx, user, r, lost, runtime)
}

// errEnded answers a move that comes too late.
var errEnded = refuse(transport.Closed, "the session has ended")

// nextEpoch chooses anew, commits and offers. A session that could not be moved
// keeps its time to be moved again.
func (s *Server) nextEpoch(ctx context.Context, user identity.Peer, r sessionRecord, lost moveBody, runtime *attached) (offer wire.Offer, err error) {
	defer func() {
		if err != nil {
			s.loseSession(ctx, r.Session)
		}
	}()
	left := r.Lost // an epoch that never ran has lost no relay of its own
	if lost.Epoch == r.Epoch {
		left = r.Relay
	}
	d, relay, err := s.chooseRelay(ctx, user, r.Device, left)
	if err != nil {
		return wire.Offer{}, s.refusedFor(ctx, user, r.device(), err)
	}
	r, err = s.commitEpoch(ctx, r, d.Chosen, left)
	if err != nil {
		return wire.Offer{}, err
	}
	if err := s.keepDecision(ctx, user.Name.ID, d); err != nil {
		return wire.Offer{}, err
	}
	offer, err = s.offerBoth(ctx, r, user, runtime, relay)
	if err != nil {
		return wire.Offer{}, s.notMoved(ctx, user, r, err)
	}
	text := fmt.Sprintf("session %s epoch %d %s, left %s: %s", r.Session, r.Epoch, d, left, cleanReason(lost.Reason))
	return offer, s.audit(ctx, actionSessionMove, user.Name.String(), r.device(), nil, text)
}

// commitEpoch writes the next epoch in one compare-and-set.
func (s *Server) commitEpoch(ctx context.Context, old sessionRecord, relay, left string) (sessionRecord, error) {
	r, err := update(ctx, s.cfg.Store, bucketSessions, old.Session, func(r *sessionRecord) (bool, error) {
		switch {
		case r.Ended != nil:
			return false, errEnded
		case r.Epoch != old.Epoch:
			return false, &wire.Refusal{Reason: transport.Busy, Text: "another server moves the session", RetryAfter: time.Second}
		}
		r.Epoch, r.Relay, r.Lost = r.Epoch+1, relay, left
		return true, nil
	})
	if err == nil {
		s.sessions.moved(r)
		s.tellSession(ctx, r.Session)
	}
	return r, err
}

// notMoved ends a session whose Runtime refused the offer; one that did not
// answer may do so next time.
func (s *Server) notMoved(ctx context.Context, user identity.Peer, r sessionRecord, err error) error {
	if reason := transport.ReasonOf(err); reason != transport.Offline {
		if err := s.endSession(ctx, r.Session, s.cfg.Name.String(), reason); err != nil {
			return err
		}
	}
	return s.refusedFor(ctx, user, r.device(), err)
}
