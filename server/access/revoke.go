package access

import (
	"context"
	"errors"
	"net/http"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
)

// postRevoke shuts a device out: by lists, which the ends go by, and in the registry.
func (s *Server) postRevoke(r request) (int, any, error) {
	var body api.Statements
	if r.ContentLength != 0 { // without statements it is the registry's word alone
		if err := r.read(&body); err != nil {
			return 0, nil, err
		}
	}
	m, err := s.device(r)
	// A bad row is revoked all the same, if it still says whose it is: damage must not keep a device in service.
	if err != nil && (!errors.Is(err, store.ErrDamaged) || m.Domain != r.caller.domain()) {
		return 0, nil, err
	}
	if m, err = s.revoke(r.Context(), r.caller.peer, m.ID, body.Statements); err != nil {
		return 0, nil, err
	}
	v, err := s.viewNow(r.Context(), m)
	return http.StatusOK, v, err
}

// revoke takes a device out of service at once (access §1, §6). One whose row is bad is revoked by what can be read of
// it, and by the key of who is attached as it.
func (s *Server) revoke(ctx context.Context, user identity.Peer, uid string, statements []string) (m store.Member, err error) {
	now := s.now().UTC()
	attached, err := s.locate(ctx, identity.Name{Kind: identity.KindDevice, Domain: user.Name.Domain, ID: uid})
	if err != nil {
		return m, err
	}
	var keys map[identity.SPKI]time.Time
	enter := func(tx *store.Tx) (err error) {
		m, keys, err = s.revokeMember(tx, user, uid, attached, now)
		return err
	}
	// Damage of what is stated must not keep a device in service either: then the registry alone revokes it. The admin's
	// Manager has the list.
	if err = s.keepWith(ctx, user.Name.Domain, statements, enter); errors.Is(err, store.ErrDamaged) {
		s.logFailure("a list that revokes a device is not kept", err, "uid", uid)
		err = s.keepWith(ctx, user.Name.Domain, nil, enter)
	}
	if err != nil {
		return m, err
	}
	// After the commit, and before anything that can fail: the key's link must end even if its sessions cannot be ended
	// now.
	s.presence.revokeAll(keys, now)
	s.hint()
	return m, s.endSessionsOf(ctx, m.UID(), user.Name.String(), transport.Revoked)
}

// keepWith keeps statements, if there are any, in the transaction of enter.
func (s *Server) keepWith(ctx context.Context, domain string, statements []string, enter func(*store.Tx) error) error {
	if len(statements) == 0 {
		return s.store.UpdateAlways(ctx, enter)
	}
	return s.changeOwner(ctx, domain, func(tx *store.Tx, o *owner) (kept, error) {
		k, err := s.keep(tx, o, statements, nil)
		if err == nil {
			err = enter(tx)
		}
		return k, err
	})
}

// revokeMember writes into the registry that a device is revoked, with its key and that of who is attached as it. The
// transaction may run several times: it begins with nothing of an earlier try.
func (s *Server) revokeMember(tx *store.Tx, user identity.Peer, uid string, attached *onlineMember, now time.Time) (store.Member, map[identity.SPKI]time.Time, error) {
	m, keys := store.Member{Kind: identity.KindDevice, ID: uid}, make(map[identity.SPKI]time.Time)
	if err := tx.Get(&m); err != nil && !errors.Is(err, store.ErrDamaged) {
		return m, nil, err
	}
	if m.IsEnrolled() {
		keys[m.SPKI] = now
	}
	if attached != nil {
		keys[attached.spki] = now
	}
	// Of a cloned one whose owner has chosen, the key before is not in its row any more.
	if j, err := readJoin(tx, uid); err != nil {
		return m, nil, err
	} else if j.ID != "" {
		keys[j.SPKI] = now
		if err := tx.Delete(&j); err != nil {
			return m, nil, err
		}
	}
	if err := s.refuseKeys(tx, m.Identity(), keys); err != nil {
		return m, nil, err
	}
	if m.Revoked.IsZero() {
		m.Revoked = now
		if err := tx.Put(&m); err != nil {
			return m, nil, err
		}
	}
	return m, keys, tx.Append(s.record(actionDeviceRevoke, user.Name.String(), m.Identity(), nil, ""))
}

// refuseKeys writes that nobody accepts these keys of somebody any more.
func (s *Server) refuseKeys(tx *store.Tx, of identity.Name, keys map[identity.SPKI]time.Time) error {
	for spki, at := range keys {
		k := store.RevokedKey{SPKI: spki, Name: of.String(), When: at}
		if err := tx.Insert(&k); err != nil && !errors.Is(err, store.ErrExists) {
			return err
		}
		if err := s.publish(tx, changeRevoked, spki.String()); err != nil {
			return err
		}
	}
	return nil
}

// endSessionsOf ends the sessions of a device.
func (s *Server) endSessionsOf(ctx context.Context, device identity.UID, actor string, why transport.Reason) error {
	for _, id := range s.sessionsOf(ctx, device) {
		if err := s.endSession(ctx, id, actor, why); err != nil {
			return err
		}
	}
	return nil
}
