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

// postDeviceCode gives a device another code: for new hardware, or because the last one was lost. The codes before it are
// worth nothing from now on. A key that is enrolled stays until another one comes with the code.
func (s *Server) postDeviceCode(r request) (int, any, error) {
	var body api.DeviceRequest
	if err := r.read(&body); err != nil {
		return 0, nil, err
	}
	m, err := s.device(r)
	if err != nil {
		return 0, nil, err
	}
	err = s.changeOwnerBy(r.Context(), r.caller.domain(), s.store.Update, func(tx *store.Tx, o *owner) (k kept, err error) {
		_, c, k, err := s.takeCode(tx, o, body.Code, identity.KindDevice, nil)
		known := errors.Is(err, errCodeKnown)
		if err != nil && !known {
			return k, err
		}
		if c.Subject != m.ID {
			return k, refuse(api.BadRequest, "code: of another device")
		}
		// Its statement may have changed name and folder.
		if err := tx.Get(&m); err != nil || known {
			return k, err
		}
		if !m.Revoked.IsZero() {
			return k, refuse(transport.Policy, "the device is revoked: add another one")
		}
		m.Code, m.CodeHash, m.CodeExpires = c.Lookup, c.Hash, c.Expires
		if err := tx.Put(&m); err != nil {
			return k, err
		}
		return k, tx.Append(s.record(actionDeviceCode, r.caller.peer.Name.String(), m.Identity(), nil, ""))
	})
	return http.StatusCreated, api.NewSubject{UID: m.UID(), Name: m.Name, Expires: m.CodeExpires}, err
}

// isNext tells whether c is a code that nobody has used, for a device whose key came with an earlier one.
func isNext(m store.Member, c store.Code) bool {
	return isOwners(c) && c.Used.IsZero() && m.Code == c.Lookup && m.IsEnrolled()
}

// replaceKey makes the key before a new one worthless: only one gateway is the device. It returns what was refused.
func (s *Server) replaceKey(tx *store.Tx, m store.Member, spki identity.SPKI, now time.Time) (map[identity.SPKI]time.Time, error) {
	if !m.IsEnrolled() || m.SPKI == spki {
		return nil, nil
	}
	before := map[identity.SPKI]time.Time{m.SPKI: now}
	// A new key begins with no join-state, and settles who of two is the device.
	if j, err := readJoin(tx, m.ID); err != nil {
		return nil, err
	} else if j.ID != "" {
		before[j.SPKI] = now
		if err := tx.Delete(&j); err != nil {
			return nil, err
		}
	}
	return before, s.refuseKeys(tx, m.Identity(), before)
}

// replaced cuts the gateway off whose key was replaced, after the commit.
func (s *Server) replaced(ctx context.Context, m store.Member, before map[identity.SPKI]time.Time, actor string) error {
	if len(before) == 0 {
		return nil
	}
	s.presence.revokeAll(before, s.now())
	s.hint()
	return s.endSessionsOf(ctx, m.UID(), actor, transport.Revoked)
}
