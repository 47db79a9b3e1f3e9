package access

import (
	"context"
	"errors"
	"time"

	"hawser/identity"
	"hawser/server/grant"
	"hawser/transport"
	"hawser/transport/wire"
)

// permissions is what a session may be used for; the Runtime's owner may allow
// less (wire §6.3).
func permissions() []string { return []string{string(wire.ServiceTCP), string(wire.ServicePing)} }

// openSession brokers a session between a user and a device of its domain
// (access §5.1) and returns the Manager's offer. It blocks until the Runtime
// has answered, 5 s at most after the record is committed.
func (s *Server) openSession(ctx context.Context, user identity.Peer, m memberRecord) (wire.Offer, error) {
	device := m.name()
	if m.Revoked != nil {
		return wire.Offer{}, s.refuseSession(ctx, user, device, transport.NoDevice, "revoked")
	}
	runtime, err := s.locate(ctx, device)
	if err != nil {
		return wire.Offer{}, err
	}
	if runtime == nil {
		return wire.Offer{}, s.refuseSession(ctx, user, device, transport.Offline, "no control connection")
	}
	d, relay, err := s.chooseRelay(ctx, user, m.UID, "")
	if err != nil {
		return wire.Offer{}, s.refusedFor(ctx, user, device, err)
	}
	r := sessionRecord{
		Session: newID(), Epoch: 1, Domain: m.Domain, Device: m.UID, User: user.Name.ID,
		Relay: d.Chosen, Instance: runtime.instance, Created: s.now().UTC(),
	}
	if err := save(ctx, s.cfg.Store, bucketSessions, r.Session, r, 0); err != nil {
		return wire.Offer{}, err
	}
	if err := s.keepDecision(ctx, user.Name.ID, d); err != nil {
		return wire.Offer{}, err
	}
	tooOld := s.sessions.add(r)
	s.tellSession(ctx, r.Session)
	for _, old := range tooOld {
		s.endSession(ctx, old.Session, s.cfg.Name.String(), transport.LinkLost)
	}
	offer, err := s.offerBoth(ctx, r, user, runtime, relay)
	if err != nil {
		// The Manager is gone, perhaps, but the record has to say how it ended.
		ctx := context.WithoutCancel(ctx)
		reason := transport.ReasonOf(err)
		s.endSession(ctx, r.Session, s.cfg.Name.String(), reason)
		return wire.Offer{}, s.refuseSession(ctx, user, device, reason, "session "+r.Session)
	}
	text := "session " + r.Session + " " + d.String()
	return offer, s.audit(ctx, actionSessionOpen, user.Name.String(), device, nil, text)
}

// refusedFor is refuseSession for what may be a refusal already.
func (s *Server) refusedFor(ctx context.Context, user identity.Peer, device identity.Name, err error) error {
	if r, ok := errors.AsType[*wire.Refusal](err); ok {
		return s.refuseSession(ctx, user, device, r.Reason, r.Text)
	}
	return err
}

// refuseSession records a refusal and returns it.
func (s *Server) refuseSession(ctx context.Context, user identity.Peer, device identity.Name, reason transport.Reason, text string) error {
	refusal := refuse(reason, text)
	if err := s.audit(ctx, actionSessionRefused, user.Name.String(), device, refusal, text); err != nil {
		return err
	}
	return refusal
}

// offerBoth offers the session to the Runtime, waits for its consent and
// returns the Manager's offer. Each grant names one end as its holder.
func (s *Server) offerBoth(ctx context.Context, r sessionRecord, user identity.Peer, runtime, relay *attached) (wire.Offer, error) {
	forRuntime, err := s.makeOffer(r, wire.RoleRuntime, relay, runtime.peer(), user)
	if err != nil {
		return wire.Offer{}, err
	}
	reason := s.offer(ctx, runtime, forRuntime)
	if reason != "" {
		return wire.Offer{}, refuse(reason, "the device refused the session")
	}
	s.sessions.agree(r.Session, r.Epoch)
	s.tellSession(ctx, r.Session)
	return s.makeOffer(r, wire.RoleManager, relay, user, runtime.peer())
}

func (s *Server) makeOffer(r sessionRecord, role wire.Role, relay *attached, holder, peer identity.Peer) (wire.Offer, error) {
	now := s.now().UTC().Truncate(time.Second)
	token, err := s.cfg.Grant.Sign(grant.Grant{
		ID: newID(), Relay: relay.name.ID, Instance: relay.instance,
		Session: r.Session, Epoch: r.Epoch, Role: role, Holder: holder.SPKI, Peer: peer.SPKI,
		Permissions: permissions(), Crypto: wire.CryptoNested, Issued: now, Expires: now.Add(grant.Life),
	})
	return wire.Offer{
		Session: r.Session, Epoch: r.Epoch, Role: role, Relay: relay.relay(), Grant: token,
		Peer: peer.Name.String(), PeerSPKI: peer.SPKI, Crypto: wire.CryptoNested,
		Permissions: permissions(), User: r.User,
	}, err
}

// endSession marks a session as over, tells the Runtime and records it. One
// that is over already stays as it is.
func (s *Server) endSession(ctx context.Context, id, actor string, reason transport.Reason) error {
	var ended bool
	r, err := update(ctx, s.cfg.Store, bucketSessions, id, func(r *sessionRecord) (bool, error) {
		if ended = r.Ended == nil; ended {
			now := s.now().UTC()
			r.Ended, r.Reason = &now, reason
		}
		return ended, nil
	})
	if err != nil {
		return err
	}
	s.sessions.remove(id)
	s.tellAny(ctx, news{Session: &sessionNews{Record: r}})
	device := r.device()
	if device.String() != actor {
		s.tellEnd(ctx, device, wire.EndSession{Session: id, Reason: reason})
	}
	if !ended {
		return nil
	}
	return s.audit(ctx, actionSessionEnd, actor, device, nil, "session "+id+": "+string(reason))
}

// offerAnswered takes a Runtime's answer to an offer. What it had said before of
// the session's link was said of an older epoch.
func (s *Server) offerAnswered(l *link, m wire.OfferAck) {
	if l.acknowledge(m) && m.Reason == "" {
		s.sessions.found(m.Session)
	}
}

// sessionEnded takes a Runtime's word that a session of its own is over, or
// only lost its way: then it can be moved (access §5.2). Anybody else's word,
// or a session that is unknown, changes nothing. While the store is away the
// session waits as a lost one does: the link is no worse for that.
func (s *Server) sessionEnded(ctx context.Context, device identity.Name, m wire.EndSession) error {
	if !isID(m.Session) {
		return nil
	}
	r, _, err := load[sessionRecord](ctx, s.cfg.Store, bucketSessions, m.Session)
	switch {
	case errors.Is(err, ErrAway):
		s.loseSession(ctx, m.Session)
		return nil
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case r.device() != device:
		return nil
	case isOfTheWay(m.Reason):
		s.loseSession(ctx, m.Session)
		return nil
	}
	err = s.endSession(ctx, m.Session, device.String(), cleanReason(m.Reason))
	if errors.Is(err, ErrAway) {
		s.loseSession(ctx, m.Session)
		return nil
	}
	return err
}

// isOfTheWay reports whether a session that ended by this reason may live on
// over another relay.
func isOfTheWay(r transport.Reason) bool {
	switch r {
	case transport.LinkLost, transport.Refused, transport.Timeout, transport.Unreachable, transport.Reset, transport.NoPeer:
		return true
	}
	return false
}

// endSessionsBefore ends the sessions that an earlier process of a Runtime
// held: they are gone with it, though nobody could say so.
func (s *Server) endSessionsBefore(ctx context.Context, device identity.Name, instance string) {
	uid, err := identity.ParseUID(device.ID)
	if err != nil {
		return
	}
	for _, r := range s.sessions.of(uid) {
		if r.Instance == instance {
			continue
		}
		if err := s.endSession(ctx, r.Session, device.String(), transport.LinkLost); err != nil {
			s.log.Error("session not ended", "session", r.Session, "err", err)
		}
	}
}
