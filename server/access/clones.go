package access

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

func clonedRefusal() *wire.Refusal {
	return &wire.Refusal{Reason: transport.Cloned, Text: "two machines use this identity: an admin chooses by hawser device accept"}
}

func joinText(j store.Join, shown shownJoin) string {
	return fmt.Sprintf("join-state %d shown, %d known", shown.counter, j.Counter)
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// convict quarantines the device of a link that shows what another machine with its key has used up, as soon as it is certain
// that it lives: a hello may have been under way for long, of a process that is no more.
func (s *Server) convict(ctx context.Context, l *link) {
	l.send(message{wire.TypePing, wire.Ping(aliveTimeout)})
	timer := time.NewTimer(aliveTimeout)
	defer timer.Stop()
	select {
	case <-l.alive:
	case <-timer.C:
		l.closeWith(&wire.Refusal{Reason: transport.LinkLost, Text: "a ping was not answered"})
		return
	case <-l.ending:
		return
	}
	if err := s.quarantine(ctx, l); err != nil {
		if ctx.Err() == nil && isInternal(err) {
			s.logFailure("a cloned device is not quarantined", err, "uid", l.peer.Name.ID)
		}
		l.closeWith(refusalOf(err))
	}
}

// quarantine writes that a device is there twice, and ends all of it. Its link ends with the others: both come back, and show
// fresh keys.
func (s *Server) quarantine(ctx context.Context, l *link) error {
	name, now := l.peer.Name, s.now().UTC()
	err := s.store.UpdateAlways(ctx, func(tx *store.Tx) error {
		j, err := readJoin(tx, name.ID)
		if err != nil {
			return err
		}
		if j = joinOf(j, l.peer); !j.Cloned.IsZero() {
			return nil
		}
		shown := s.shown(j, l.peer, l.hello.JoinState)
		if judgeJoin(j, shown, l.hello.Instance, now) != joinCloned {
			return refuse(transport.Busy, "judged anew")
		}
		text := joinText(j, shown) + ", instance " + l.hello.Instance
		if len(j.Instances) > 0 {
			text += " after " + j.Instances[0]
		}
		j.Cloned = now
		return errors.Join(tx.Put(&j), s.publish(tx, changeCloned, name.String()),
			tx.Append(s.record(actionDeviceCloned, l.from.String(), name, clonedRefusal(), text)))
	})
	if err != nil {
		return err
	}
	s.log.Warn("a device is there twice", "uid", name.ID, "addr", l.from)
	s.hint()
	if uid, err := identity.ParseUID(name.ID); err == nil {
		if err := s.endSessionsOf(ctx, uid, s.cfg.Name.String(), transport.Cloned); err != nil {
			s.logFailure("sessions of a cloned device are not ended", err, "uid", name.ID)
		}
	}
	l.closeWith(clonedRefusal())
	return s.applyCloned(ctx, name)
}

// applyCloned makes memory what the store has of a device of which there are two. Once its owner has chosen, the machine with
// that key gets its certificate, and the others nothing any more.
func (s *Server) applyCloned(ctx context.Context, name identity.Name) error {
	var j store.Join
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		j, err = readJoin(tx, name.ID)
		return err
	})
	if err != nil || j.Cloned.IsZero() {
		return err
	}
	s.presence.suspend(map[identity.SPKI]time.Time{j.SPKI: j.Cloned}, s.now())
	if j.Accepted.IsZero() {
		return nil
	}
	for _, l := range s.presence.heldOf(name) {
		switch l.freshKey() {
		case identity.SPKI{}: // it is told when it has shown one
		case j.Accepted:
			err = errors.Join(err, s.sendAccepted(ctx, l, j.Accepted))
		default:
			l.closeWith(anotherChosen())
		}
	}
	return err
}

func anotherChosen() *wire.Refusal {
	return &wire.Refusal{Reason: transport.Revoked, Text: "the owner has chosen the other machine"}
}

// maxIdentityNews is how many bytes of statements an identity frame brings beside the certificate.
const maxIdentityNews = 40 << 10

// sendAccepted sends the certificate for the fresh key that the owner has chosen, and his word for it.
func (s *Server) sendAccepted(ctx context.Context, l *link, key identity.SPKI) error {
	m := store.Member{Kind: identity.KindDevice, ID: l.peer.Name.ID}
	if err := s.store.View(ctx, func(tx *store.Tx) error { return tx.Get(&m) }); err != nil {
		return err
	}
	o, err := s.owner(ctx, m.Domain)
	if err != nil {
		return err
	}
	chain, err := s.deviceChain(ctx, identity.Peer{Name: m.Identity(), SPKI: key})
	if err != nil {
		return err
	}
	id := identityOf(m)
	id.Statements = chain
	id.Lists, _ = o.news(maxIdentityNews-sizeOf(chain), func(ownerList) bool { return true })
	l.send(encode(wire.TypeIdentity, id))
	return nil
}

// freshKeyFrom takes the fresh key of a machine with a cloned identity.
func (s *Server) freshKeyFrom(ctx context.Context, l *link, f wire.Frame) error {
	if !l.apart {
		return unexpected(f)
	}
	var m wire.FreshKey
	if err := f.Decode(&m); err != nil {
		return err
	}
	pub, spki, err := parseCSR(m.CSR)
	if err != nil {
		return err
	}
	key, err := identity.NewPublicKey(pub)
	if err != nil || spki == l.peer.SPKI {
		return refuse(transport.BadCSR, "not a fresh key")
	}
	now := s.now().UTC()
	shown := store.FreshKey{Key: key, Address: l.from.String(), Instance: l.hello.Instance, Since: now, At: now}
	var j store.Join
	err = s.store.UpdateAlways(ctx, func(tx *store.Tx) (err error) {
		if j, err = readJoin(tx, l.peer.Name.ID); err != nil {
			return err
		}
		if j.Cloned.IsZero() || j.SPKI != l.peer.SPKI {
			return refuse(transport.Busy, "judged anew")
		}
		if !j.Accepted.IsZero() {
			return nil
		}
		fresh, ok := withFresh(j.Fresh, shown)
		if !ok {
			return busy(freshFlood)
		}
		if slices.Equal(fresh, j.Fresh) {
			return nil
		}
		j.Fresh = fresh
		return tx.Put(&j)
	})
	if err != nil {
		return err
	}
	l.showed(spki)
	switch j.Accepted {
	case identity.SPKI{}:
		return nil
	case spki:
		return s.sendAccepted(ctx, l, spki)
	}
	return anotherChosen()
}

// postDeviceAccept takes the owner's word which machine of a cloned device is the one. Its fresh key is the device's from then
// on. The key before is refused when the new one has come: until then its machine fetches its certificate with it, also after a
// power cut.
func (s *Server) postDeviceAccept(r request) (int, any, error) {
	var body api.AcceptRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	m, err := s.device(r)
	if err != nil {
		return 0, nil, err
	}
	err = s.changeOwnerBy(r.Context(), r.caller.domain(), s.store.Update, func(tx *store.Tx, o *owner) (kept, error) {
		k, err := s.keep(tx, o, body.Statements, nil)
		if err == nil {
			err = s.accept(tx, r, m, body.SPKI)
		}
		return k, err
	})
	if err == nil {
		s.hint()
		err = s.applyCloned(r.Context(), m.Identity())
	}
	if err == nil {
		err = s.store.View(r.Context(), func(tx *store.Tx) error { return tx.Get(&m) })
	}
	if err != nil {
		return 0, nil, err
	}
	v, err := s.viewNow(r.Context(), m)
	return http.StatusOK, v, err
}

// accept writes into the registry that the machine with a fresh key is the device. The owner must have said so.
func (s *Server) accept(tx *store.Tx, r request, m store.Member, spki identity.SPKI) error {
	j, err := readJoin(tx, m.ID)
	if err == nil {
		err = tx.Get(&m) // its statement may have changed name and folder
	}
	if err != nil {
		return err
	}
	i := slices.IndexFunc(j.Fresh, func(k store.FreshKey) bool { return k.Key.SPKI() == spki })
	switch {
	case !m.Revoked.IsZero():
		return refuse(transport.Policy, "the device is revoked")
	case j.Cloned.IsZero() && m.SPKI == spki: // the answer was lost, and the machine has come
		return nil
	case j.Cloned.IsZero() || i < 0:
		return refuse(api.NotFound, "no machine of this device shows that key")
	}
	o, err := readOwner(tx, m.Domain, s.now())
	if err != nil {
		return err
	}
	stated, err := tx.StatementsOf(m.Domain, subjectOf(m.Identity()))
	if err != nil {
		return err
	}
	if _, err := o.chain(stated, identity.Peer{Name: m.Identity(), SPKI: spki}, s.now()); err != nil {
		return refuse(transport.NotStated, "the owner has not stated that key: "+err.Error())
	}
	if m.SPKI != spki {
		m.SPKI = spki
		if err := s.certify(&m, j.Fresh[i].Key.Public()); err != nil {
			return err
		}
	}
	j.Accepted = spki
	return errors.Join(tx.Put(&m), tx.Put(&j), s.publish(tx, changeCloned, m.Identity().String()),
		tx.Append(s.record(actionDeviceAccept, r.caller.peer.Name.String(), m.Identity(), nil, "key "+spki.String()+" in the place of "+j.SPKI.String())))
}

// notCloned refuses a session with a device of which there are two.
func notCloned(tx *store.Tx, uid string) error {
	j, err := readJoin(tx, uid)
	if err == nil && !j.Cloned.IsZero() {
		return clonedRefusal()
	}
	return err
}
