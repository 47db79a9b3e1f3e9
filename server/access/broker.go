package access

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"hawser/identity"
	"hawser/server/choose"
	"hawser/server/grant"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// permissions is what a session may be used for. The Runtime's owner may allow less (session §4).
func permissions() []string { return []string{string(wire.ServiceTCP), string(wire.ServicePing)} }

// newID returns 128 random bits in hex. Ids of sessions and grants are looked up and never guessed: nobody can name a
// session that he has not been told of.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// isID reports whether newID could have made s. Nothing else is looked up. It keeps odd texts of clients away from the
// database.
func isID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16
}

// postSessions looks whether anything may be granted before it looks for the device: one that is not found may be what
// was lost.
func (s *Server) postSessions(r request) (int, any, error) {
	var body api.SessionRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	if body.SessionVersion != wire.SessionVersion {
		return 0, nil, refuse(transport.Unsupported, "update hawser")
	}
	if err := s.store.Health().Granting(); err != nil {
		return 0, nil, err
	}
	m, err := s.findDevice(r.Context(), r.caller, body.Device)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil, refuse(transport.NoDevice, "no such device")
	} else if err != nil {
		return 0, nil, err
	}
	offer, err := s.openSession(r.Context(), r.caller.peer, m)
	return http.StatusCreated, api.SessionAnswer{Offer: offer}, err
}

// session reads a session by an id that a client has sent. errNotFound: there is none.
func (s *Server) session(ctx context.Context, id string) (store.Session, error) {
	r := store.Session{ID: id}
	if !isID(id) {
		return r, errNotFound
	}
	err := s.store.View(ctx, func(tx *store.Tx) error { return tx.Get(&r) })
	if errors.Is(err, store.ErrNotFound) {
		err = s.orLost(errNotFound)
	}
	return r, err
}

// decide gathers what is known and chooses a relay (access §8). It asks nobody to measure: opening a session must not
// wait for that. lost is the relay that a move leaves, or empty.
func (s *Server) decide(ctx context.Context, user identity.Peer, device identity.UID, lost string) (api.Decision, error) {
	var runtime, manager []choose.Measurement
	last := store.Decision{Device: device, User: user.Name.ID}
	var before api.Decision
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		if runtime, err = s.measured.of(tx, measuredByRuntime(device)); err != nil {
			return err
		}
		if manager, err = s.measured.of(tx, measuredByManager(user.SPKI)); err != nil {
			return err
		}
		err = tx.Get(&last)
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) {
			return nil
		} else if err != nil {
			return err
		}
		return json.Unmarshal(last.Choice, &before)
	})
	if err != nil {
		return api.Decision{}, err
	}
	in := choose.Input{Device: device, At: s.now().UTC(), Incumbent: before.Chosen, Lost: lost}
	for _, r := range s.presence.relays() {
		name := r.name.ID
		in.Relays = append(in.Relays, choose.Relay{
			Name: name, Manager: findMeasurement(manager, name), Runtime: findMeasurement(runtime, name), Load: r.load,
		})
	}
	return choose.Decide(in), nil
}

// gathering is how long after the start of this process a session waits for the first relay. Everybody comes back from a
// restart at once, with full jitter: three tries of a relay are over within 7 s. A technician whose gateway was faster
// would be told that there is no relay.
const gathering = 10 * time.Second

// awaitRelay returns when a relay has been online since this process began, or had the time to come.
func (s *Server) awaitRelay(ctx context.Context) {
	first := s.presence.firstRelay()
	if first == nil {
		return
	}
	late := time.NewTimer(gathering - time.Since(s.began))
	defer late.Stop()
	select {
	case <-first:
	case <-late.C:
	case <-ctx.Done():
	case <-s.life.Done():
	}
}

// chooseRelay decides and returns the chosen relay. If there is none, the error is a refusal with reason no-relay.
func (s *Server) chooseRelay(ctx context.Context, user identity.Peer, device identity.UID, lost string) (api.Decision, *onlineMember, error) {
	s.awaitRelay(ctx)
	d, err := s.decide(ctx, user, device, lost)
	if err != nil {
		return d, nil, err
	}
	relay := s.presence.relay(d.Chosen)
	switch {
	case len(d.Relays) == 0:
		return d, nil, refuse(transport.NoRelay, "no relay is online")
	case relay == nil:
		return d, nil, refuse(transport.NoRelay, "every relay carries its maximum")
	}
	return d, relay, nil
}

// storeDecision stores a decision that is acted on: its relay is the incumbent of the next one.
func storeDecision(tx *store.Tx, user string, d api.Decision) error {
	choice, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return tx.Put(&store.Decision{Device: d.Device, User: user, At: d.At, Choice: choice})
}

// openSession brokers a session between a user and a device of its domain (access §5.1) and returns the Manager's
// offer. It blocks until the Runtime has answered, for offerTimeout at most after the session is stored. The order is
// what a failure leaves behind: the session is stored before the Runtime hears of it, so that a crash leaves a session
// that can be ended, and not one that nobody knows.
func (s *Server) openSession(ctx context.Context, user identity.Peer, m store.Member) (wire.Offer, error) {
	device := m.Identity()
	if !m.Revoked.IsZero() {
		return wire.Offer{}, s.refuseSession(ctx, user, device, transport.NoDevice, "revoked")
	}
	runtime, err := s.locate(ctx, device)
	if err != nil {
		return wire.Offer{}, err
	}
	if runtime == nil {
		return wire.Offer{}, s.refuseSessionFor(ctx, user, device, s.store.View(ctx, func(tx *store.Tx) error {
			if err := notCloned(tx, m.ID); err != nil {
				return err
			}
			return refuse(transport.Offline, "no control connection")
		}))
	}
	if !runtime.speaks() {
		return wire.Offer{}, s.refuseSession(ctx, user, device, transport.Unsupported, "update hawser-agent of "+m.Name)
	}
	chain, err := s.deviceChain(ctx, runtime.peer())
	if err != nil {
		return wire.Offer{}, s.refuseSessionFor(ctx, user, device, err)
	}
	d, relay, err := s.chooseRelay(ctx, user, m.UID(), "")
	if err != nil {
		return wire.Offer{}, s.refuseSessionFor(ctx, user, device, err)
	}
	r := store.Session{
		ID: newID(), Epoch: 1, Domain: m.Domain, Device: m.UID(), User: user.Name.ID,
		Relay: d.Chosen, Instance: runtime.instance, Created: s.now().UTC(),
	}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		now := store.Member{Kind: m.Kind, ID: m.ID} // it may have been revoked meanwhile
		if err := tx.Get(&now); err != nil {
			return err
		}
		if !now.Revoked.IsZero() {
			return refuse(transport.NoDevice, "revoked")
		}
		if err := notCloned(tx, m.ID); err != nil {
			return err
		}
		return errors.Join(tx.Insert(&r), storeDecision(tx, user.Name.ID, d),
			s.publishSession(tx, &sessionChange{Record: r, Agreed: r.Epoch}))
	})
	if err != nil {
		return wire.Offer{}, err
	}
	tooOld := s.sessions.add(r)
	s.hint()
	for _, old := range tooOld {
		s.finishSession(ctx, old.ID, s.cfg.Name.String(), transport.LinkLost)
	}
	offer, err := s.offerBoth(ctx, r, user, runtime, relay, chain)
	if err != nil {
		// The Manager may have hung up, but the session must still be ended in the store.
		ctx := context.WithoutCancel(ctx)
		reason := transport.ReasonOf(err)
		s.finishSession(ctx, r.ID, s.cfg.Name.String(), reason)
		return wire.Offer{}, inWordsOf(err, s.refuseSession(ctx, user, device, reason, "session "+r.ID))
	}
	s.counted.opened.Inc()
	text := "session " + r.ID + " " + choose.Summary(d)
	return offer, s.auditOf(ctx, device, s.record(actionSessionOpen, user.Name.String(), device, nil, text), anyRecords)
}

// inWordsOf gives a refusal the words of why, if that is one: what the audit keeps of it is no help to the caller.
func inWordsOf(why, err error) error {
	said, ok := errors.AsType[*wire.Refusal](why)
	refusal, is := errors.AsType[*wire.Refusal](err)
	if !ok || !is {
		return err
	}
	return &wire.Refusal{Reason: refusal.Reason, Text: said.Text, RetryAfter: refusal.RetryAfter}
}

// refuseSessionFor is refuseSession for an error that may be a refusal. Any other error it returns as it is.
func (s *Server) refuseSessionFor(ctx context.Context, user identity.Peer, device identity.Name, err error) error {
	if r, ok := errors.AsType[*wire.Refusal](err); ok {
		return s.refuseSession(ctx, user, device, r.Reason, r.Text)
	}
	return err
}

// refuseSession writes a refusal into the audit, unless there were too many in this minute, and returns it.
func (s *Server) refuseSession(ctx context.Context, user identity.Peer, device identity.Name, reason transport.Reason, text string) error {
	s.counted.sessionRefused.Reason(reason)
	refusal := refuse(reason, text)
	r := s.record(actionSessionRefused, user.Name.String(), device, refusal, text)
	if err := s.auditOf(ctx, user.Name, r, refusedRecords); err != nil {
		return err
	}
	return refusal
}

// offerBoth offers the session to the Runtime, waits for its consent and returns the Manager's offer. The Runtime is
// asked first, so that no Manager waits at a relay for a Runtime that refuses. Each grant names one end as its holder.
func (s *Server) offerBoth(ctx context.Context, r store.Session, user identity.Peer, runtime, relay *onlineMember,
	chain []string) (wire.Offer, error) {
	forRuntime, err := s.makeOffer(r, wire.RoleRuntime, relay, runtime.peer(), user)
	if err != nil {
		return wire.Offer{}, err
	}
	if ack := s.offer(ctx, runtime, forRuntime); ack.Reason != "" {
		return wire.Offer{}, refuse(ack.Reason, cmp.Or(ack.Text, "the device refused the session"))
	}
	s.sessions.agree(r.ID, r.Epoch)
	s.publishSessionNow(ctx, r.ID)
	return s.offerManager(r, relay, user, runtime, chain)
}

// offerManager makes the Manager's offer, which has the chain of the device.
func (s *Server) offerManager(r store.Session, relay *onlineMember, user identity.Peer, runtime *onlineMember, chain []string) (wire.Offer, error) {
	offer, err := s.makeOffer(r, wire.RoleManager, relay, user, runtime.peer())
	offer.Statements = chain
	return offer, err
}

// makeOffer makes the offer of one end, holder, with a fresh grant. Times in a grant are whole seconds (RFC 7519), and
// one that was rounded up would be from the future.
func (s *Server) makeOffer(r store.Session, role wire.Role, relay *onlineMember, holder, peer identity.Peer) (wire.Offer, error) {
	now := s.now().UTC().Truncate(time.Second)
	token, err := s.cfg.Grant.Sign(grant.Grant{
		ID: newID(), Relay: relay.name.ID, Instance: relay.instance,
		Session: r.ID, Epoch: r.Epoch, Role: role, Holder: holder.SPKI, Peer: peer.SPKI,
		Permissions: permissions(), Issued: now, Expires: now.Add(grant.Life),
	})
	return wire.Offer{
		Session: r.ID, Epoch: r.Epoch, Role: role, Relay: relay.relay(), Grant: token,
		Peer: peer.Name.String(), PeerSPKI: peer.SPKI,
		Permissions: permissions(), User: r.User,
	}, err
}

// endSession ends a session in the store, with an audit record, and tells the Runtime, unless that is who has ended it.
// A session that has ended already stays as it is. It is written also while rows are missing: to end is always right.
func (s *Server) endSession(ctx context.Context, id, actor string, reason transport.Reason) error {
	r := store.Session{ID: id}
	ended := false // here, and not before
	err := s.store.UpdateAlways(ctx, func(tx *store.Tx) error {
		ended = false
		if err := tx.Get(&r); err != nil || !r.Ended.IsZero() {
			return err
		}
		ended = true
		r.Ended, r.Reason = s.now().UTC(), reason
		text := "session " + id + ": " + string(reason)
		return errors.Join(tx.Put(&r), s.publishSession(tx, &sessionChange{Record: r}),
			s.appendOf(tx, r.DeviceIdentity(), s.record(actionSessionEnd, actor, r.DeviceIdentity(), nil, text), anyRecords))
	})
	if err != nil {
		return err
	}
	if ended {
		s.counted.sessionEnded.Reason(reason)
	}
	s.sessions.remove(id)
	s.hint()
	if device := r.DeviceIdentity(); device.String() != actor {
		s.sendEnd(ctx, device, endOf(id, actor, reason))
	}
	return nil
}

// offerAnswered passes on a Runtime's answer to an offer. Consent clears a loss that was reported before it, since that
// was about an older epoch.
func (s *Server) offerAnswered(l *link, m wire.OfferAck) {
	if l.acknowledge(m) && m.Reason == "" {
		s.sessions.clearLost(m.Session)
	}
}

// sessionEnded handles a Runtime's report that one of its sessions is over, or has only lost its relay: then it can be
// moved (access §5.2). A report about an unknown session, or one of another device, changes nothing. While the store is
// away the session is treated as lost, so that maintain ends it later: an error here would end the device's link.
func (s *Server) sessionEnded(ctx context.Context, device identity.Name, m wire.EndSession) error {
	if !isID(m.Session) {
		return nil
	}
	r, err := s.session(ctx, m.Session)
	switch {
	case errors.Is(err, errNotFound):
		return nil
	case err != nil: // of the store, which is no fault of the link
		s.sessionLost(ctx, m.Session)
		return nil
	case r.DeviceIdentity() != device:
		return nil
	case canMove(m.Reason):
		s.sessionLost(ctx, m.Session)
		return nil
	}
	s.finishSession(ctx, m.Session, device.String(), cleanReason(m.Reason))
	return nil
}

// finishSession is endSession where nobody can be told that it failed: then the session counts as lost, and maintain ends
// it later.
func (s *Server) finishSession(ctx context.Context, id, actor string, reason transport.Reason) {
	if err := s.endSession(ctx, id, actor, reason); err != nil {
		s.logFailure("session not ended", err, "session", id)
		s.sessionLost(ctx, id)
	}
}

// sessionLost starts the time in which an open session can be moved.
func (s *Server) sessionLost(ctx context.Context, id string) {
	s.sessions.markLost(id, time.Now())
	s.publishSessionNow(ctx, id)
	s.dueChanged.Ring()
}

// canMove reports whether a session that ended for this reason can go on over another relay: the reason is about the
// network or the relay, and not about either end.
func canMove(r transport.Reason) bool {
	switch r {
	case transport.LinkLost, transport.Refused, transport.Timeout, transport.Unreachable, transport.Reset, transport.NoPeer:
		return true
	}
	return false
}

// sessionsBefore returns the sessions of an earlier process of a Runtime. They ended with that process, which could not
// report it; left open, each of them would count against the device. Where there are other nodes the store is asked: one
// of them may have opened a session that this node has not heard of yet. A store whose sessions cannot be read keeps
// nobody from being attached (access §1.5).
func (s *Server) sessionsBefore(ctx context.Context, device identity.Name, instance string) (before []store.Session, err error) {
	uid, err := identity.ParseUID(device.ID)
	if err != nil {
		return nil, err
	}
	before = s.sessions.of(uid)
	if !s.cluster.alone {
		err = s.store.View(ctx, func(tx *store.Tx) (err error) {
			before, err = tx.OpenSessionsOf(uid)
			return err
		})
	}
	if errors.Is(err, store.ErrDamaged) {
		err = nil
	}
	return slices.DeleteFunc(before, func(r store.Session) bool { return r.Instance == instance }), err
}
