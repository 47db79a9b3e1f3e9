package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"hawser/identity"
	"hawser/server/choose"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

func (s *Server) postMove(r request) (int, any, error) {
	var body api.MoveRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	record, err := s.ownSession(r.Context(), r.caller.peer.Name, r.vars["session"])
	if err == nil {
		err = s.checkSeen(r.Context(), r.caller, record)
	}
	if err != nil {
		return 0, nil, err
	}
	if body.Epoch < 1 {
		return 0, nil, refuse(api.BadRequest, "epoch is under 1")
	}
	// Both ends ask when their relay dies. The second one waits here, and gets what the first has brought about.
	release, err := s.sessions.lockMove(r.Context(), record.ID)
	if err != nil {
		return 0, nil, err
	}
	defer release()
	// A Manager that hangs up meanwhile asks again, and then gets the result of this move.
	offer, err := s.moveSession(context.WithoutCancel(r.Context()), r.caller.peer, record.ID, body)
	return http.StatusOK, api.SessionAnswer{Offer: offer}, err
}

// ownSession reads a session that this user has opened. For another user's session the answer is that there is none.
func (s *Server) ownSession(ctx context.Context, user identity.Name, id string) (store.Session, error) {
	r, err := s.session(ctx, id)
	if err == nil && identity.UserName(r.Domain, r.User) != user {
		err = errNotFound
	}
	return r, err
}

// checkSeen refuses the move of a session whose device the owner has taken out of the caller's scope since.
func (s *Server) checkSeen(ctx context.Context, c caller, r store.Session) error {
	if _, err := s.findDevice(ctx, c, r.Device.String()); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return s.orLost(errNotFound)
}

// moveSession gives both ends of a session a new epoch on another relay (access §5.2). If the Manager has lost an
// earlier epoch than the present one, whose offer it never got, it gives it a new offer of the present one. The caller
// holds the session's lockMove. It blocks until the Runtime has answered, for offerTimeout at most. Both ends complain
// when a relay dies: the first request moves the session, and the second one finds the new epoch.
func (s *Server) moveSession(ctx context.Context, user identity.Peer, id string, lost api.MoveRequest) (wire.Offer, error) {
	r, err := s.ownSession(ctx, user.Name, id)
	if err == nil {
		err = s.store.Health().Granting()
	}
	switch {
	case err != nil:
		return wire.Offer{}, err
	case !r.Ended.IsZero():
		return wire.Offer{}, errGone(r)
	case lost.Epoch > r.Epoch:
		return wire.Offer{}, refuse(api.BadRequest, "the session has no such epoch yet")
	}
	runtime, err := s.locate(ctx, r.DeviceIdentity())
	if err != nil {
		return wire.Offer{}, err
	}
	if runtime == nil {
		s.sessionLost(ctx, id)
		return wire.Offer{}, s.refuseSession(ctx, user, r.DeviceIdentity(), transport.Offline, "move of session "+id)
	}
	if !runtime.speaks() { // it was another program when the session was opened
		return wire.Offer{}, s.refuseSession(ctx, user, r.DeviceIdentity(), transport.Unsupported, "update hawser-agent of "+r.Device.String())
	}
	chain, err := s.deviceChain(ctx, runtime.peer())
	if err != nil {
		s.sessionLost(ctx, id)
		return wire.Offer{}, s.refuseSessionFor(ctx, user, r.DeviceIdentity(), err)
	}
	relay := s.presence.relay(r.Relay)
	// A present epoch that the Runtime knows, at a relay that is there: it only has to be told again, and nobody is
	// moved twice.
	if lost.Epoch < r.Epoch && relay != nil && s.sessions.agreedTo(id) == r.Epoch {
		return s.offerManager(r, relay, user, runtime, chain)
	}
	return s.nextEpoch(ctx, user, r, lost, runtime, chain)
}

// errEnded refuses a move that comes too late.
var errEnded = refuse(transport.Closed, "the session has ended")

// nextEpoch chooses a relay, stores the next epoch and offers it. After an error the session is lost, and has moveTime
// for another try.
func (s *Server) nextEpoch(ctx context.Context, user identity.Peer, r store.Session, lost api.MoveRequest, runtime *onlineMember,
	chain []string) (offer wire.Offer, err error) {
	defer func() {
		if err != nil {
			s.sessionLost(ctx, r.ID)
		}
	}()
	left := r.Lost // the present epoch never ran, so its relay is not to blame: the one before it was lost
	if lost.Epoch == r.Epoch {
		left = r.Relay
	}
	// Without the relay that was left: its measurements are as good as before it died, and it would be chosen again.
	d, relay, err := s.chooseRelay(ctx, user, r.Device, left)
	if err != nil {
		return wire.Offer{}, s.refuseSessionFor(ctx, user, r.DeviceIdentity(), err)
	}
	r.Instance = runtime.instance // which may be another process than the one that had it
	r, err = s.commitEpoch(ctx, r, d, left)
	if err != nil {
		return wire.Offer{}, err
	}
	offer, err = s.offerBoth(ctx, r, user, runtime, relay, chain)
	if err != nil {
		return wire.Offer{}, s.moveFailed(ctx, user, r, err)
	}
	s.counted.moved.Inc()
	text := fmt.Sprintf("session %s epoch %d %s, left %s: %s", r.ID, r.Epoch, choose.Summary(d), left, cleanReason(lost.Reason))
	return offer, s.auditOf(ctx, r.DeviceIdentity(), s.record(actionSessionMove, user.Name.String(), r.DeviceIdentity(), nil, text), anyRecords)
}

// commitEpoch stores the next epoch together with the decision that led to it. The epoch is compared in the
// transaction: of two nodes that move one session at once, one finds that the other was first.
func (s *Server) commitEpoch(ctx context.Context, old store.Session, d api.Decision, left string) (store.Session, error) {
	var r store.Session
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		r = store.Session{ID: old.ID}
		if err := tx.Get(&r); err != nil {
			return err
		}
		switch {
		case !r.Ended.IsZero():
			return errGone(r)
		case r.Epoch != old.Epoch:
			// A second is enough for the other server to be done. Then this one has learnt the new epoch.
			return &wire.Refusal{Reason: transport.Busy, Text: "another server moves the session", RetryAfter: time.Second}
		}
		r.Epoch, r.Relay, r.Lost, r.Instance = r.Epoch+1, d.Chosen, left, old.Instance
		return errors.Join(tx.Put(&r), storeDecision(tx, r.User, d),
			s.publishSession(tx, &sessionChange{Record: r, Agreed: s.sessions.agreedTo(r.ID)}))
	})
	if err == nil {
		s.sessions.replace(r)
		s.hint()
	}
	return r, err
}

// moveFailed ends a session whose Runtime refused the offer. A Runtime that did not answer may answer the next try.
func (s *Server) moveFailed(ctx context.Context, user identity.Peer, r store.Session, err error) error {
	if reason := transport.ReasonOf(err); reason != transport.Offline {
		if err := s.endSession(ctx, r.ID, s.cfg.Name.String(), reason); err != nil {
			return err
		}
	}
	return s.refuseSessionFor(ctx, user, r.DeviceIdentity(), err)
}
